package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"xenlvm/lib/fault"
	"xenlvm/lib/journal"
	"xenlvm/lib/lvm"
	"xenlvm/lib/mapping"
	"xenlvm/lib/mirror"
	"xenlvm/lib/run"
	"xenlvm/lib/xlcfg"
)

// trialDisk is a disk of the domain, as its copy has it.
type trialDisk struct {
	xlcfg.Disk
	origin   lvm.LV // a snapshot of this; none: the disk as it is, which is read-only
	snapshot lvm.LV
}

// rehearsals are those in the journal of which it is not known that they are gone.
func (d *domain) rehearsals() []journal.Rehearsal {
	var open []journal.Rehearsal
	for _, rec := range d.records {
		var one journal.Rehearsal
		if rec.Kind != journal.KindRehearsing && rec.Kind != journal.KindRehearsed || json.Unmarshal(rec.Data, &one) != nil {
			continue
		}
		open = slices.DeleteFunc(open, func(o journal.Rehearsal) bool { return o.UUID == one.UUID })
		if rec.Kind == journal.KindRehearsing {
			open = append(open, one)
		}
	}
	return open
}

// choose finds out what the copy gets for each disk: a snapshot of what the lines
// name, else of the newest copy, else of the volume that the domain has.
func (r *rehearsal) choose(ctx context.Context, lines []mapping.Line) error {
	var err error
	if r.mirrors, err = r.c.filledMirrors(r.d); err != nil {
		return err
	}
	lines = slices.Clone(lines)
	for _, k := range r.d.disks {
		named := slices.ContainsFunc(lines, func(l mapping.Line) bool { return xlcfg.SameDevice(l.VDev, k.VDev) })
		if named && r.without(k.VDev) {
			return fault.BadUsage("disk %s of %s is named, and to be left out", k.VDev, r.d.name)
		}
		if l, ok := r.newest(ctx, k); ok && !named && !r.without(k.VDev) {
			lines = append(lines, l)
		}
	}
	if len(lines) == 0 {
		return fault.Hint(fault.Refuse("cannot rehearse %s: no copy of a disk of it is recorded in %s that it was not switched to", r.d.name, r.d.journal.Dir),
			"make one: imgconv --snapshot --to VG %s; or name the volume: domuswitch rehearse %[1]s VDEV=/dev/VG/LV", run.Quote(r.d.name))
	}
	if _, err := r.each(ctx, lines, r.find, r.source, r.mayBoot, r.others); err != nil {
		return err
	}
	for _, k := range r.d.disks {
		if err := r.add(ctx, k); err != nil {
			return err
		}
	}
	return nil
}

func (r *rehearsal) without(vdev string) bool {
	return slices.ContainsFunc(r.c.without, func(w string) bool { return xlcfg.SameDevice(w, vdev) })
}

// newest is the line of the newest copy of a disk: the volume of its mirror, or
// what imgconv copied to and nobody removed.
func (r *rehearsal) newest(ctx context.Context, k xlcfg.Disk) (mapping.Line, bool) {
	l := mapping.Line{Domain: r.d.name, VDev: k.VDev, Source: k.Target, State: mapping.Copied}
	for _, f := range r.mirrors {
		if xlcfg.SameDevice(f.VDev, k.VDev) && sameFile(f.Source, k.Target) {
			l.Destination, l.State = f.Destination, mapping.Synced
			return l, true
		}
	}
	c := r.d.copyOf(k, func(c journal.Copied) bool {
		dev, err := r.c.stat(c.Destination.Destination)
		if err != nil {
			return false
		}
		lv, err := volume(ctx, r.e.Runner, dev)
		return err == nil && lv.UUID == c.LVUUID
	})
	if c == nil {
		return l, false
	}
	l.Destination = c.Destination.Destination
	if c.Partial {
		l.State = mapping.Planned
	}
	return l, true
}

