package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"xenlvm/lib/fault"
	"xenlvm/lib/journal"
	"xenlvm/lib/lvm"
	"xenlvm/lib/qmp"
	"xenlvm/lib/run"
	"xenlvm/lib/step"
	"xenlvm/lib/units"
	"xenlvm/lib/xl"
	"xenlvm/lib/xlcfg"
)

// copying is written down before QEMU begins to copy a disk.
type copying struct {
	Domain xl.Domain `json:"domain"`
	Disk   qmp.Disk  `json:"disk"`
	Device string    `json:"device"`
}

// mayCopy: QEMU copies the disk, so the device may hold anything that nobody needs.
func (m *moving) mayCopy(mv *move) error {
	what := fmt.Sprintf("cannot copy disk %s of %s to %s", mv.disk.VDev, m.d.name, mv.line.Destination)
	mv.ours = m.copyOf(mv) != nil
	for _, h := range m.c.unclear(m.d) {
		ours := h.underWay(m.d, m.now) && m.c.same(h.Device, mv.line.Destination)
		if xlcfg.SameDevice(h.Disk.VDev, mv.disk.VDev) && !ours {
			return h.refuse("move disk "+mv.disk.VDev+" of", m.d, m.now)
		}
	}
	switch {
	case mv.has:
		mv.discard = mv.ours // the tag, which was not taken off yet
		return nil
	case mv.mirror:
		return fault.Refuse("%s: it is a device of mdmirror, and QEMU serves the disk", what)
	case mv.dev.SectorSize != sectorOfQEMU:
		return fault.Refuse("%s: its sectors have %d bytes, those that the guest knows %d", what, mv.dev.SectorSize, sectorOfQEMU)
	case mv.absent:
		return nil
	case mv.ours || m.c.overwrite:
		mv.discard = true
		return nil
	}
	held, err := m.c.holds(mv.line.Destination)
	if err != nil {
		return refused(err)
	}
	if mv.lv.Tagged(lvm.TagIncomplete) {
		held = "a copy that is not complete (tag " + lvm.TagIncomplete + ")"
	}
	if held != "" {
		return fault.Hint(fault.Refuse("%s: it holds %s", what, held), "destroy that: domuswitch live --overwrite %s", run.Quote(m.d.name, mv.line.VDev+"="+mv.line.Destination))
	}
	return nil
}

// copyOf is the record of a copy onto the destination that QEMU began for this
// domain, and that may go on; nil for none.
func (m *moving) copyOf(mv *move) *copying {
	var c copying
	r, ok := journal.Last(m.d.records, journal.KindCopying, func(data json.RawMessage) bool {
		c = copying{}
		return json.Unmarshal(data, &c) == nil && c.Domain.ID == m.now.ID && c.Disk.VDev == mv.live.VDev
	})
	if !ok || r.Boot != m.d.boot || c.Device != mv.line.Destination {
		return nil
	}
	return &c
}

// copyInQEMU moves disks that QEMU serves. The guest never pauses.
func (m *moving) copyInQEMU(ctx context.Context) error {
	m.method = byQEMU
	for _, mv := range m.moves {
		if mv.live.Kind != qdisk {
			return fault.Hint(fault.Refuse("cannot move %s live: QEMU serves some of the disks, and not %s", m.d.name, mv.disk.VDev), "name those of QEMU in a run of their own")
		}
	}
	var going, there []*inQEMU // there: by a run that was killed behind the switch
	plan, switches := m.making, step.Plan(nil)
	for _, mv := range m.moves {
		q := &inQEMU{moving: m, mv: mv}
		if mv.has && !q.switchedOnly() {
			continue
		}
		if err := q.find(ctx); err != nil {
			return refused(err)
		}
		if mv.has {
			there = append(there, q)
			continue
		}
		going = append(going, q)
		plan = append(plan, q.copySteps()...)
		switches = append(switches, q.switchStep())
	}
	if len(going)+len(there) == 0 && !m.changesFile() {
		m.e.Infof("nothing to do: %s runs on these disks", m.d.name)
		return m.done()
	}
	if len(going) > 0 {
		// The configuration follows the switch: it must be possible to change it.
		plan = append(plan, m.lastLook())
	}
	m.e.Infof("%s will not pause: QEMU copies its disks and switches", m.d.name)
	if err := m.takeUpSwitched(ctx, there, len(going) > 0); err != nil {
		return err
	}
	if err := m.e.Apply(ctx, append(plan, switches...)); err != nil {
		return m.stopped(ctx, going, err)
	}
	if !m.e.DryRun {
		m.out.Pause, m.out.Expected = new(0.0), new(0.0)
	}
	m.out.Method = m.method
	err := errors.Join(m.untag(ctx, going), m.follow(ctx, slices.Concat(there, going)))
	if err = errors.Join(err, m.left); err != nil {
		return err
	}
	m.out.Changed = true
	return m.done()
}

// inQEMU is a disk that QEMU copies.
type inQEMU struct {
	*moving
	mv    *move
	disk  qmp.Disk
	going bool // by a run that did not end
	told  bool // QEMU was told to switch
	lost  bool // and does not say which disk the guest is on
}

// switchedOnly: a run that was killed put the guest onto the copy, and did not
// get to the end of it.
func (q *inQEMU) switchedOnly() bool { return q.mv.ours && q.mv.lv.Tagged(lvm.TagIncomplete) }

