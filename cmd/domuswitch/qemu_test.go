package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"

	"github.com/rogpeppe/go-internal/testscript"
)

// fakeQEMU is as much of a QEMU with one disk as lib/qmp asks for; what that does
// with a real one, its own tests show.
type fakeQEMU struct {
	mu    sync.Mutex
	nodes map[string]map[string]any // by name
	disk  string                    // the node that the guest's device is on
	job   map[string]any            // nil for none
	to    string                    // the node that the job copies to
	looks int                       // at the job until it is ready
	broke string                    // what the job fails with
	log   string                    // file with the names of the commands
}

// qemu DOMID FILE LOOKS [ERROR]: serve the domain's disk xvda, 256 MiB, from FILE
// until the script ends. A copy is ready after it was looked at LOOKS times, or
// fails with ERROR.
func qemu(ts *testscript.TestScript, _ bool, args []string) {
	looks, err := strconv.Atoi(args[2])
	ts.Check(err)
	q := &fakeQEMU{disk: "xvda-qcow2", looks: looks, log: ts.MkAbs("qmp-calls"), nodes: map[string]map[string]any{}}
	if len(args) > 3 {
		q.broke = args[3]
	}
	q.add("xvda-qcow2", "qcow2", args[1])
	q.add("xvda-file", "file", args[1])
	l, err := net.Listen("unix", ts.MkAbs("qmp-"+args[0]))
	ts.Check(err)
	ts.Defer(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			q.serve(conn)
		}
	}()
}

func (q *fakeQEMU) add(name, driver, file string) {
	q.nodes[name] = map[string]any{"node-name": name, "drv": driver, "file": file, "ro": false, "image": map[string]any{"virtual-size": 256 << 20}}
}

func (q *fakeQEMU) serve(conn net.Conn) {
	defer conn.Close()
	fmt.Fprintln(conn, `{"QMP": {"version": {}}}`)
	for in := bufio.NewScanner(conn); in.Scan(); {
		var c struct {
			Execute   string         `json:"execute"`
			Arguments map[string]any `json:"arguments"`
			ID        int64          `json:"id"`
		}
		if json.Unmarshal(in.Bytes(), &c) != nil {
			return
		}
		reply := map[string]any{"id": c.ID}
		if value, err := q.execute(c.Execute, c.Arguments); err != "" {
			reply["error"] = map[string]string{"class": "GenericError", "desc": err}
		} else {
			reply["return"] = value
		}
		b, err := json.Marshal(reply)
		if err != nil {
			return
		}
		if _, err := fmt.Fprintf(conn, "%s\n", b); err != nil {
			return
		}
	}
}

// execute is one command. Whatever it does not know fails.
func (q *fakeQEMU) execute(command string, args map[string]any) (value any, failed string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	nothing := map[string]any{}
	log, err := os.OpenFile(q.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err.Error()
	}
	fmt.Fprint(log, command, " ")
	log.Close()
	switch command {
	case "qmp_capabilities", "block-job-change":
		return nothing, ""
	case "query-block":
		return []any{map[string]any{"qdev": "/machine/xvda", "inserted": q.nodes[q.disk]}}, ""
	case "qom-get":
		return map[string]string{"type": "xen-disk", "vdev": "xvda"}[args["property"].(string)], ""
	case "query-named-block-nodes":
		all := []any{}
		for _, n := range q.nodes {
			all = append(all, n)
		}
		return all, ""
	case "blockdev-add":
		file := args["file"].(map[string]any)
		q.add(args["node-name"].(string), "raw", file["filename"].(string))
		q.add(file["node-name"].(string), "host_device", file["filename"].(string))
		return nothing, ""
	case "blockdev-del":
		delete(q.nodes, args["node-name"].(string))
		delete(q.nodes, args["node-name"].(string)+"-file")
		if args["node-name"] == "xvda-qcow2" {
			delete(q.nodes, "xvda-file")
		}
		return nothing, ""
	case "blockdev-mirror":
		q.to = args["target"].(string)
		q.job = map[string]any{"id": args["job-id"], "status": "running", "current-progress": 0, "total-progress": 256 << 20}
		return nothing, ""
	case "query-jobs":
		return q.jobs(), ""
	case "job-complete":
		q.disk = q.to
		q.job["status"] = "concluded"
		return nothing, ""
	case "job-cancel":
		q.job["status"] = "concluded"
		return nothing, ""
	case "job-dismiss":
		q.job = nil
		return nothing, ""
	}
	return nil, "The command " + command + " has not been found"
}

func (q *fakeQEMU) jobs() []any {
	if q.job == nil {
		return []any{}
	}
	if q.looks--; q.looks <= 0 && q.job["status"] == "running" {
		q.job["status"] = "ready"
		if q.broke != "" {
			q.job["status"], q.job["error"] = "concluded", q.broke
		}
	}
	return slices.Clone([]any{q.job})
}