// mayBoot refuses a device of which no snapshot shows the disk as it was at one
// instant.
func (r *rehearsal) mayBoot(_ context.Context, m *move) error {
	what := fmt.Sprintf("cannot rehearse disk %s of %s from %s", m.disk.VDev, r.d.name, m.line.Destination)
	for _, f := range r.mirrors {
		if !r.c.same(f.Destination, m.line.Destination) {
			continue
		}
		// A write is acknowledged when both members have it.
		if f.phase == mirror.Synced || f.phase == mirror.Switched {
			return nil
		}
		return fault.Hint(fault.Refuse("%s: it belongs to a mirror, and that is %s", what, f.phase), "mdmirror wait %s", run.Quote(r.d.name))
	}
	switch {
	case m.mirror:
		return fault.Hint(fault.Refuse("%s: it is a device of mdmirror", what), "name the volume below it: mdmirror status %s", run.Quote(r.d.name))
	case m.lv.Name == "":
		return fault.Refuse("%s: it is no logical volume, of which there could be a snapshot", what)
	case m.line.State == mapping.Planned && m.copied == nil:
		return fault.Hint(fault.Refuse("%s: nothing was copied to it yet", what), "imgconv --snapshot %s", run.Quote(r.d.name))
	case m.lv.Tagged(lvm.TagIncomplete) && m.copied != nil && m.copied.Partial && !r.d.begunAnew(m.copied.Destination):
		r.e.Infof("disk %s: files that %s was changing during the copy are missing", m.disk.VDev, r.d.name)
		return nil
	}
	// A pass that did not end has left a mixture of two instants.
	return r.d.complete(m.line.Destination, m.lv)
}

// begunAnew says whether a pass to the destination was begun after the last one
// that ended.
func (d *domain) begunAnew(to journal.Destination) bool {
	begun := false
	for _, rec := range d.records {
		var at journal.Destination
		if (rec.Kind == journal.KindDestination || rec.Kind == journal.KindCopied) && json.Unmarshal(rec.Data, &at) == nil && at.VDev == to.VDev && at.Destination == to.Destination {
			begun = rec.Kind == journal.KindDestination
		}
	}
	return begun
}

// add decides about one disk. The copy is never let write to what the domain has.
func (r *rehearsal) add(ctx context.Context, k xlcfg.Disk) error {
	for _, m := range r.moves {
		if m.disk.VDev != k.VDev {
			continue
		}
		l := m.line
		l.VDev, l.Source = k.VDev, cmp.Or(l.Source, k.Target)
		r.lines = append(r.lines, l)
		return r.addSnapshot(k, m.lv)
	}
	switch {
	case r.without(k.VDev):
		r.e.Infof("disk %s is left out", k.VDev)
		return nil
	case k.ReadOnly && k.Script == "" && k.BackendDomain == "":
		r.disks = append(r.disks, trialDisk{Disk: k})
		return nil
	}
	if dev, err := r.c.stat(k.Target); err == nil && !k.ReadOnly && k.Format == xlcfg.Raw {
		lv, err := volume(ctx, r.e.Runner, dev)
		if err != nil {
			return err
		}
		if lv.Name != "" {
			return r.addSnapshot(k, lv)
		}
	}
	name := run.Quote(r.d.name)
	err := fault.Refuse("cannot rehearse %s: there is no copy of its disk %s (%s), which must not be written to by two", r.d.name, k.VDev, k.Target)
	err = fault.Hint(err, "or do without it: domuswitch rehearse --without %s %s", run.Quote(k.VDev), name)
	return fault.Hint(err, "copy it, too: imgconv --snapshot %s", name)
}

func (r *rehearsal) addSnapshot(k xlcfg.Disk, origin lvm.LV) error {
	for _, other := range r.disks {
		if other.origin.UUID == origin.UUID && other.origin.Name != "" {
			return fault.Refuse("cannot rehearse %s: its disks %s and %s would both be %s", r.d.name, other.VDev, k.VDev, origin.Spec())
		}
	}
	r.disks = append(r.disks, trialDisk{Disk: k, origin: origin})
	return nil
}
