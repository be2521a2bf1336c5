package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/u-root/u-root/pkg/uroot/unixflag"

	"xenlvm/lib/atomicfile"
	"xenlvm/lib/blkdev"
	"xenlvm/lib/cli"
	"xenlvm/lib/dm"
	"xenlvm/lib/fault"
	"xenlvm/lib/host"
	"xenlvm/lib/journal"
	"xenlvm/lib/loopdev"
	"xenlvm/lib/mirror"
	"xenlvm/lib/run"
	"xenlvm/lib/units"
	"xenlvm/lib/xl"
	"xenlvm/lib/xlcfg"
)

// command is domuswitch: its flags, and what it needs of the host.
type command struct {
	xenDir, stateDir, config         string
	timeout, maxPause                time.Duration // 0: no limit to the pause
	limit                            units.Bytes   // a second, 0 for none
	offline, destroy, yes, overwrite bool
	to                               unixflag.StringArray
	keepBackDoor, keepImage          bool
	backDoorSize                     units.Share

	needRoot func(what string) error
	bootID   func() string
	locks    string        // directory of the domains' locks, "" for the machine's
	poll     time.Duration // between two looks at a domain that starts or stops
	patience time.Duration // with a QEMU: until it listens, and for each answer
	quick    time.Duration // for each answer that status waits for
	devices
	room
	rehearsing
	backDoors backDoorHost
	socket    func(domid int) string // of the QEMU that serves a domain's disks
}

func newCommand() *command {
	return &command{
		xenDir: xl.ConfigDir, timeout: 2 * time.Minute, backDoors: newBackDoorHost(),
		backDoorSize: units.Share{Percent: 20}, // for days, not for the minutes of a copy
		needRoot:     host.NeedRoot, bootID: journal.BootID, poll: 500 * time.Millisecond, patience: time.Minute, quick: 30 * time.Second,
		devices:    devices{stat: blkdev.Stat, idle: dm.Idle, mirror: mirror.Device, leads: loopdev.LeadsTo, held: held, filling: filling, holds: holds, mirrorState: mirror.Disk.Look},
		room:       room{tmpfs: "/dev/shm", free: host.Free, memory: host.MemoryAvailable},
		rehearsing: newRehearsing(),
		socket:     func(domid int) string { return fmt.Sprintf("/var/run/xen/qmp-libxl-%d", domid) },
	}
}

func (c *command) tool() cli.Tool {
	return cli.Tool{
		Name: "domuswitch", Summary: "show, stop and start a Xen domain, and switch its disks from images to block devices",
		Flags: c.flags, Deliberate: []string{"destroy", "offline", "overwrite", "yes"},
		Verbs: []cli.Verb{
			{Name: "show", Args: "DOMAIN", Min: 1, Max: 1, Summary: "print the disks of a domain, as configured and as they run",
				Flags: []string{"config", "offline", "xen-dir"}, Run: c.show},
			{Name: "apply", Args: "DOMAIN VDEV=DEVICE... | -", Min: 1, Max: -1, Summary: "put other devices into the configuration; - reads mapping lines",
				Flags: []string{"back-door-size", "config", "keep-back-door", "offline", "state-dir", "xen-dir"}, Run: c.apply},
			{Name: "stop", Args: "DOMAIN", Min: 1, Max: 1, Summary: "shut a domain down and wait until its disks are free",
				Flags: []string{"config", "destroy", "state-dir", "timeout", "xen-dir"}, Run: c.stop},
			{Name: "start", Args: "DOMAIN", Min: 1, Max: 1, Summary: "start a domain and wait until it has its disks; a failure puts the previous configuration back",
				Flags: []string{"config", "state-dir", "timeout", "xen-dir", "yes"}, Run: c.start},
			{Name: "restart", Args: "DOMAIN VDEV=DEVICE... | -", Min: 1, Max: -1, Summary: "stop a domain and start it on other disks; a failure starts it on its old ones",
				Flags: []string{"back-door-size", "config", "destroy", "keep-back-door", "state-dir", "timeout", "xen-dir", "yes"}, Run: c.restart},
			{Name: "live", Args: "DOMAIN VDEV=DEVICE... | - | DOMAIN [VDEV...]", Min: 1, Max: -1, Summary: "put a domain onto other disks without a reboot of its guest; without devices, the images that QEMU serves onto volumes",
				Flags: []string{"bwlimit", "config", "max-pause", "overwrite", "state-dir", "timeout", "to", "xen-dir"}, Run: c.live},
			{Name: "rehearse", Args: "DOMAIN [VDEV=DEVICE...] | -", Min: 1, Max: -1, Summary: "boot a throw-away copy of a domain, without network, from snapshots of its volumes, and tell whether it comes up",
				Flags: []string{"config", "memory", "snapshot-size", "state-dir", "timeout", "until", "without", "xen-dir"}, Run: c.rehearse},
			{Name: "revert", Args: "DOMAIN", Min: 1, Max: 1, Summary: "put the previous configuration back, and what the domain wrote since where a back door was kept",
				Flags: []string{"config", "offline", "overwrite", "state-dir", "timeout", "xen-dir", "yes"}, Run: c.revert},
			{Name: "abort", Args: "DOMAIN", Min: 1, Max: 1, Summary: "give up what was begun before the cutover, whatever program began it",
				Flags: []string{"config", "state-dir", "timeout", "xen-dir"}, Run: c.abort},
			{Name: "purge", Args: "DOMAIN", Min: 1, Max: 1, Summary: "delete what was kept for the way back: images, backups, back doors",
				Flags: []string{"config", "keep-image", "state-dir", "xen-dir", "yes"}, Run: c.purge},
			{Name: "status", Args: "[DOMAIN]", Min: 0, Max: 1, Summary: "tell what is going on, what is left and what to do next; the exit status says it, too",
				Flags: []string{"config", "state-dir", "xen-dir"}, Run: c.status},
		},
	}
}

