package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"xenlvm/lib/blkdev"
	"xenlvm/lib/cli"
	"xenlvm/lib/convert"
	"xenlvm/lib/diskimg"
	"xenlvm/lib/fault"
	"xenlvm/lib/journal"
	"xenlvm/lib/lvm"
	"xenlvm/lib/mapping"
	"xenlvm/lib/run"
	"xenlvm/lib/units"
	"xenlvm/lib/xl"
	"xenlvm/lib/xlcfg"
)

// checker decides whether a domain may be switched. Every error is a refusal.
type checker struct {
	c      *command
	e      *cli.Env
	d      *domain
	byHand bool
	trial  bool // a dry run of lines: what a later step of the procedure brings is only noted
	now    present
	uses   []xl.Use  // of all domains
	moves  []*move   // as far as they were checked
	made   []xl.Disk // of a domain that an earlier run made, and that never ran
	// volumes are those that this run makes, by path; they are not there yet.
	volumes map[string]*convert.Disk
}

// move is one disk on its way to another device.
type move struct {
	line    mapping.Line
	disk    xlcfg.Disk // as configured
	dev     blkdev.Device
	lv      lvm.LV          // that dev is, if it is one
	absent  bool            // dev is a volume that this run makes
	copied  *journal.Copied // the newest record of the copy of this disk onto this device, nil for none
	live    *xl.Disk        // as it runs, nil if it does not
	has     bool            // the domain runs on dev already
	mirror  bool            // dev is one of mdmirror's
	above   *blkdev.Device  // one of mdmirror's, that the domain runs on and that leads to dev
	discard bool            // what is on dev may go
	ours    bool            // QEMU has begun to copy the disk onto dev
	equal   bool            // dev has the bytes of the present disk: it is built on that, or below it
}

func (k *checker) all(ctx context.Context, lines []mapping.Line) ([]*move, error) {
	var err error
	if k.now, err = k.c.look(ctx, k.e, k.d.name); err != nil {
		return nil, err
	}
	return k.each(ctx, lines, k.find, k.lasting, k.source, k.destination, k.others, k.copy, k.running, k.idle)
}

// each runs checks on lines, one after the other.
func (k *checker) each(ctx context.Context, lines []mapping.Line, checks ...func(context.Context, *move) error) ([]*move, error) {
	var err error
	if k.uses, err = xl.Uses(ctx, k.e.Runner); err != nil {
		return nil, err
	}
	k.moves = nil
	for _, l := range lines {
		m := &move{line: l}
		for _, check := range checks {
			if err := check(ctx, m); err != nil {
				return nil, err
			}
		}
		k.moves = append(k.moves, m)
	}
	return k.moves, nil
}

// later is a refusal of what a later step of the procedure still brings: a dry
// run of lines tells of it, and goes on.
func (k *checker) later(err error) error {
	if k.trial && err != nil {
		k.e.Infof("not yet: %v", err)
		return nil
	}
	return err
}

// find completes m.
func (k *checker) find(ctx context.Context, m *move) error {
	var err error
	if m.disk, err = k.d.cfg.Disk(m.line.VDev); err != nil {
		return refused(err)
	}
	if d := k.volumes[m.line.Destination]; d != nil {
		m.absent, m.lv = true, d.Dest.LV
		m.dev = blkdev.Device{Path: d.Dest.Path, Size: units.Bytes(d.Info.Size), SectorSize: sectorOfQEMU}
	} else if m.dev, err = k.c.stat(m.line.Destination); err != nil {
		return refused(err)
	} else if m.lv, err = volume(ctx, k.e.Runner, m.dev); err != nil {
		return err
	}
	m.copied = k.d.copyOf(m.disk, func(c journal.Copied) bool {
		return c.LVUUID == m.lv.UUID && k.c.same(c.Destination.Destination, m.line.Destination)
	})
	if live, ok := k.now.liveDisk(m.disk.VDev); ok {
		m.live = &live
		m.has = k.c.runs(live, m.line.Destination)
	}
	return k.relate(m)
}

// domainUnchanged is asked right before the file is replaced.
func (k *checker) domainUnchanged(ctx context.Context) error {
	dom, up, err := xl.Find(ctx, k.e.Runner, k.d.name)
	if err != nil {
		return err
	}
	if up != k.now.up || dom.ID != k.now.ID {
		return fault.Refuse("cannot switch %s: it was started or stopped by somebody else in the meantime", k.d.name)
	}
	return nil
}

// unchanged is asked right before a running domain is changed.
func (k *checker) unchanged(ctx context.Context) error {
	dom, up, err := xl.Find(ctx, k.e.Runner, k.d.name)
	if err != nil {
		return err
	}
	if !up || dom.ID != k.now.ID || dom.State != xl.Running {
		return fault.Refuse("cannot switch %s: it was stopped, started, paused or renamed by somebody else in the meantime", k.d.name)
	}
	return k.d.file.Unchanged()
}

// source: a line that tells of another source tells of another disk.
func (k *checker) source(_ context.Context, m *move) error {
	if k.byHand || m.line.State == mapping.Synced || m.disk.Target == m.line.Destination || sameFile(m.disk.Target, m.line.Source) {
		return nil
	}
	return fault.Refuse("cannot switch disk %s of %s: it is %s, but what was copied is %s", m.disk.VDev, k.d.name, m.disk.Target, m.line.Source)
}

// sameFile says whether two paths are one file, or the same path.
func sameFile(a, b string) bool {
	if a == b {
		return true
	}
	infoA, errA := os.Stat(a)
	infoB, errB := os.Stat(b)
	return errA == nil && errB == nil && os.SameFile(infoA, infoB)
}

