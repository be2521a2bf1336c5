package convert

import (
	"context"
	"errors"
	"fmt"

	"xenlvm/lib/fault"
	"xenlvm/lib/journal"
	"xenlvm/lib/lvm"
	"xenlvm/lib/run"
	"xenlvm/lib/step"
	"xenlvm/lib/units"
	"xenlvm/lib/xl"
)

// Plan checks the space, and is what the conversion does: the copy, at whose end every mount, loop
// device and snapshot is gone; then the commit, which says that the copies are good.
func (c *Conversion) Plan(ctx context.Context) (copying, commit step.Plan, err error) {
	for _, d := range c.Disks {
		copying = append(copying, c.planDestination(d)...)
	}
	sources, err := c.planSources(ctx, &copying)
	if err != nil {
		return nil, nil, err
	}
	if err := c.checkSpace(ctx, sources); err != nil {
		return nil, nil, err
	}
	// First of all, so that every failure behind it removes them.
	for _, s := range sources {
		commit = append(commit, planKeep(s)...)
	}
	for _, s := range sources {
		for _, d := range s.disks {
			steps, err := c.planCopy(ctx, s, d)
			if err != nil {
				return nil, nil, err
			}
			copying = append(copying, steps...)
		}
		for _, d := range s.disks {
			commit = append(commit, c.planCommit(s, d)...)
		}
	}
	return copying, commit, nil
}

// planDestination creates or marks the volume, and writes down that it is ours.
func (c *Conversion) planDestination(d *Disk) step.Plan {
	lv := &d.Dest.LV
	plan := step.Plan{{
		What: "write down where " + d.VDev + " goes",
		Do: func(context.Context) error {
			// Before this record says that a copy by blocks was begun.
			if !d.begun() {
				if err := c.forgetCheckpoint(d); err != nil {
					return err
				}
			}
			return c.journal.Append(journal.KindDestination, c.chosen(d))
		},
	}}
	if !d.Dest.Exists {
		create := c.creation(lv, units.Bytes(d.Info.Size))
		undo := create.Undo
		create.Undo = func(ctx context.Context) error {
			if d.InUse {
				return nil
			}
			return errors.Join(undo(ctx), c.forgetCheckpoint(d))
		}
		return append(plan, create)
	}
	if !lv.Tagged(lvm.TagDomain(c.o.Domain)) {
		plan = append(plan, c.claim(lv))
	}
	if !lv.Tagged(lvm.TagIncomplete) {
		plan = append(plan, step.Command(c.r, "tag "+lv.Spec()+" "+lvm.TagIncomplete, lvm.Tag(lv.Spec(), lvm.TagIncomplete), run.Cmd{}))
	}
	return plan
}

// creation is the step that creates the volume lv, and learns what it became.
func (c *Conversion) creation(lv *lvm.LV, size units.Bytes) step.Step {
	create := lvm.Create(lv.VG, lv.Name, size, lvm.TagIncomplete, lvm.TagDomain(c.o.Domain))
	s := step.Command(c.r, "create volume "+lv.Spec()+" of "+size.String(), create, lvm.Remove(lv.Spec()))
	s.Do = func(ctx context.Context) error {
		if _, err := c.r.Run(ctx, create); err != nil {
			return err
		}
		// From here on there is something to undo, also when we are interrupted.
		ctx = context.WithoutCancel(ctx)
		made, found, err := lvm.Find(ctx, c.r, lv.VG, lv.Name)
		if err != nil || !found {
			return errors.Join(fmt.Errorf("cannot find volume %s after creating it: %v", lv.Spec(), err), c.removeIncomplete(ctx, *lv))
		}
		*lv = made
		return nil
	}
	s.Undo = func(ctx context.Context) error { return c.removeIncomplete(ctx, *lv) }
	return s
}

// removeIncomplete takes back the creation of a volume, unless its copy was
// finished: a finished copy is never thrown away because something later failed.
func (c *Conversion) removeIncomplete(ctx context.Context, lv lvm.LV) error {
	now, found, err := lvm.Find(ctx, c.r, lv.VG, lv.Name)
	if err != nil || !found || lv.UUID != "" && now.UUID != lv.UUID || !now.Tagged(lvm.TagIncomplete) || !now.Tagged(lvm.TagDomain(c.o.Domain)) {
		return err
	}
	_, err = c.r.Run(ctx, lvm.Remove(lv.Spec()))
	return err
}

func (c *Conversion) planCopy(ctx context.Context, s *source, d *Disk) (step.Plan, error) {
	d.Result.From = s.kind()
	look := step.Step{What: "look at " + d.Image + " in the " + s.kind(), Do: func(context.Context) error { return s.look(d) }}
	if d.Method == Files {
		steps, err := c.planFiles(ctx, s, d)
		return append(step.Plan{look}, steps...), err
	}
	var pass blocksPass
	return step.Plan{look, {
		What: "copy " + d.Image + " to " + d.Dest.Path + " by blocks",
		Line: c.copyLine(s, d),
		Do: func(ctx context.Context) error {
			return c.watched(ctx, s, func(ctx context.Context) (err error) {
				pass, err = c.copyBlocks(ctx, s, d)
				return err
			})
		},
	}, {
		What: "verify " + d.Dest.Path,
		Do: func(ctx context.Context) error {
			verify := func(ctx context.Context) error { return c.verify(ctx, s, d, pass) }
			if s.takes(c.o).group == "" { // it is not read any more, and still fills its pool, or file system
				return c.watched(ctx, s, verify)
			}
			return verify(ctx)
		},
	}}, nil
}

// copyLine is the copy by blocks of d as a line for a shell.
func (c *Conversion) copyLine(s *source, d *Disk) string {
	words := []string{"imgconv", "--overwrite"}
	if c.o.Whole {
		words = append(words, "--whole")
	}
	return run.Quote(append(words, s.image(d), d.Dest.Path)...)
}

// planCommit says that the copy of d is good: in the journal first, because a
// volume without the tag may be configured.
func (c *Conversion) planCommit(s *source, d *Disk) step.Plan {
	return step.Plan{{
		What: "write down that " + d.VDev + " is copied",
		Do: func(ctx context.Context) error {
			if err := c.stillStopped(ctx, d); err != nil {
				return err
			}
			return c.record(s, d)
		},
	}, {
		What: "take the tag " + lvm.TagIncomplete + " off " + d.Dest.LV.Spec(),
		Line: lvm.Untag(d.Dest.LV.Spec(), lvm.TagIncomplete).Line(),
		Do: func(ctx context.Context) error {
			if d.Result.Partial {
				return nil // not yet what a domain could start from
			}
			_, err := c.r.Run(ctx, lvm.Untag(d.Dest.LV.Spec(), lvm.TagIncomplete))
			return err
		},
	}}
}

// stillStopped refuses to call a final pass good when the domain ran again, or
// when anybody wrote to the image, after the snapshot was taken.
func (c *Conversion) stillStopped(ctx context.Context, d *Disk) error {
	if !c.o.Final {
		return nil
	}
	_, running, err := xl.Find(ctx, c.r, c.o.Domain)
	if err != nil {
		return err
	}
	changed, err := d.changedSince()
	if err != nil {
		return err
	}
	if running || changed {
		err := fmt.Errorf("cannot finish: the image %s was written to, or its domain started, during the final pass", d.Image)
		return fault.Hint(err, "the domain goes on on its image; run the conversion again when nobody else starts it")
	}
	return nil
}
