package main

import (
	"context"
	"fmt"

	"xenlvm/lib/cli"
	"xenlvm/lib/fault"
	"xenlvm/lib/journal"
	"xenlvm/lib/run"
	"xenlvm/lib/step"
	"xenlvm/lib/xl"
)

// restart stops a domain, puts it onto other disks and starts it: one
// interruption. All is checked before it, and a failure starts the domain on its
// old disks.
func (c *command) restart(ctx context.Context, e *cli.Env, args []string) error {
	s, release, err := c.begins(ctx, e, "restart", args)
	if err != nil {
		return err
	}
	defer release()
	if s.now.up && s.now.State != xl.Running {
		return s.notRunning("restart")
	}
	if err := s.d.notSuspended(s.now); err != nil {
		return err
	}
	if err := c.notStale("restart", s.d, s.now, false, e.DryRun); err != nil {
		return err
	}
	if err := s.prepare(ctx, s.mayRestart); err != nil {
		return err
	}
	if c.keepBackDoor && s.changesFile() {
		if err := s.file.keepBackDoors(ctx, s.checker, s.moves); err != nil {
			return err
		}
	}
	if !s.now.up {
		if err := c.notBeside(s.d, s.next); err != nil {
			return err
		}
	}
	s.out.Method = "restart"
	if s.now.up && s.there() {
		return s.already(ctx)
	}
	r := &restarting{switching: s}
	if err := e.Apply(ctx, r.plan()); err != nil {
		return r.explain(err)
	}
	if r.up.left != nil {
		return r.up.left
	}
	s.out.Changed, s.out.Started = true, &r.up.took
	return s.done()
}

// already is the end for a domain that runs on its new disks: at most the file
// lacks them.
func (s *switching) already(ctx context.Context) error {
	if !s.changesFile() {
		s.e.Infof("nothing to do: %s runs on these disks", s.d.name)
		return s.done()
	}
	if err := s.settle(ctx, true); err != nil {
		return err
	}
	s.out.Changed = true
	return s.done()
}

// mayRestart: the guest writes until it stops, and all of that must be on the
// device that it is started on.
func (s *switching) mayRestart(ctx context.Context, m *move) error {
	switch {
	case m.has, m.equal:
		return nil
	case m.mirror:
		return s.fromMirror(m)
	case !s.now.up:
		if err := s.source(ctx, m); err != nil {
			return err
		}
		return s.copy(ctx, m)
	case s.c.yes:
		return nil
	}
	err := fault.Refuse("cannot put disk %s of %s onto %s: what the guest writes until it stops would not be there", m.disk.VDev, s.d.name, m.line.Destination)
	err = fault.Hint(err, "copy that, too: image-to-lv %s", run.Quote(s.d.name))
	return fault.Hint(err, "give that up: domuswitch restart --yes %s", run.Quote(s.d.name, m.line.VDev+"="+m.line.Destination))
}

// restarting is a restart at work.
type restarting struct {
	*switching
	up    *starting
	asked bool      // it was asked to shut down, and runs
	back  bool      // the domain runs on its old disks again
	old   *starting // for that
}

func (r *restarting) plan() step.Plan {
	path, oldPath := r.d.temp("next.cfg"), r.d.temp("before.cfg")
	r.up = r.c.starting(r.e, r.d, r.next, xl.CreatePaused(path))
	if r.changesFile() && r.file.kind == journal.KindApplied {
		r.up.back = r.file
	}
	plan := step.Plan{r.d.tempStep("next.cfg", r.cfg)}
	if r.now.up {
		r.old = r.c.starting(r.e, r.d, r.before, xl.CreatePaused(oldPath))
		plan = append(plan, r.d.tempStep("before.cfg", r.wasCfg), r.lastLook(), step.Step{
			// Before it is asked: it may stop whatever comes of that, and of waiting for it.
			What: "have the old disks of " + r.d.name + " at hand", Do: func(context.Context) error { return nil },
			Undo: r.startOld, UndoLine: xl.CreatePaused(oldPath).Line(),
		})
		plan = append(plan, r.c.stopPlan(r.e, r.d.journal, r.now)...)
	}
	for _, s := range r.file.steps() {
		if undo := s.Undo; undo != nil {
			s.Undo = func(ctx context.Context) error {
				if r.up.keep {
					return nil
				}
				return undo(ctx)
			}
		}
		plan = append(plan, s)
	}
	return append(plan, r.up.up()...)
}

// startOld is how a restart is undone.
func (r *restarting) startOld(ctx context.Context) error {
	if r.up.keep {
		return nil
	}
	_, up, err := xl.Find(ctx, r.e.Runner, r.d.name)
	if err != nil {
		return err
	}
	if r.asked = up; up {
		return nil
	}
	if err := r.old.up().Run(ctx, nil); err != nil {
		return err
	}
	r.back = true
	return r.old.left
}

// explain adds where the domain stands.
func (r *restarting) explain(err error) error {
	switch {
	case r.up.stays:
		return r.up.leave(err)
	case r.back:
		return fmt.Errorf("%w\n%s runs on its previous disks again", err, r.d.name)
	case r.asked:
		return fault.Hint(fmt.Errorf("%w\n%s was asked to shut down, and may still do so", err, r.d.name), "if it does: domuswitch start %s", run.Quote(r.d.name))
	}
	return err
}
