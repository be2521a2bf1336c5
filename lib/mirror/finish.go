package mirror

import (
	"context"
	"errors"
	"os"

	"xenlvm/lib/directio"
	"xenlvm/lib/dm"
	"xenlvm/lib/fault"
	"xenlvm/lib/journal"
	"xenlvm/lib/run"
	"xenlvm/lib/step"
	"xenlvm/lib/udev"
)

// Switch is the step that puts the domain's device onto the destination, under
// I/O. While the device is suspended the destination is looked at once more; if
// it has not everything any more, the device goes on as it was.
func (h Host) Switch(d Disk) step.Step {
	return step.Step{
		What: "switch " + d.Path() + " to " + d.Destination,
		Line: d.switchLine(d.Destination),
		Do: func(ctx context.Context) error {
			return h.retable(ctx, d, d.Destination, func() error {
				s, err := d.Look()
				if err == nil && !s.Complete() {
					err = d.Unfit(s)
				}
				if err == nil {
					err = d.holds(s.Destination, d.Destination)
				}
				return err
			})
		},
	}
}

// holds refuses a path that has become another device's than the array's member.
func (d Disk) holds(leg dm.Device, path string) error {
	if !over(leg, path) {
		return fault.Hint(fault.Refuse("cannot switch %s to %s: that is not what its mirror writes to", d, path), "dmsetup table %s; lsblk", run.Quote(leg.Name))
	}
	return nil
}

func (d Disk) switchLine(device string) string {
	return dm.Load(d.Name(), dm.Linear(device, d.Size)).Line() + "\n" + dm.Suspend(d.Name()).Line() + "\n" + dm.Resume(d.Name()).Line()
}

// retable puts the domain's device onto another one, if check agrees while no I/O
// is under way.
func (h Host) retable(ctx context.Context, d Disk, device string, check func() error) error {
	// Once begun it is finished: a suspended device stops the guest.
	ctx = context.WithoutCancel(ctx)
	name := d.Name()
	if _, err := h.Run.Run(ctx, dm.Load(name, dm.Linear(device, d.Size))); err != nil {
		return err
	}
	_, err := h.Run.Run(ctx, dm.Suspend(name))
	if err == nil {
		err = check()
	}
	if err != nil {
		// What Resume puts into force must be the old table.
		_, clearing := h.Run.Run(ctx, dm.Clear(name))
		err = errors.Join(err, clearing)
		if clearing != nil {
			return fault.Hint(fault.With(fault.Left, err), "%s && %s", dm.Clear(name).Line(), dm.Resume(name).Line())
		}
	}
	_, resuming := h.Run.Run(ctx, dm.Resume(name))
	if resuming != nil {
		resuming = fault.Hint(fault.With(fault.Left, resuming), "%s", dm.Resume(name).Line())
	}
	return errors.Join(err, resuming)
}

// Thaw is the plan that lets I/O go on that a run held back which was killed while it
// switched: as before, for it had not switched yet. Whoever reads such a device before,
// as LVM does, hangs.
func (h Host) Thaw(d Disk) (step.Plan, error) {
	s, err := d.Look()
	if err != nil || !s.Top.Held {
		return nil, err
	}
	clearing, resume := dm.Clear(s.Top.Name), dm.Resume(s.Top.Name)
	return step.Plan{{
		What: "let the I/O to " + s.Top.Path() + " go on, which a run held back that did not end",
		Line: clearing.Line() + "\n" + resume.Line(),
		Do: func(ctx context.Context) error {
			if _, err := h.Run.Run(ctx, clearing); err != nil {
				return err
			}
			_, err := h.Run.Run(ctx, resume)
			return err
		},
	}}, nil
}