// find asks QEMU for the disk.
func (q *inQEMU) find(ctx context.Context) error {
	if q.mv.has {
		q.disk = q.copyOf(q.mv).Disk
		return nil
	}
	err := q.ask(ctx, func(ctx context.Context, c *qmp.Client) error {
		var err error
		if q.disk, err = c.Disk(ctx, q.mv.live.VDev); err != nil {
			return err
		}
		if r := q.copyOf(q.mv); r != nil {
			q.disk = r.Disk
			_, err := c.Mirror(q.disk, q.mv.line.Destination).Progress(ctx)
			q.going = err == nil
		}
		return nil
	})
	if err != nil {
		return err
	}
	if size := units.Bytes(q.disk.Size); q.mv.dev.Size < size {
		return fault.Refuse("cannot copy disk %s of %s to %s: it has %s, the disk %s", q.mv.disk.VDev, q.d.name, q.mv.line.Destination, q.mv.dev.Size, size)
	}
	if q.disk.ReadOnly {
		return fault.Refuse("cannot copy disk %s of %s to %s: it is read-only", q.mv.disk.VDev, q.d.name, q.mv.line.Destination)
	}
	return nil
}

func (q *inQEMU) copying() copying {
	return copying{Domain: q.now.Domain, Disk: q.disk, Device: q.mv.line.Destination}
}

// mirror does something with the mirror in QEMU.
func (q *inQEMU) mirror(ctx context.Context, f func(context.Context, *qmp.Mirror) error) error {
	return q.ask(ctx, func(ctx context.Context, c *qmp.Client) error {
		return f(ctx, c.Mirror(q.disk, q.mv.line.Destination))
	})
}

// insist is mirror for what must be done even when we are interrupted. It ends, as
// QEMU may hang.
func (q *inQEMU) insist(ctx context.Context, f func(context.Context, *qmp.Mirror) error) error {
	limit := max(q.c.timeout, q.c.patience)
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), limit, fmt.Errorf("QEMU did not get to the end of it within %v", limit))
	defer cancel()
	return q.mirror(ctx, f)
}

// copySteps copy the disk, until what the guest writes goes to both places.
func (q *inQEMU) copySteps() step.Plan {
	var plan step.Plan
	device := q.mv.line.Destination
	if lv := q.mv.lv; q.making == nil && lv.Name != "" && !lv.Tagged(lvm.TagIncomplete) {
		plan = append(plan, step.Command(q.e.Runner, "mark "+device+" as incomplete", lvm.Tag(lv.Spec(), lvm.TagIncomplete), run.Cmd{}))
	}
	return append(plan, step.Step{
		What: "copy " + q.disk.File + " to " + device + " in QEMU", Line: "# QEMU copies " + q.disk.File + " to " + device + " (blockdev-mirror)",
		Do: q.copy, Undo: q.cancel, UndoLine: "domuswitch live " + run.Quote(q.d.name, q.mv.line.VDev+"="+device),
	})
}

func (q *inQEMU) copy(ctx context.Context) error {
	err := q.start(ctx)
	if err == nil {
		err = q.wait(ctx)
	}
	if err != nil {
		err = errors.Join(err, q.cancel(ctx))
	}
	return err
}

func (q *inQEMU) start(ctx context.Context) error {
	if q.going {
		q.e.Infof("going on with the copy that a run that did not end has begun")
		return nil
	}
	if q.mv.ours { // what is left of it
		if err := q.cancel(ctx); err != nil {
			return err
		}
		if q.mv.has {
			return qmp.ErrSwitched
		}
	}
	dev, err := q.c.stat(q.mv.line.Destination) // which may have been made just now
	if err != nil {
		return err
	}
	if err := errors.Join(q.unchanged(ctx), q.c.idle(dev)); err != nil {
		return err
	}
	if err := q.d.journal.Append(journal.KindCopying, q.copying()); err != nil {
		return err
	}
	return q.mirror(ctx, func(ctx context.Context, mi *qmp.Mirror) error { return mi.Start(ctx, int64(q.c.limit)) })
}

// wait waits until all is copied. QEMU is asked once a second and left alone
// meanwhile.
func (q *inQEMU) wait(ctx context.Context) error {
	phase := q.e.Progress("copy " + q.mv.disk.VDev)
	defer phase.Done()
	for {
		var p qmp.Progress
		err := q.mirror(ctx, func(ctx context.Context, mi *qmp.Mirror) (err error) {
			p, err = mi.Progress(ctx)
			return err
		})
		if err != nil || p.Ready {
			return err
		}
		phase.Update(p.Done, p.Total)
		if err := q.c.pause(ctx); err != nil {
			return err
		}
	}
}

// cancel leaves the guest on its image, unless it has left that.
func (q *inQEMU) cancel(ctx context.Context) error {
	if q.mv.has {
		return nil
	}
	err := q.insist(ctx, func(ctx context.Context, mi *qmp.Mirror) error { return mi.Cancel(ctx) })
	q.mv.has = errors.Is(err, qmp.ErrSwitched)
	q.lost = err != nil && !q.mv.has && q.told
	if q.mv.has || q.lost {
		q.keepVolume()
	}
	switch {
	case q.mv.has:
		return nil
	case q.lost:
		return fault.Hint(fault.With(fault.Left, err), "once QEMU answers again, run the same command, which looks what it did; do not stop or start %s before", q.d.name)
	case err != nil:
		return fault.Hint(fault.With(fault.Left, err), "QEMU may still have %s open, and copy: the same command takes that up", q.mv.line.Destination)
	case q.told:
		q.ended(stayed)
	}
	return nil
}

// keepVolume: what the guest is on, or may be, is never removed.
func (q *inQEMU) keepVolume() {
	if d := q.volumes[q.mv.line.Destination]; d != nil {
		d.InUse = true
	}
}
