package mirror

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"xenlvm/lib/fault"
	"xenlvm/lib/journal"
	"xenlvm/lib/lvm"
	"xenlvm/lib/run"
	"xenlvm/lib/step"
	"xenlvm/lib/units"
)

// Wait returns when the array does nothing any more; the error says that the
// members are not both in sync. It tells progress about once a second.
func (d Disk) Wait(ctx context.Context, progress func(State)) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		s, err := d.Look()
		if err != nil {
			return err
		}
		progress(s)
		switch {
		case s.Phase == Recovering:
		case s.Phase != Synced:
			return d.Unfit(s)
		case s.MD.Action == "idle":
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// Unfit says why a mirror is not fit for what is asked of it, and what can be done.
func (d Disk) Unfit(s State) error {
	domain := run.Quote(d.Domain)
	err := fault.Refuse("the mirror of %s is %s", d, s.Phase)
	switch s.Phase {
	case Absent, Partly:
		return fault.Hint(err, "begin again: mdmirror build %s, or image-to-lv without --cutover", domain)
	case Built:
		return fault.Hint(err, "mdmirror add %s", domain)
	case Recovering:
		return fault.Hint(err, "mdmirror wait %s", domain)
	case Switched:
		return fault.Hint(err, "%s is on %s; nothing is left to be done", d, d.Destination)
	case Returned:
		return fault.Hint(err, "mdmirror abort %s", domain)
	case Degraded:
		err = fault.With(fault.Failed, err)
		if s.Intact() {
			return fault.Hint(fmt.Errorf("%w: %s failed; the domain goes on on %s", err, d.Destination, d.Source),
				"look at dmesg and at the disks below %s; then: mdmirror abort %s", d.Destination, domain)
		}
		return fault.Hint(fmt.Errorf("%w: %s failed; the domain goes on on %s, which has everything", err, d.Source, d.Destination),
			"mdmirror finish --no-verify %s", domain)
	}
	return fault.With(fault.Failed, err)
}

// Verify compares both members, with the domain writing, and returns how many
// bytes differ.
func (d Disk) Verify(ctx context.Context, rate units.Bytes, progress func(State)) (units.Bytes, error) {
	s, err := d.Look()
	if err != nil {
		return 0, err
	}
	if s.Phase != Synced {
		return 0, d.Unfit(s)
	}
	if err := s.Array.Limit(rate); err != nil {
		return 0, err
	}
	if err := s.Array.Check(); err != nil {
		return 0, fault.Hint(err, "cat /proc/mdstat; then again: mdmirror verify %s", run.Quote(d.Domain))
	}
	if err := d.Wait(ctx, progress); err != nil {
		if ctx.Err() != nil {
			err = errors.Join(err, s.Array.Idle())
		}
		return 0, err
	}
	differ, err := s.Array.Checked()
	return differ, fault.Hint(err, "mdmirror verify %s", run.Quote(d.Domain))
}

// Confirm is the step that writes down that the destination is equal to the source,
// with the ID of the domain that ran on the mirror meanwhile.
func (h Host) Confirm(k Known, user int) step.Step {
	return step.Step{What: "write down that " + k.Destination + " is equal to " + k.Source, Do: func(context.Context) error {
		return h.Journal.Append(journal.KindSynced, journal.Synced{Destination: k.member(k.LVUUID), DomID: user})
	}}
}

// Unmark is the step that says of the destination that a configuration may name
// it. That holds only as long as the mirror does: Mark takes it back.
func (h Host) Unmark(k Known) step.Step {
	spec := k.spec()
	return h.ofVolume(k, step.Command(h.Run, "take the tag "+lvm.TagIncomplete+" off "+spec, lvm.Untag(spec, lvm.TagIncomplete), lvm.Tag(spec, lvm.TagIncomplete)))
}

// Unmarked says whether a configuration may name the destination: a finish that
// was killed left it so. What LVM does not see, because it failed or is gone,
// nobody can start a domain on either.
func (k Known) Unmarked(ctx context.Context, r run.Runner) (bool, error) {
	lv, found, err := k.volume(ctx, r)
	return found && !lv.Tagged(lvm.TagIncomplete), err
}

// volume is the destination. The boolean is false when LVM does not see it; one
// that has only its name is another's.
func (k Known) volume(ctx context.Context, r run.Runner) (lvm.LV, bool, error) {
	vg, name, err := lvm.SplitSpec(k.Destination)
	if err != nil {
		return lvm.LV{}, false, nil // none is chosen, or it is no volume
	}
	lv, found, err := lvm.Find(ctx, r, vg, name)
	return lv, found && (k.LVUUID == "" || lv.UUID == k.LVUUID), err
}

// ofVolume refuses a step where what has the destination's name is not it.
func (h Host) ofVolume(k Known, s step.Step) step.Step {
	do := s.Do
	s.Do = func(ctx context.Context) error {
		_, found, err := k.volume(ctx, h.Run)
		if err == nil && !found {
			err = fault.Hint(fault.Refuse("cannot find the volume of %s: %s is not the one that was mirrored, which has the UUID %s", k.Disk, k.Destination, k.LVUUID),
				"lvs -o vg_name,lv_name,lv_uuid")
		}
		if err != nil {
			return err
		}
		return do(ctx)
	}
	return s
}

// Mark is the step that says of the destination that no configuration may name it.
func (h Host) Mark(k Known) step.Step {
	spec := k.spec()
	return h.ofVolume(k, step.Command(h.Run, "tag "+spec+" "+lvm.TagIncomplete, lvm.Tag(spec, lvm.TagIncomplete), run.Cmd{}))
}

// spec is VG/LV of the destination.
func (d Disk) spec() string { return strings.TrimPrefix(d.Destination, "/dev/") }