// domain is what a verb works on.
type domain struct {
	name    string
	file    *atomicfile.File
	cfg     *xlcfg.File
	disks   []xlcfg.Disk
	journal *journal.Journal
	boot    string           // the present boot of the host
	records []journal.Record // once it is taken
}

// begin opens a domain that verb is to change, and takes it for this run.
func (c *command) begin(e *cli.Env, verb, name string) (d *domain, release func(), err error) {
	if !c.offline {
		if err := c.needXen(verb); err != nil {
			return nil, nil, err
		}
	}
	if d, err = c.open(name); err != nil {
		return nil, nil, err
	}
	if release, err = lock(e, d.journal); err != nil {
		return nil, nil, err
	}
	if d.records, err = d.journal.Read(); err != nil {
		release()
		return nil, nil, err
	}
	return d, release, nil
}

// open reads the configuration of a domain.
func (c *command) open(name string) (*domain, error) {
	if err := xl.CheckName(name); err != nil {
		return nil, err
	}
	path := c.config
	if path == "" {
		var err error
		if path, err = xl.FindConfig(c.xenDir, name); err != nil {
			return nil, refused(err)
		}
	}
	d := &domain{name: name, boot: c.bootID()}
	var err error
	if d.file, err = atomicfile.Read(path, xl.MaxConfig); err != nil {
		return nil, refused(err)
	}
	if d.cfg, err = xlcfg.Parse(path, d.file.Content); err != nil {
		return nil, refused(err)
	}
	if own, _ := d.cfg.String("name"); own != name {
		return nil, fault.Refuse("cannot use %s for domain %s: its name is %q", path, name, own)
	}
	if d.disks, err = d.cfg.Disks(); err != nil {
		return nil, refused(err)
	}
	if d.journal, err = c.journalOf(name, d.file); err != nil {
		return nil, err
	}
	return d, nil
}

// journalOf names the journal of a domain. That of a configuration of another
// host lies beside it, and so does its lock: on this host, a domain of the same
// name may be another one. The file is only needed for that.
func (c *command) journalOf(name string, f *atomicfile.File) (*journal.Journal, error) {
	dir := cmp.Or(c.stateDir, journal.DefaultDir)
	if c.stateDir == "" && c.offline {
		dir = filepath.Join(filepath.Dir(f.Real), ".xenlvm")
	}
	j, err := journal.Open(dir, name, "domuswitch")
	if err != nil {
		return nil, err
	}
	switch {
	case c.offline:
		j.Locks = j.Path("locks")
	case c.locks != "":
		j.Locks = c.locks
	}
	return j, nil
}

// lock takes the domain, except in a dry run, which creates nothing.
func lock(e *cli.Env, j *journal.Journal) (release func(), err error) {
	if e.DryRun {
		return func() {}, nil
	}
	return j.Lock()
}

// refused makes err a refusal, with the hint that a syntax error carries.
func refused(err error) error {
	var syntax *xlcfg.SyntaxError
	if errors.As(err, &syntax) && syntax.Hint != "" {
		err = fault.Hint(err, "%s", syntax.Hint)
	}
	if fault.StatusOf(err) == fault.Failed {
		err = fault.With(fault.Refused, err)
	}
	return err
}

// present is a domain as it is at the moment.
type present struct {
	xl.Domain
	up    bool
	disks []xl.Disk
	// strayed are disks that QEMU has moved to another place than Xen knows.
	strayed []string
}

func look(ctx context.Context, r run.Runner, name string) (present, error) {
	dom, up, err := xl.Find(ctx, r, name)
	if err != nil || !up {
		return present{}, err
	}
	disks, err := xl.Disks(ctx, r, dom.ID)
	return present{Domain: dom, up: true, disks: disks}, err
}

// runs says whether a running disk is the configured one: the same block
// device, or for an image the same path.
func (c *command) runs(live xl.Disk, target string) bool {
	if dev, err := c.stat(target); err == nil && live.HasDevice {
		return dev.Number == live.Number()
	}
	return c.same(live.Path, target)
}

// same says whether two paths are one block device, one file, or the same path.
func (c *command) same(a, b string) bool {
	if sameFile(a, b) {
		return true
	}
	devA, errA := c.stat(a)
	devB, errB := c.stat(b)
	return errA == nil && errB == nil && devA.Number == devB.Number
}

// liveDisk is the running disk that has the vdev, in any spelling.
func (p present) liveDisk(vdev string) (xl.Disk, bool) {
	id, known := xlcfg.DevID(vdev)
	for _, l := range p.disks {
		if l.ID == id && known || l.VDev == vdev {
			return l, true
		}
	}
	return xl.Disk{}, false
}

func sum(content []byte) string {
	s := sha256.Sum256(content)
	return hex.EncodeToString(s[:])
}

// pause waits for the time between two looks, or until the context ends.
func (c *command) pause(ctx context.Context) error {
	t := time.NewTimer(c.poll)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return fmt.Errorf("waiting: %w", context.Cause(ctx))
	case <-t.C:
		return nil
	}
}
