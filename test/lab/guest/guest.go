package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/u-root/u-root/pkg/cmdline"
	"golang.org/x/sys/unix"
)

// guest is the running system.
type guest struct {
	opt   options
	con   *console
	tty   int
	store *xenstore // nil when there is none
	name  string    // of the domain, "" when unknown
	disks []*disk   // mounted ones, the root disk first
	rate  atomic.Int64
}

// newGuest opens the console and starts the heartbeat, which goes on until the machine stops.
func newGuest() (*guest, error) {
	opt, optErr := parseOptions(cmdline.NewCmdLine().Flag)
	// Not os.Open: a console in the runtime's poller would be non-blocking for the kernel's own users as well.
	fd, err := unix.Open("/dev/console", unix.O_WRONLY|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("open /dev/console", err)
	}
	g := &guest{opt: opt, tty: fd, con: newConsole(os.NewFile(uintptr(fd), "/dev/console"))}
	g.rate.Store(int64(opt.rate))
	if optErr != nil {
		g.con.say("FAIL %v", optErr)
	}
	return g, nil
}

// run brings the guest up and works until the context ends. When it returns nothing writes any more.
func (g *guest) run(ctx context.Context) {
	var work sync.WaitGroup
	defer work.Wait()
	work.Go(func() { g.heartbeat(ctx) })
	g.connect()
	if g.mountAll(ctx) {
		for _, d := range g.disks {
			work.Go(func() { d.write(ctx, g.con, &g.rate) })
		}
		g.fillAtBoot()
	}
	work.Go(func() { g.publishAcked(ctx) })
	work.Go(func() { g.serve(ctx) })
}

// heartbeat prints a line at every tick, whatever the disks do.
func (g *guest) heartbeat(ctx context.Context) {
	tick := time.NewTicker(g.opt.heartbeat)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			g.con.beat(time.Now())
		}
	}
}

// connect finds xenstore and the domain's own name. A guest without either works; it only cannot be told anything.
func (g *guest) connect() {
	store, err := openXenstore()
	if err == nil {
		g.store = store
		// A domain that comes back from a migration is renamed only after it runs, but a boot has its last name.
		g.name, err = store.read("name")
	}
	if err != nil {
		g.con.say("note %v", err)
	}
}

// mountAll mounts and verifies every disk and opens its log. It returns whether all may be written to.
func (g *guest) mountAll(ctx context.Context) bool {
	ok := true
	var boot uint64
	for i, name := range g.opt.disks {
		d := newDisk(name, filepath.Join("/mnt", name))
		if err := d.mount(ctx, g.opt.wait); err != nil {
			if ctx.Err() == nil {
				g.con.say("FAIL %v", err)
			}
			ok = false
			continue
		}
		g.disks = append(g.disks, d)
		if i == 0 {
			boot = d.nextBoot()
			g.con.say("boot %d kernel %s", boot, kernelRelease())
		}
		rep, good := d.check(g.con, g.knownAcked(i))
		if !good {
			ok = false
			continue
		}
		err := d.open(rep, boot, g.opt.size)
		if err == nil && i == 0 {
			err = d.saveBoot(boot)
		}
		if err != nil {
			g.con.say("FAIL disk=%s %v", name, err)
			ok = false
		}
	}
	g.swap(ctx)
	return ok
}

func (g *guest) swap(ctx context.Context) {
	if g.opt.swap == "" {
		return
	}
	err := waitDevice(ctx, g.opt.swap, g.opt.wait)
	if err == nil {
		err = swapOn("/dev/" + g.opt.swap)
	}
	if err != nil {
		g.con.say("FAIL swap=%s %v", g.opt.swap, err)
		return
	}
	g.con.say("swap=%s on", g.opt.swap)
}

// fillAtBoot writes the files of lab.files that the root disk does not have.
func (g *guest) fillAtBoot() {
	root := g.disks[0]
	for _, f := range g.opt.files {
		list, err := root.files.load()
		if _, there := list[f.name]; there && err == nil {
			continue
		}
		g.do("fill " + f.name + " " + strconv.FormatInt(f.size, 10))
	}
}

// ackedNode is where a disk's last acknowledged record stands outside of all disks, if the host made that node and lets
// the guest write it: /lab/DOMAIN/acked for the root disk, /lab/DOMAIN/acked-xvdb for another.
func (g *guest) ackedNode(i int) string {
	node := "/lab/" + g.name + "/acked"
	if i > 0 {
		node += "-" + g.opt.disks[i]
	}
	return node
}

// knownAcked reads what an earlier boot acknowledged, 0 when nobody kept it.
func (g *guest) knownAcked(i int) uint64 {
	if g.store == nil || g.name == "" {
		return 0
	}
	v, err := g.store.read(g.ackedNode(i))
	if err != nil {
		return 0
	}
	n, err := strconv.ParseUint(strings.TrimSpace(v), 10, 64)
	if err != nil {
		g.con.say("FAIL %s holds %q", g.ackedNode(i), v)
	}
	return n
}

// publishAcked stores the acknowledged numbers five times a second and once more at the end.
func (g *guest) publishAcked(ctx context.Context) {
	if g.store == nil || g.name == "" {
		return
	}
	stored := make([]uint64, len(g.opt.disks))
	absent := make([]bool, len(g.opt.disks))
	for done := false; !done; {
		select {
		case <-ctx.Done():
			done = true
		case <-time.After(200 * time.Millisecond):
		}
		for i, name := range g.opt.disks {
			d := g.disk(name)
			if d == nil || absent[i] || d.acked.Load() == stored[i] {
				continue
			}
			n := d.acked.Load()
			// Only a node that the host made: one of our own would have no permission for the next domain.
			_, err := g.store.read(g.ackedNode(i))
			if err == nil {
				err = g.store.write(g.ackedNode(i), strconv.FormatUint(n, 10))
			}
			if err != nil {
				absent[i] = true
				continue
			}
			stored[i] = n
		}
	}
}

// disk returns a mounted disk by name, nil when there is none.
func (g *guest) disk(name string) *disk {
	for _, d := range g.disks {
		if d.name == name {
			return d
		}
	}
	return nil
}

// shutdown unmounts everything, says so and waits for the console to take it.
func (g *guest) shutdown(what string) {
	unix.Sync()
	var errs []error
	for _, d := range g.disks {
		errs = append(errs, d.unmount())
	}
	g.con.beat(time.Now())
	if err := errors.Join(errs...); err != nil {
		g.con.say("FAIL shutdown: %v", err)
	} else {
		g.con.say("shutdown %s", what)
	}
	g.con.close(10 * time.Second)
	// The ring may still hold lines that the host has not taken; it is gone with the domain.
	_ = unix.IoctlSetInt(g.tty, unix.TCSBRK, 1)
	time.Sleep(200 * time.Millisecond)
}