// destination: not another disk of the domain under whatever name, complete, and
// large enough.
func (k *checker) destination(_ context.Context, m *move) error {
	for _, other := range k.moves {
		if k.c.same(other.line.Destination, m.line.Destination) {
			return oneDevice(other.line, m.line)
		}
	}
	for _, other := range k.d.disks {
		if other.VDev != m.disk.VDev && (k.c.same(other.Target, m.line.Destination) || !m.absent && k.c.leads(m.dev, other.Target)) {
			return fault.Refuse("cannot switch disk %s of %s to %s: that is its disk %s", m.disk.VDev, k.d.name, m.line.Destination, other.VDev)
		}
	}
	if err := k.later(k.d.complete(m.line.Destination, m.lv)); err != nil && !m.discard {
		return err
	}
	size, err := k.c.sizeOf(m.disk)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		k.e.Printf("cannot compare the size of %s with that of %s, which does not exist", m.line.Destination, m.disk.Target)
	case err != nil:
		return refused(err)
	case m.dev.Size < size && (m.copied == nil || m.copied.Method != "files"):
		// A copy of files fits whatever device has room for them.
		return fault.Refuse("cannot switch disk %s of %s to %s: it has %s, the disk %s", m.disk.VDev, k.d.name, m.line.Destination, m.dev.Size, size)
	}
	return nil
}

// volume is the LV that a device is, with an empty name if it is none.
func volume(ctx context.Context, r run.Runner, dev blkdev.Device) (lvm.LV, error) {
	lv, _, err := lvm.ByNumber(ctx, r, dev.Number.Major, dev.Number.Minor)
	if fault.StatusOf(err) == fault.Refused {
		return lvm.LV{}, nil // no LVM here, so it is no LV
	}
	return lv, err
}

// others: no other domain has the destination, now or from its next start on.
func (k *checker) others(_ context.Context, m *move) error {
	what := fmt.Sprintf("cannot switch disk %s of %s to %s", m.disk.VDev, k.d.name, m.line.Destination)
	for _, u := range k.uses {
		if u.Domain.Name != k.d.name && k.c.runs(u.Disk, m.line.Destination) {
			return fault.Refuse("%s: domain %s has it as its disk %s", what, u.Domain.Name, u.Disk.VDev)
		}
	}
	user := xl.ConfiguredFor(k.c.xenDir, k.d.name, func(target string) bool { return k.c.same(target, m.line.Destination) })
	if user != "" {
		return fault.Refuse("%s: the configuration %s has it as a disk", what, user)
	}
	return nil
}

// sizeOf is the size of the disk that the guest sees now.
func (c *command) sizeOf(disk xlcfg.Disk) (units.Bytes, error) {
	if dev, err := c.stat(disk.Target); err == nil && disk.Format == xlcfg.Raw {
		return dev.Size, nil
	}
	info, err := diskimg.Probe(disk.Target)
	if err != nil {
		return 0, err
	}
	if disk.Format == xlcfg.Raw {
		return units.Bytes(info.FileSize), nil
	}
	return units.Bytes(info.Size), info.Unreadable
}

// copy: lines of a program stand for a copy that is recorded, and what was
// written to the image after it is not on the destination.
func (k *checker) copy(_ context.Context, m *move) error {
	if m.line.State == mapping.Synced || m.disk.Target == m.line.Destination {
		return nil
	}
	what := fmt.Sprintf("cannot switch disk %s of %s to %s", m.disk.VDev, k.d.name, m.line.Destination)
	if m.copied == nil {
		if k.byHand {
			return nil
		}
		return fault.Hint(fault.Refuse("%s: no copy of %s onto it is recorded in %s", what, m.disk.Target, k.d.journal.Dir),
			"if you made the copy yourself: %s", run.Quote("domuswitch", "apply", k.d.name, m.disk.VDev+"="+m.line.Destination))
	}
	reason := ""
	info, err := os.Stat(m.copied.Source)
	switch {
	case m.copied.Partial:
		reason = "the copy on it is partial, and files are still missing"
	case err == nil && info.Mode().IsRegular() && (info.Size() != m.copied.SourceSize || info.ModTime().UnixNano() != m.copied.SourceModified):
		reason = m.copied.Source + " has changed since it was copied"
	default:
		return nil
	}
	return k.later(fault.Hint(fault.Refuse("%s: %s", what, reason), "stop %s, then copy the rest: imgconv --snapshot --final %[1]s", run.Quote(k.d.name)))
}

// running: a domain keeps the disk that it has. Were only its configuration
// switched, it would write to the old disk until its next start lost all that.
func (k *checker) running(_ context.Context, m *move) error {
	if !k.now.up || m.has || m.above != nil {
		return nil
	}
	return k.later(fault.Hint(fault.Refuse("cannot switch %s: it is %s, and would go on writing to its old disk %s", k.d.name, k.now.State, m.disk.VDev),
		"stop it first: domuswitch stop %s", run.Quote(k.d.name)))
}

// idle: nobody in this host has the destination. The domain itself may, also by
// way of a mirror: were it refused what it runs on, its next start would be from
// the disk that it has left.
func (k *checker) idle(_ context.Context, m *move) error {
	switch {
	case m.has, m.ours, m.absent, slices.ContainsFunc(k.made, func(d xl.Disk) bool { return k.c.runs(d, m.line.Destination) }):
		return nil
	case m.above != nil:
		return k.c.held(m.dev, *m.above)
	}
	return k.c.idle(m.dev)
}