// TakeDown is the plan that removes what was made for a mirror whose device leads
// past the array, or that has none: it proves that nothing is left in the array's
// path, because an array that is in use does not stop. The domain's device itself
// goes when the domain has closed it.
func (h Host) TakeDown(d Disk) (step.Plan, error) {
	s, err := d.Look()
	if err != nil {
		return nil, err
	}
	var plan step.Plan
	unused := s.Top.Name != "" && s.Top.Open == 0
	if unused { // first: it may lie on the array
		plan = append(plan, step.Command(h.Run, "remove "+s.Top.Path(), dm.Remove(s.Top.Name), run.Cmd{}))
	}
	if s.Array != nil {
		plan = append(plan, step.Command(h.Run, "stop the array "+s.Array.Path, s.Array.Stop(), run.Cmd{}))
	}
	for _, leg := range []dm.Device{s.Destination, s.Source} {
		if leg.Name != "" {
			plan = append(plan, step.Command(h.Run, "remove "+leg.Path(), dm.Remove(leg.Name), run.Cmd{}))
		}
	}
	if s.Top.Name != "" && !unused {
		plan = append(plan, step.Command(h.Run, "remove "+s.Top.Path()+" when nobody uses it any more", dm.RemoveLater(s.Top.Name), run.Cmd{}))
	}
	if s.Loop != nil {
		plan = append(plan, step.Step{
			What: "detach " + s.Loop.Path, Line: run.Quote("losetup", "--detach", s.Loop.Path),
			Do: func(ctx context.Context) error {
				if d.backOnSource(s) { // and the domain may write by way of it
					return s.Loop.DetachLater()
				}
				return s.Loop.Detach(ctx)
			},
		})
	}
	return plan, nil
}

// TakeDownAll is TakeDown for several mirrors.
func (h Host) TakeDownAll(all []Known) (step.Plan, error) {
	var plan step.Plan
	for _, k := range all {
		steps, err := h.TakeDown(k.Disk)
		if err != nil {
			return nil, err
		}
		plan = append(plan, steps...)
	}
	return plan, nil
}

// Forget is the step that drops what the host has cached of the destination: the
// domain wrote past that, by way of its own device.
func (h Host) Forget(d Disk) step.Step {
	return step.Step{What: "forget what the host has cached of " + d.Destination, Line: run.Quote("blockdev", "--flushbufs", d.Destination), Do: func(context.Context) error {
		f, err := os.Open(d.Destination)
		if err != nil {
			return err
		}
		return errors.Join(directio.Forget(f), f.Close())
	}}
}

// End is the plan that follows TakeDown: the mirror is over.
func (h Host) End(d Disk) step.Plan {
	record := journal.Mirror{VDev: d.VDev, Source: d.Source, Size: int64(d.Size)}
	return step.Plan{
		{What: "let udev see the disk " + d.Name(), Line: run.Quote("rm", "-f", udev.File(d.Name())),
			Do: func(ctx context.Context) error { return udev.Show(ctx, h.Run, d.Name()) }},
		{What: "remove the bitmap of " + d.VDev, Line: run.Quote("rm", "-f", h.bitmap(d)), Do: func(context.Context) error {
			if err := os.Remove(h.bitmap(d)); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
			return nil
		}},
		{What: "write down that the mirror of " + d.VDev + " is gone",
			Do: func(context.Context) error { return h.Journal.Append(journal.KindMirrorEnded, record) }},
	}
}

// Return is the step that puts the domain's device back onto the source.
func (h Host) Return(d Disk) (step.Step, error) {
	s, err := d.Look()
	if err != nil {
		return step.Step{}, err
	}
	device := d.sourceDevice(s)
	return step.Step{
		What: "switch " + d.Path() + " back to " + d.Source,
		Line: d.switchLine(device),
		Do: func(ctx context.Context) error {
			return h.retable(ctx, d, device, func() error {
				now, err := d.Look()
				if err == nil && !now.Intact() {
					err = d.Unfit(now)
				}
				if err == nil {
					err = d.holds(now.Source, device)
				}
				return err
			})
		},
	}, nil
}
