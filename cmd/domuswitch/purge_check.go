package main

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"xenlvm/lib/blkdev"
	"xenlvm/lib/convert"
	"xenlvm/lib/fault"
	"xenlvm/lib/journal"
	"xenlvm/lib/loopdev"
	"xenlvm/lib/lvm"
	"xenlvm/lib/mirror"
	"xenlvm/lib/run"
	"xenlvm/lib/step"
	"xenlvm/lib/xl"
	"xenlvm/lib/xlcfg"
)

// over refuses to purge a move that is not over: the domain runs on all of its new
// disks, and did not only begin to; and what is there was verified.
func (p *purging) over(ctx context.Context) error {
	var err error
	if p.now, err = p.c.look(ctx, p.e, p.d.name); err != nil {
		return err
	}
	if p.now.State != xl.Running {
		return fault.Hint(fault.Refuse("cannot purge %s: it does not run, so nobody knows whether it does on its new disks", p.d.name), "domuswitch start %s", run.Quote(p.d.name))
	}
	for _, h := range p.c.unclear(p.d) {
		return h.refuse("purge", p.d, p.now)
	}
	for _, k := range mirror.Remember(p.d.name, p.d.records) {
		if !k.Ended {
			return fault.Hint(fault.Refuse("cannot purge %s: its disk %s is mirrored", p.d.name, k.VDev), "mdmirror finish %s", run.Quote(p.d.name))
		}
	}
	var seen []string
	for _, m := range slices.Backward(p.all) {
		if slices.ContainsFunc(seen, func(s string) bool { return xlcfg.SameDevice(s, m.VDev) }) {
			continue // where the disk was before
		}
		seen = append(seen, m.VDev)
		if err := p.arrived(ctx, m); err != nil {
			return err
		}
	}
	return nil
}

// arrived refuses a disk that is not on its destination, or only since a moment.
func (p *purging) arrived(ctx context.Context, m moved) error {
	dev, err := p.c.stat(m.Destination)
	if err != nil {
		return refused(err)
	}
	live, ok := p.now.liveDisk(m.VDev)
	on := ok && p.c.runs(live, m.Destination)
	if ok && !on && live.HasDevice { // by way of what a mirror left, until its next start
		top, is, err := p.c.mirror(live.Number())
		if err != nil {
			return err
		}
		on = is && top.LinearOver(dev.Number)
	}
	if !on {
		return fault.Hint(fault.Refuse("cannot purge %s: its disk %s does not run on %s", p.d.name, m.VDev, m.Destination), "domuswitch show %s", run.Quote(p.d.name))
	}
	if !p.ranSince(m, dev) {
		return fault.Refuse("cannot purge %s: nothing tells that it has run on %s: no start is recorded, and nothing was written there", p.d.name, m.Destination)
	}
	lv, err := volume(ctx, p.e.Runner, dev)
	if err != nil {
		return err
	}
	if err := p.d.complete(m.Destination, lv); err != nil {
		return err
	}
	if !p.d.verified(m, lv) {
		return fault.Hint(fault.Refuse("cannot purge %s: no copy of %s onto %s that was verified is recorded in %s", p.d.name, m.Source, m.Destination, p.d.journal.Dir),
			"keep the image: domuswitch purge --keep-image %s; if you know that the copy is good, delete the image yourself", run.Quote(p.d.name))
	}
	return nil
}

// ranSince says whether the domain has run on the destination since it was moved there.
func (p *purging) ranSince(m moved, dev blkdev.Device) bool {
	if m.change.Running || m.boot != p.d.boot || p.d.boot == "" { // and it runs there now
		return true
	}
	ran := 0
	for _, r := range p.d.records[m.index:] {
		switch r.Kind {
		case journal.KindStarting:
			ran++
		case journal.KindStartUndone:
			ran--
		}
	}
	before, counted := m.change.Written[m.Destination]
	n, err := p.c.backDoors.counted(dev)
	return ran > 0 || counted && err == nil && n > before
}

// verified says whether the journal has that the destination was equal to the source.
func (d *domain) verified(m moved, lv lvm.LV) bool {
	fits := func(to journal.Destination) bool {
		return xlcfg.SameDevice(to.VDev, m.VDev) && to.LVUUID != "" && to.LVUUID == lv.UUID
	}
	for _, r := range d.records {
		var c journal.Copied
		var s journal.Synced
		var h handover
		switch {
		case r.Kind == journal.KindCopied && json.Unmarshal(r.Data, &c) == nil && fits(c.Destination) && !c.Partial &&
			slices.Contains([]convert.Verified{"", convert.VerifiedFull, convert.VerifiedWritten}, convert.Verified(c.Verified)),
			r.Kind == journal.KindSynced && json.Unmarshal(r.Data, &s) == nil && fits(s.Destination),
			r.Kind == journal.KindHandover && json.Unmarshal(r.Data, &h) == nil && h.End == followed && h.LV == lv.Spec() && xlcfg.SameDevice(h.Disk.VDev, m.VDev):
			return true
		}
	}
	return false
}

