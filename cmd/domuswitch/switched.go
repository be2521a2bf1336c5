package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"xenlvm/lib/fault"
	"xenlvm/lib/lvm"
	"xenlvm/lib/qmp"
	"xenlvm/lib/step"
)

// The configuration follows QEMU, and does not go ahead of it as with mdmirror:
// until QEMU has switched, only the image has all that the guest wrote, because
// the copy is made behind the guest's back. But it follows every disk that has
// switched, whatever became of the others.

// switchStep puts the guest onto the copy.
func (q *inQEMU) switchStep() step.Step {
	device := q.mv.line.Destination
	return step.Step{What: "switch disk " + q.mv.disk.VDev + " of " + q.d.name + " to " + device, Line: "# QEMU switches to " + device + " (job-complete)", Do: q.switchOver}
}

func (q *inQEMU) switchOver(ctx context.Context) error {
	if err := q.d.handover(q.handover(), ""); err != nil {
		return err
	}
	q.told = true
	err := q.insist(ctx, switchTo)
	if err == nil {
		q.mv.has = true
		q.keepVolume()
		return nil
	}
	if stays := q.cancel(ctx); !q.mv.has {
		return errors.Join(err, stays)
	}
	// Behind the switch, only cleaning up can fail.
	err = fault.With(fault.Left, fmt.Errorf("disk %s runs on %s, but QEMU has not let go of %s: %w", q.mv.disk.VDev, q.mv.line.Destination, q.disk.File, err))
	q.left = errors.Join(q.left, fault.Hint(err, "leave %s where it is until the next start of %s", q.disk.File, q.d.name))
	return nil
}

func (q *inQEMU) handover() handover {
	h := handover{copying: q.copying()}
	if q.mv.lv.Name != "" {
		h.LV = q.mv.lv.Spec()
	}
	return h
}

// ended says how the handover did. Without the record the next start asks.
func (q *inQEMU) ended(end string) {
	if err := q.d.handover(q.handover(), end); err != nil {
		q.e.Printf("%v", err)
	}
}

// switchTo completes a mirror. A guest that never stops writing is held up for
// that, where this QEMU can do so.
func switchTo(ctx context.Context, mi *qmp.Mirror) error {
	// Where that is refused, or the job has ended, Complete says what matters.
	_ = mi.Converge(ctx)
	return mi.Complete(ctx)
}

// untag says that the copies are complete which the guest runs on. They are, even
// if that fails.
func (m *moving) untag(ctx context.Context, disks []*inQEMU) error {
	var plan step.Plan
	for _, q := range disks {
		lv := q.mv.lv
		if lv.Name == "" || !q.mv.has && !m.e.DryRun {
			continue
		}
		untag := lvm.Untag(lv.Spec(), lvm.TagIncomplete)
		plan = append(plan, step.Step{What: "take the tag " + lvm.TagIncomplete + " off " + lv.Spec(), Line: untag.Line(), Do: func(ctx context.Context) error {
			if _, err := m.e.Runner.Run(ctx, untag); err != nil {
				err = fault.With(fault.Left, fmt.Errorf("disk %s runs on %s, whose copy is complete, but: %w", q.mv.disk.VDev, q.mv.line.Destination, err))
				m.left = errors.Join(m.left, fault.Hint(err, "%s", untag.Line()))
			}
			return nil
		}})
	}
	return m.e.Apply(context.WithoutCancel(ctx), plan)
}

// takeUpSwitched ends what a run began that was killed behind a switch, before
// the copy of other disks, which may take hours.
func (m *moving) takeUpSwitched(ctx context.Context, disks []*inQEMU, others bool) error {
	var plan step.Plan
	for _, q := range disks {
		plan = append(plan, q.switchStep())
	}
	if err := errors.Join(m.e.Apply(ctx, plan), m.untag(ctx, disks)); err != nil || !others || m.e.DryRun {
		return err
	}
	return m.settleSwitched(ctx, disks)
}

// follow makes the disks last that the guest is on.
func (m *moving) follow(ctx context.Context, disks []*inQEMU) error {
	if err := m.settle(ctx, true); err != nil || m.e.DryRun {
		return err
	}
	for _, q := range disks {
		if q.mv.has {
			q.ended(followed)
		}
	}
	return nil
}

// settleSwitched makes those disks last that the guest is on, and no others.
func (m *moving) settleSwitched(ctx context.Context, disks []*inQEMU) error {
	all := m.moves
	m.moves = slices.DeleteFunc(slices.Clone(all), func(mv *move) bool { return !mv.has })
	err := m.configure()
	if err == nil && len(m.moves) > 0 {
		err = m.follow(ctx, disks)
	}
	m.moves = all
	return errors.Join(err, m.configure())
}

// stopped is for a run that could not move all of the disks: it tells where they
// are.
func (m *moving) stopped(ctx context.Context, disks []*inQEMU, failed error) error {
	switched, where := false, ""
	for _, q := range disks {
		vdev, image, device := q.mv.disk.VDev, q.mv.live.Path, q.mv.line.Destination
		switch {
		case q.mv.has:
			switched = true
			where += fmt.Sprintf("\ndisk %s runs on %s", vdev, device)
		case q.lost:
			where += fmt.Sprintf("\ndisk %s runs on %s, or on %s: QEMU does not say", vdev, image, device)
		default:
			where += fmt.Sprintf("\ndisk %s runs on %s, as before", vdev, image)
		}
	}
	failed = fmt.Errorf("%w%s", failed, where)
	if !switched {
		return errors.Join(failed, m.left)
	}
	failed = fault.Hint(fault.With(fault.Left, failed), "run the same command again: it moves the others")
	failed = errors.Join(failed, m.untag(ctx, disks), m.settleSwitched(ctx, disks))
	return errors.Join(failed, m.left)
}
