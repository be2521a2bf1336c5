package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"xenlvm/lib/cli"
	"xenlvm/lib/fault"
	"xenlvm/lib/journal"
	"xenlvm/lib/run"
	"xenlvm/lib/step"
	"xenlvm/lib/xl"
	"xenlvm/lib/xlcfg"
)

// start starts a domain and returns when the guest has its disks.
func (c *command) start(ctx context.Context, e *cli.Env, args []string) error {
	d, release, err := c.begin(e, "start", args[0])
	if err != nil {
		return err
	}
	defer release()
	now, err := c.look(ctx, e, d.name)
	if err != nil {
		return err
	}
	if err := d.notSuspended(now); err != nil {
		return err
	}
	if err := c.notStale("start", d, now, c.yes, e.DryRun); err != nil {
		return err
	}
	if now.up {
		if err := c.alreadyRuns(d, now); err != nil {
			return err
		}
		e.Infof("nothing to do: %s runs on the disks of %s", d.name, d.file.Path)
		return emitState(e, d.name, string(now.State), false)
	}
	if err := c.notBeside(d, d.disks); err != nil {
		return err
	}
	for _, k := range d.disks {
		dev, err := c.stat(k.Target)
		if err != nil {
			continue // an image
		}
		lv, err := volume(ctx, e.Runner, dev)
		if err != nil {
			return err
		}
		if err := d.complete(k.Target, lv); err != nil {
			return err
		}
	}
	s := c.starting(e, d, d.disks, xl.CreatePaused(d.file.Path))
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
	return stateJSON{Changed: true, DryRun: e.DryRun, Domain: d.name, State: "running", Started: &s.took}.emit(e)
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
	c        *command
	e        *cli.Env
	d        *domain
	disks    []xlcfg.Disk // that it is to have
	was      present      // and had, if its guest goes on
	command  run.Cmd      // that makes it, paused
	dom      xl.Domain    // ours, once it is created
	created  time.Time    // when xl was asked to
	running  time.Time    // when it was let run
	took     journal.Started
	recorded bool // its start is in the journal
	ran      bool // it was let run
	back     *replacement
	keep     bool  // do not put the previous configuration back: a domain uses this one
	went     bool  // it was put back
	stays    bool  // it may have written, so it was not undone
	left     error // it runs, but not as it should; nothing may be undone any more
}

func (c *command) starting(e *cli.Env, d *domain, disks []xlcfg.Disk, create run.Cmd) *starting {
	return &starting{c: c, e: e, d: d, disks: disks, command: create}
}

// plan is the way up, and back to the previous configuration.
func (s *starting) plan() (step.Plan, error) {
	name := s.d.name
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
	return append(plan, s.up()...), nil
}

// up is the way up alone. A guest that may have written is never taken back: then
// the last step ends without an error, and s.left tells.
func (s *starting) up() step.Plan {
	name := s.d.name
	create := step.Step{What: s.command.Args[0] + " " + name + ", paused", Line: s.command.Line(), Do: s.make,
		Undo: s.destroy, UndoLine: xl.Destroy(name).Line()}
	return append(step.Plan{create}, s.letGo()...)
}

// letGo is what follows when the domain is there, paused.
func (s *starting) letGo() step.Plan {
	name := s.d.name
	unpause := xl.Unpause(name)
	return step.Plan{
		{What: "check the disks of " + name, Do: s.check},
		{What: "record the start of " + name, Do: s.record},
		{What: "let " + name + " run", Line: unpause.Line(), Do: func(ctx context.Context) error { return s.letRun(ctx, unpause) }},
		{What: "wait until " + name + " has its disks", Do: s.wait},
	}
}

func (s *starting) make(ctx context.Context) error {
	s.created = time.Now()
	_, failed := s.e.Runner.Run(ctx, s.command)
	// Even when we are interrupted: what xl made must be known to be undone.
	ctx = context.WithoutCancel(ctx)
	dom, up, err := xl.Find(ctx, s.e.Runner, s.d.name)
	if err == nil && up && failed == nil {
		s.dom = dom
		return nil
	}
	if err != nil { // it may be there, and a configuration without its disks would be a trap
		s.keep = true
		err = fmt.Errorf("cannot start %s: it is not known whether xl created it: %w", s.d.name, errors.Join(failed, err))
		return fault.Hint(fault.With(fault.Left, err), "xl list; if it is there, paused: xl destroy %s", run.Quote(s.d.name))
	}
	if failed == nil {
		return fmt.Errorf("cannot start %s: xl created it, but it is not there", s.d.name)
	}
	if up && dom.State == xl.Paused { // most likely by xl itself, before it failed
		s.keep = true
		err := fmt.Errorf("cannot start %s: %w\nit is there, paused", s.d.name, failed)
		return fault.Hint(fault.With(fault.Left, err), "if nobody else has made it: xl destroy %s", dom.Number())
	}
	if up {
		s.keep = true
		return fault.Hint(fmt.Errorf("cannot start %s: it was started by somebody else at the same time", s.d.name), "look at it: domuswitch show %s", run.Quote(s.d.name))
	}
	return fmt.Errorf("cannot start %s: %w", s.d.name, failed)
}

func (s *starting) record(context.Context) error {
	err := s.d.journal.Append(journal.KindStarting, s.dom)
	s.recorded = err == nil
	return err
}

func (s *starting) letRun(ctx context.Context, unpause run.Cmd) error {
	s.ran = true // even if xl fails
	_, err := s.e.Runner.Run(ctx, unpause)
	s.running = time.Now()
	return err
}

// destroy undoes create, and nothing else: only the domain with our number, and
// only while it cannot have written.
func (s *starting) destroy(ctx context.Context) error {
	s.keep = true // until it is gone
	number := s.dom.Number()
	// A paused domain stays as it is seen.
	_, failed := s.e.Runner.Run(ctx, xl.Pause(number))
	g, _, err := s.missing(ctx)
	switch {
	case err != nil:
		return err
	case s.ran && (!g.alive || g.touched || s.emulated()):
		s.stays = true
		if g.here {
			_, err = s.e.Runner.Run(ctx, xl.Unpause(number))
		}
		return err
	case !g.here && g.up: // another domain of that name has this configuration
		return nil
	case g.here:
		if failed == nil {
			_, failed = s.e.Runner.Run(ctx, xl.Destroy(number))
		}
		if failed != nil {
			return failed
		}
	}
	s.keep = false
	if s.recorded {
		err = s.d.journal.Append(journal.KindStartUndone, s.dom)
	}
	return errors.Join(err, s.c.freed(ctx, s.e, g.present))
}

func (s *starting) goBack(ctx context.Context) error {
	if s.keep {
		return nil
	}
	drop, err := s.d.dropBackDoors(ctx, s.e.Runner)
	if err != nil {
		return err
	}
	// Its own checks do not apply: the domain is the one that we destroyed.
	if err := s.back.steps().Run(ctx, nil); err != nil {
		return err
	}
	s.went = true
	return drop.Run(ctx, nil)
}

// explain adds to the error of a failed start where the domain stands now.
func (s *starting) explain(err error) error {
	if s.stays {
		return s.leave(err)
	}
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
