package main

import (
	"context"
	"errors"
	"fmt"

	"xenlvm/lib/cli"
	"xenlvm/lib/fault"
	"xenlvm/lib/journal"
	"xenlvm/lib/run"
	"xenlvm/lib/step"
	"xenlvm/lib/xl"
)

// start starts a domain and returns when the guest has its disks.
func (c *command) start(ctx context.Context, e *cli.Env, args []string) error {
	if err := c.needXen("start"); err != nil {
		return err
	}
	d, err := c.open(args[0])
	if err != nil {
		return err
	}
	release, err := d.take(e)
	if err != nil {
		return err
	}
	defer release()
	now, err := look(ctx, e.Runner, d.name)
	if err != nil {
		return err
	}
	if now.up {
		if err := c.alreadyRuns(d, now); err != nil {
			return err
		}
		e.Infof("nothing to do: %s runs on the disks of %s", d.name, d.file.Path)
		return emitState(e, d.name, string(now.State), false)
	}
	for _, k := range d.disks {
		if _, err := c.stat(k.Target); err == nil {
			if err := c.complete(ctx, e, k.Target); err != nil {
				return err
			}
		}
	}
	s := &starting{c: c, e: e, d: d}
	plan, err := s.plan()
	if err != nil {
		return err
	}
	if err := e.Apply(ctx, plan); err != nil {
		return s.explain(err)
	}
	if s.left != nil {
		return s.left
	}
	return emitState(e, d.name, "running", true)
}

// alreadyRuns refuses where the domain runs, but not as the configuration says.
func (c *command) alreadyRuns(d *domain, now present) error {
	if now.State == xl.Paused {
		return fault.Hint(fault.Refuse("cannot start %s: it is paused", d.name), "let it run: %s", xl.Unpause(d.name).Line())
	}
	if now.State != xl.Running {
		return fault.Hint(fault.Refuse("cannot start %s: it is still there, and %s", d.name, now.State), "remove what is left of it: %s", xl.Destroy(d.name).Line())
	}
	for _, k := range d.disks {
		live, ok := now.liveDisk(k.VDev)
		if k.CDROM || ok && c.runs(live, k.Target) {
			continue
		}
		has := "it has none"
		if ok {
			has = "it has " + live.Path
		}
		return fault.Hint(fault.Refuse("cannot start %s: it runs already, but not on disk %s = %s: %s", d.name, k.VDev, k.Target, has),
			"stop it first: domuswitch stop %s", run.Quote(d.name))
	}
	return nil
}

// starting is a domain on its way up.
type starting struct {
	c    *command
	e    *cli.Env
	d    *domain
	dom  xl.Domain // ours, once it is created
	back *replacement
	keep bool  // do not put the previous configuration back: somebody else uses this one
	went bool  // it was put back
	left error // it runs, but not as it should; nothing may be undone any more
}

// plan is the way up. A guest that may have written is never taken back: then
// the last step ends without an error, and s.left tells.
func (s *starting) plan() (step.Plan, error) {
	name, r := s.d.name, s.e.Runner
	var plan step.Plan
	if h := s.d.historyOf(); h.reversible && !h.ran && !h.booted {
		back, err := s.c.goingBack(s.d)
		if err != nil {
			return nil, err
		}
		s.back = back
		plan = append(plan, step.Step{What: "have the previous configuration at hand", Do: func(context.Context) error { return nil },
			Undo: s.goBack, UndoLine: "domuswitch revert " + run.Quote(name)})
	}
	create, destroy := xl.CreatePaused(s.d.file.Path), xl.Destroy(name)
	return append(plan,
		step.Step{What: "create " + name + ", paused", Line: create.Line(), Do: func(ctx context.Context) error { return s.create(ctx, create) },
			Undo: s.destroy, UndoLine: destroy.Line()},
		step.Step{What: "check the disks of " + name, Do: s.check},
		step.Step{What: "record the start of " + name, Do: func(context.Context) error { return s.d.journal.Append(journal.KindStarting, s.dom) },
			Undo: func(context.Context) error { return s.d.journal.Append(journal.KindStartUndone, s.dom) }},
		step.Command(r, "let "+name+" run", xl.Unpause(name), run.Cmd{}),
		step.Step{What: "wait until " + name + " has its disks", Do: s.wait},
	), nil
}

func (s *starting) create(ctx context.Context, create run.Cmd) error {
	_, failed := s.e.Runner.Run(ctx, create)
	// Even when we are interrupted: what xl made must be known to be undone.
	ctx = context.WithoutCancel(ctx)
	dom, up, err := xl.Find(ctx, s.e.Runner, s.d.name)
	if err == nil && up && failed == nil {
		s.dom = dom
		return nil
	}
	if failed == nil {
		return errors.Join(fmt.Errorf("cannot start %s: xl created it, but it is not there", s.d.name), err)
	}
	if err == nil && up {
		s.keep = true
		return fault.Hint(fmt.Errorf("cannot start %s: it was started by somebody else at the same time", s.d.name), "look at it: domuswitch show %s", run.Quote(s.d.name))
	}
	return errors.Join(fmt.Errorf("cannot start %s: %w", s.d.name, failed), err)
}

// destroy undoes create, and nothing else: only the domain with our number.
func (s *starting) destroy(ctx context.Context) error {
	now, err := look(ctx, s.e.Runner, s.d.name)
	if err != nil || !now.up || now.ID != s.dom.ID {
		return err
	}
	if _, err := s.e.Runner.Run(ctx, xl.Destroy(s.d.name)); err != nil {
		return err
	}
	return s.c.freed(ctx, s.e, now)
}

func (s *starting) goBack(ctx context.Context) error {
	if s.keep {
		return nil
	}
	// Its own checks do not apply: the domain is the one that we destroyed.
	if err := s.back.steps().Run(ctx, nil); err != nil {
		return err
	}
	s.went = true
	return nil
}

// explain adds to the error of a failed start where the domain stands now.
func (s *starting) explain(err error) error {
	if !s.went {
		return err
	}
	lines := ""
	for _, l := range s.back.lines {
		lines += fmt.Sprintf(" %s=%s", l.VDev, l.Source)
	}
	return fault.Hint(fmt.Errorf("%w\n%s has its previous disks back:%s", err, s.d.name, lines),
		"start it from them: domuswitch start %s", run.Quote(s.d.name))
}