// images is the plan that deletes the images which the domain has left.
func (p *purging) images(ctx context.Context) (step.Plan, error) {
	var plan step.Plan
	for _, m := range p.all {
		info, err := os.Stat(m.Source)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue // deleted before
		case err != nil:
			return nil, fault.Refuse("cannot look at the image %s: %w", m.Source, err)
		case info.Mode().Type() == fs.ModeDevice:
			p.e.Infof("%s is left as it is: it is no image file", m.Source)
			continue
		}
		if slices.ContainsFunc(p.items, func(k kept) bool { return k.Name == m.Source }) {
			continue
		}
		if err := p.isAsLeft(m); err != nil {
			return nil, err
		}
		if err := p.unused(ctx, m.Source); err != nil {
			return nil, err
		}
		p.items = append(p.items, kept{Kind: "image", Name: m.Source, Size: info.Size()})
		remove := removal(m.Source)
		remove.Do = func(ctx context.Context) error {
			real, err := filepath.EvalSymlinks(m.Source)
			if err == nil {
				err = p.isAsLeft(m)
			}
			if err == nil {
				err = p.unused(ctx, m.Source)
			}
			if err == nil {
				err = os.Remove(real)
			}
			return err
		}
		plan = append(plan, remove)
	}
	return plan, nil
}

// isAsLeft refuses an image that is not the file which the domain has left, or has been
// written to since.
func (p *purging) isAsLeft(m moved) error {
	i := slices.IndexFunc(m.change.Images, func(i journal.Image) bool { return i.Path == m.Source })
	if i < 0 {
		return p.keepIt(fault.Refuse("cannot delete %s: the journal does not say which file it was", m.Source))
	}
	was := m.change.Images[i]
	now, err := lookAt(m.Source)
	switch {
	case err != nil:
		return refused(err)
	case now.Inode != was.Inode || now.Size != was.Size:
		return p.keepIt(fault.Refuse("cannot delete %s: it is another file than the one that %s has left", m.Source, p.d.name))
	case now.Modified != was.Modified && now.Modified > p.d.leftAt(m).UnixNano():
		return p.keepIt(fault.Refuse("cannot delete %s: it was written to after %s had left it", m.Source, p.d.name))
	}
	return nil
}

func (p *purging) keepIt(err error) error {
	return fault.Hint(err, "keep the images: domuswitch purge --keep-image %s", run.Quote(p.d.name))
}

// leftAt is when the domain had left its source: a mirror goes on writing to it until it
// is ended, and QEMU closes it only when it has switched.
func (d *domain) leftAt(m moved) time.Time {
	at := m.at
	for _, r := range d.records[m.index:] {
		var one journal.Mirror
		var h handover
		switch {
		case r.Kind == journal.KindMirrorEnded && json.Unmarshal(r.Data, &one) == nil && xlcfg.SameDevice(one.VDev, m.VDev) && sameFile(one.Source, m.Source),
			r.Kind == journal.KindHandover && json.Unmarshal(r.Data, &h) == nil && xlcfg.SameDevice(h.Disk.VDev, m.VDev) && sameFile(h.Disk.File, m.Source):
			at = r.Time
		}
	}
	return at
}

// unused refuses an image that anybody has, or may start from.
func (p *purging) unused(ctx context.Context, path string) error {
	what := "cannot delete " + path
	is := func(target string) bool { return sameFile(target, path) }
	if user := xl.ConfiguredFor(p.c.xenDir, "", is); user != "" {
		return p.keepIt(fault.Refuse("%s: the configuration %s has it as a disk", what, user))
	}
	if slices.ContainsFunc(p.d.disks, func(k xlcfg.Disk) bool { return is(k.Target) }) { // by --config
		return p.keepIt(fault.Refuse("%s: the configuration %s has it as a disk", what, p.d.file.Path))
	}
	uses, err := xl.Uses(ctx, p.e.Runner)
	if err != nil {
		return err
	}
	for _, u := range uses {
		if convert.HasDisk(u.Disk, path) {
			return p.keepIt(fault.Refuse("%s: domain %s has it as its disk %s", what, u.Domain.Name, u.Disk.VDev))
		}
	}
	loops, err := loopdev.List(func(l loopdev.Device) bool { return l.IsOf(path) })
	if err != nil {
		return err
	}
	if len(loops) > 0 {
		return fault.Hint(fault.Refuse("%s: it is attached to %s", what, loops[0].Path), "if nobody needs that: %s", run.Quote("losetup", "--detach", loops[0].Path))
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return fault.Refuse("%s: %w", what, err)
	}
	defer f.Close()
	if blkdev.OpenElsewhere(f) {
		return fault.Hint(fault.Refuse("%s: another program has it open", what), "%s shows it (Debian package lsof)", run.Quote("lsof", path))
	}
	return nil
}
