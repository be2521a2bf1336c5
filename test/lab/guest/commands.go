package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// serve takes commands from xenstore twice a second: from /lab/DOMAIN/command, or from lab/command below the domain's own
// directory. A node that this guest may write is set to "" when the command is taken, so it can be given again; one that
// it may only read is taken whenever its value changes. The result is a GUEST did line, and the value of the node
// "result" beside the command where the host made one.
//
//	fill NAME SIZE [SEED]        write and acknowledge a file; [DISK:]NAME for another than the root disk
//	delete NAME                  delete a file
//	rewrite NAME OFFSET LENGTH   change a part of a file in place
//	trim [DISK]                  discard free space
//	sync                         sync all filesystems
//	verify                       drop the page cache and verify every record and file again
//	rate N                       change the records per second
func (g *guest) serve(ctx context.Context) {
	if g.store == nil {
		return
	}
	nodes := []string{"lab/"}
	if g.name != "" {
		nodes = append(nodes, "/lab/"+g.name+"/")
	}
	seen := map[string]string{}
	for _, n := range nodes {
		v, err := g.store.read(n + "command")
		// What stands in a read-only node at boot was done by the boot before.
		if err == nil && g.store.write(n+"command", v) != nil {
			seen[n] = v
		}
	}
	for {
		for _, n := range nodes {
			v, err := g.store.read(n + "command")
			if err != nil || strings.TrimSpace(v) == "" || v == seen[n] {
				continue
			}
			if g.store.write(n+"command", "") != nil {
				seen[n] = v
			}
			result := g.do(v)
			if _, err := g.store.read(n + "result"); err == nil {
				_ = g.store.write(n+"result", result) // the console has it
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// do runs one command and says how it went.
func (g *guest) do(line string) string {
	line = strings.Join(strings.Fields(line), " ")
	g.con.say("doing %s", line)
	detail, err := g.command(strings.Fields(line))
	result := fmt.Sprintf("%s ok %s", line, detail)
	if err != nil {
		result = fmt.Sprintf("%s error %v", line, err)
	}
	result = strings.TrimSpace(result)
	g.con.say("did %s", result)
	return result
}

func (g *guest) command(words []string) (detail string, err error) {
	if len(g.disks) == 0 {
		return "", fmt.Errorf("no disk is mounted")
	}
	verb, args := words[0], words[1:]
	if g.con.isLost() && verb != "verify" {
		return "", fmt.Errorf("refused: something is lost")
	}
	want := map[string][2]int{"fill": {2, 3}, "delete": {1, 1}, "rewrite": {3, 3}, "trim": {0, 1}, "sync": {}, "verify": {}, "rate": {1, 1}}
	n, ok := want[verb]
	if !ok || len(args) < n[0] || len(args) > n[1] {
		return "", fmt.Errorf("unknown command, or not %d to %d arguments", n[0], n[1])
	}
	switch verb {
	case "sync":
		unix.Sync()
		return "", nil
	case "verify":
		return g.verify()
	case "rate":
		rate, err := parseSize(args[0])
		if err == nil {
			g.rate.Store(rate)
		}
		return "", err
	case "trim":
		d, err := g.namedDisk(append(args, g.disks[0].name)[0])
		if err != nil {
			return "", err
		}
		n, err := trim(d.dir)
		return fmt.Sprintf("bytes=%d", n), err
	}
	return "", g.fileCommand(verb, args)
}

// fileCommand runs fill, delete or rewrite.
func (g *guest) fileCommand(verb string, args []string) error {
	diskName, name, ok := strings.Cut(args[0], ":")
	if !ok {
		diskName, name = g.disks[0].name, args[0]
	}
	d, err := g.namedDisk(diskName)
	if err != nil {
		return err
	}
	var n [2]int64
	for i, a := range args[1:] {
		if n[i], err = parseSize(a); err != nil {
			return err
		}
	}
	switch verb {
	case "fill":
		if len(args) < 3 {
			n[1] = 1
		}
		return d.files.fill(name, n[0], uint64(n[1]))
	case "delete":
		return d.files.remove(name)
	default:
		return d.files.rewrite(name, span{n[0], n[1]})
	}
}

func (g *guest) namedDisk(name string) (*disk, error) {
	if d := g.disk(name); d != nil {
		return d, nil
	}
	return nil, fmt.Errorf("no disk %s is mounted", name)
}

// verify reads every disk's own copy again, as a boot would, without one: this is how a guest that was moved while it ran
// is judged.
func (g *guest) verify() (string, error) {
	unix.Sync()
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0); err != nil {
		return "", err
	}
	var last []string
	for _, d := range g.disks {
		rep, ok := d.check(g.con, 0)
		if !ok {
			return "", fmt.Errorf("disk %s has lost something", d.name)
		}
		last = append(last, d.name+"="+strconv.FormatUint(rep.Last, 10))
	}
	return strings.Join(last, " "), nil
}
