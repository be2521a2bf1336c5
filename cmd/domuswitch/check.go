package main

import (
	"context"
	"errors"
	"io/fs"
	"os"

	"xenlvm/lib/cli"
	"xenlvm/lib/diskimg"
	"xenlvm/lib/fault"
	"xenlvm/lib/lvm"
	"xenlvm/lib/mapping"
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
	edited *xlcfg.File
	now    present
}

func (k *checker) all(ctx context.Context, lines []mapping.Line) error {
	var err error
	if k.now, err = look(ctx, k.e.Runner, k.d.name); err != nil {
		return err
	}
	for _, l := range lines {
		disk, err := k.d.cfg.Disk(l.VDev)
		if err != nil {
			return refused(err)
		}
		for _, check := range []func(context.Context, xlcfg.Disk, mapping.Line) error{k.source, k.destination, k.copy, k.running} {
			if err := check(ctx, disk, l); err != nil {
				return err
			}
		}
	}
	return nil
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

// source: a line that tells of another source tells of another disk.
func (k *checker) source(_ context.Context, disk xlcfg.Disk, l mapping.Line) error {
	if k.byHand || l.State == mapping.Synced || disk.Target == l.Source || disk.Target == l.Destination {
		return nil
	}
	a, errA := os.Stat(disk.Target)
	b, errB := os.Stat(l.Source)
	if errA == nil && errB == nil && os.SameFile(a, b) {
		return nil
	}
	return fault.Refuse("cannot switch disk %s of %s: it is %s, but what was copied is %s", disk.VDev, k.d.name, disk.Target, l.Source)
}

// destination: a block device, complete, large enough, and nobody else's.
func (k *checker) destination(ctx context.Context, disk xlcfg.Disk, l mapping.Line) error {
	dev, err := k.c.stat(l.Destination)
	if err != nil {
		return refused(err)
	}
	for _, other := range k.d.disks {
		if od, err := k.c.stat(other.Target); other.VDev != disk.VDev && err == nil && od.Number == dev.Number {
			return fault.Refuse("cannot switch disk %s of %s to %s: that is its disk %s", disk.VDev, k.d.name, l.Destination, other.VDev)
		}
	}
	if err := k.c.complete(ctx, k.e, l.Destination); err != nil {
		return err
	}
	size, err := k.c.sizeOf(disk)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		k.e.Printf("cannot compare the size of %s with that of %s, which does not exist", l.Destination, disk.Target)
	case err != nil:
		return refused(err)
	case dev.Size < size:
		// A copy of files fits whatever device has room for them.
		if rec, ok := k.d.copyOf(disk.VDev, k.same(l.Destination)); ok && rec.Method == "files" {
			return nil
		}
		return fault.Refuse("cannot switch disk %s of %s to %s: it has %s, the disk %s", disk.VDev, k.d.name, l.Destination, dev.Size, size)
	}
	return nil
}

// complete refuses an LV that a copy has not finished.
func (c *command) complete(ctx context.Context, e *cli.Env, path string) error {
	dev, err := c.stat(path)
	if err != nil {
		return refused(err)
	}
	lv, ok, err := lvm.ByNumber(ctx, e.Runner, dev.Number.Major, dev.Number.Minor)
	if err != nil {
		if fault.StatusOf(err) == fault.Refused {
			return nil // no LVM here, so it is no LV
		}
		return err
	}
	if ok && lv.Tagged(lvm.TagIncomplete) {
		return fault.Hint(fault.Refuse("cannot use %s: the copy on it is not complete (tag %s)", path, lvm.TagIncomplete),
			"run imgconv again; it goes on where it stopped")
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

// same says whether a path is the device l names.
func (k *checker) same(device string) func(string) bool {
	return func(path string) bool {
		if path == device {
			return true
		}
		a, errA := k.c.stat(path)
		b, errB := k.c.stat(device)
		return errA == nil && errB == nil && a.Number == b.Number
	}
}

// copy: what was written to the image after its copy is not on the destination.
func (k *checker) copy(_ context.Context, disk xlcfg.Disk, l mapping.Line) error {
	rec, ok := k.d.copyOf(disk.VDev, k.same(l.Destination))
	if ok && rec.Partial && l.State != mapping.Synced {
		return fault.Hint(fault.Refuse("cannot switch disk %s of %s to %s: the copy on it is partial, and files are still missing", disk.VDev, k.d.name, l.Destination),
			"stop %s, then copy the rest: imgconv --snapshot --final %s", k.d.name, k.d.name)
	}
	if !ok || l.State == mapping.Synced || disk.Target == l.Destination {
		return nil
	}
	info, err := os.Stat(rec.Source)
	if err != nil || !info.Mode().IsRegular() {
		return nil
	}
	if info.Size() == rec.SourceSize && info.ModTime().UnixNano() == rec.SourceModified {
		return nil
	}
	return fault.Hint(fault.Refuse("cannot switch disk %s of %s to %s: %s has changed since it was copied", disk.VDev, k.d.name, l.Destination, rec.Source),
		"stop %s, then copy the rest: imgconv --snapshot --final %s", k.d.name, k.d.name)
}

// running: a domain keeps the disk that it has. Were only its configuration
// switched, it would write to the old disk until its next start lost all that.
func (k *checker) running(_ context.Context, disk xlcfg.Disk, l mapping.Line) error {
	if !k.now.up {
		return nil
	}
	if live, ok := k.now.liveDisk(disk.VDev); ok {
		if k.c.runs(live, l.Destination) {
			return nil
		}
		// mdmirror puts a device of its own on top of a disk that is in sync.
		dest, err := k.c.stat(l.Destination)
		top := dest
		top.Number.Major, top.Number.Minor = live.Major, live.Minor
		if err == nil && live.HasDevice && l.State == mapping.Synced && top.DependsOn(dest.Number) {
			return nil
		}
	}
	return fault.Hint(fault.Refuse("cannot switch %s: it is %s, and would go on writing to its old disk %s", k.d.name, k.now.State, disk.VDev),
		"stop it first: domuswitch stop %s", k.d.name)
}
