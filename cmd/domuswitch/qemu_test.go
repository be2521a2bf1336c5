package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/rogpeppe/go-internal/testscript"
)

// fakeQEMU is as much of a QEMU as lib/qmp asks for; what that does with a real
// one, its own tests show.
type fakeQEMU struct {
	mu    sync.Mutex
	nodes map[string]map[string]any // by name
	disks map[string]string         // by vdev: the node that the guest's device is on
	all   map[string]map[string]any // jobs, by id, which also is the node that one copies to
	looks int                       // at the jobs until they are ready
	ready string                    // file that makes them ready at once
	broke string                    // what they fail with
	log   string                    // file with the names of the commands
	fails string                    // file with commands that fail, each a line: NAME [JOB]
	hangs string                    // and with those that are not done, and never answered
}

// qemu DOMID FILE[,FILE] LOOKS [ERROR]: serve the domain's disks xvda and xvdb, 256
// MiB each, from the files until the script ends. A copy is ready after it was
// looked at LOOKS times, or there is a file qmp-ready, or fails with ERROR. Commands
// fail that are in the file qmp-fails, and have no answer that are in qmp-hangs.
func qemu(ts *testscript.TestScript, _ bool, args []string) {
	looks, err := strconv.Atoi(args[2])
	ts.Check(err)
	q := &fakeQEMU{looks: looks, log: ts.MkAbs("qmp-calls"), fails: ts.MkAbs("qmp-fails"), hangs: ts.MkAbs("qmp-hangs"), ready: ts.MkAbs("qmp-ready"),
		nodes: map[string]map[string]any{}, disks: map[string]string{}, all: map[string]map[string]any{}}
	if len(args) > 3 {
		q.broke = args[3]
	}
	for i, file := range strings.Split(args[1], ",") {
		vdev := "xvd" + string(rune('a'+i))
		q.disks[vdev] = vdev + "-qcow2"
		q.add(vdev+"-qcow2", "qcow2", file)
		q.add(vdev+"-file", "file", file)
	}
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
		id, _ := c.Arguments["id"].(string)
		if listed(q.hangs, c.Execute, id) {
			continue
		}
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
	id, _ := args["id"].(string)
	if listed(q.fails, command, id) {
		return nil, command + " does not work"
	}
	switch command {
	case "qmp_capabilities", "block-job-change":
		return nothing, ""
	case "query-block":
		all := []any{}
		for vdev, node := range q.disks {
			all = append(all, map[string]any{"qdev": "/machine/" + vdev, "inserted": q.nodes[node]})
		}
		return all, ""
	case "qom-get":
		return map[string]string{"type": "xen-disk", "vdev": filepath.Base(args["path"].(string))}[args["property"].(string)], ""
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
		if vdev, ok := strings.CutSuffix(args["node-name"].(string), "-qcow2"); ok {
			delete(q.nodes, vdev+"-file")
		}
		return nothing, ""
	case "blockdev-mirror":
		q.all[args["job-id"].(string)] = map[string]any{"id": args["job-id"], "status": "running", "current-progress": 0, "total-progress": 256 << 20}
		return nothing, ""
	case "query-jobs":
		return q.jobs(), ""
	case "job-complete":
		vdev, _ := strings.CutPrefix(id, "xenlvm-")
		q.disks[vdev] = id
		q.all[id]["status"] = "concluded"
		return nothing, ""
	case "job-cancel":
		q.all[id]["status"] = "concluded"
		return nothing, ""
	case "job-dismiss":
		delete(q.all, id)
		return nothing, ""
	}
	return nil, "The command " + command + " has not been found"
}

// listed says whether a file has a command with the job id.
func listed(file, command, id string) bool {
	lines, err := os.ReadFile(file)
	return err == nil && slices.Contains(strings.Split(string(lines), "\n"), strings.TrimSpace(command+" "+id))
}

func (q *fakeQEMU) jobs() []any {
	jobs := []any{}
	if len(q.all) > 0 {
		q.looks--
	}
	if _, err := os.Stat(q.ready); err == nil {
		q.looks = 0
	}
	for _, job := range q.all {
		if q.looks <= 0 && job["status"] == "running" {
			job["status"] = "ready"
			if q.broke != "" {
				job["status"], job["error"] = "concluded", q.broke
			}
		}
		jobs = append(jobs, maps.Clone(job))
	}
	return jobs
}
