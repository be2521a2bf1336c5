package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"xenlvm/lib/cli"
	"xenlvm/lib/fault"
	"xenlvm/lib/journal"
	"xenlvm/lib/run"
	"xenlvm/lib/step"
	"xenlvm/lib/xl"
)

// stop shuts a domain down and returns when it is gone and its disks are free.
func (c *command) stop(ctx context.Context, e *cli.Env, args []string) error {
	name := args[0]
	if err := xl.CheckName(name); err != nil {
		return err
	}
	if err := c.needXen("stop domain " + name); err != nil {
		return err
	}
	if c.config != "" {
		// Nothing is needed of it, but that of another domain is a mistake.
		if _, err := c.open(name); err != nil {
			return err
		}
	}
	j, err := c.journalOf(name, nil)
	if err != nil {
		return err
	}
	now, err := look(ctx, e.Runner, name)
	if err != nil {
		return err
	}
	if !now.up {
		// A name that nobody knows is a mistake; before the lock, which
		// would make a file for it.
		if _, err := xl.FindConfig(c.xenDir, name); c.config == "" && errors.Is(err, xl.ErrNoConfig) {
			return fault.Refuse("cannot stop domain %s: there is no such domain", name)
		}
		e.Infof("nothing to do: %s is not running", name)
		return emitState(e, name, "stopped", false)
	}
	release, err := lock(e, j)
	if err != nil {
		return err
	}
	defer release()
	if now.State == xl.Paused && !c.destroy {
		return fault.Hint(fault.Refuse("cannot stop %s: it is paused, and cannot shut down", name), "let it run: %s", xl.Unpause(name).Line())
	}
	if err := mayStillStop(name, e.Apply(ctx, c.stopPlan(e, j, now))); err != nil {
		return err
	}
	return emitState(e, name, "stopped", true)
}

// mayStillStop adds to the error of a stop that was interrupted what may happen.
func mayStillStop(name string, err error) error {
	if errors.Is(err, fault.ErrInterrupted) {
		err = fmt.Errorf("%s may have been asked to shut down, and may still do so: %w", name, err)
	}
	return err
}

// stopPlan shuts a domain down.
func (c *command) stopPlan(e *cli.Env, j *journal.Journal, now present) step.Plan {
	name := now.Name
	s := &stopping{c: c, e: e, journal: j, was: now}
	shutdown := step.Command(e.Runner, "ask "+name+" to shut down", xl.Shutdown(name), run.Cmd{})
	wait := step.Step{What: "wait until " + name + " is gone and its disks are free", Do: s.wait}
	ask := shutdown.Do
	shutdown.Do = func(ctx context.Context) error {
		err := ask(ctx)
		if err == nil {
			return nil
		}
		if gone, look := s.gone(ctx); look == nil && gone {
			return nil // by itself, meanwhile
		}
		if !c.destroy {
			return err
		}
		// A guest that does not take part cannot stop us from destroying it.
		e.Printf("%v", err)
		s.deaf = true
		return nil
	}
	if c.destroy {
		wait.Line = fmt.Sprintf("# if it still runs after %v: %s", c.timeout, xl.Destroy(now.Number()).Line())
	}
	return step.Plan{shutdown, wait}
}

// stateJSON is what stop and start report with --json.
type stateJSON struct {
	Changed bool   `json:"changed"`
	Domain  string `json:"domain"`
	DryRun  bool   `json:"dry_run"`
	State   string `json:"state"`
	*journal.Started
}

func emitState(e *cli.Env, name, state string, changed bool) error {
	return stateJSON{Changed: changed, DryRun: e.DryRun, Domain: name, State: state}.emit(e)
}

func (s stateJSON) emit(e *cli.Env) error {
	if !e.JSON {
		return nil
	}
	return e.Delivered(e.Emit(s))
}

// stopping is a domain that was asked to shut down.
type stopping struct {
	c       *command
	e       *cli.Env
	journal *journal.Journal
	was     present
	deaf    bool // it cannot be asked
}

func (s *stopping) wait(ctx context.Context) error {
	began := time.Now()
	if err := s.untilGone(ctx); err != nil {
		return err
	}
	wentDown(s.e, s.journal, time.Since(began))
	return nil
}

func (s *stopping) untilGone(ctx context.Context) error {
	for end := time.Now().Add(s.c.timeout); ; {
		if gone, err := s.gone(ctx); err != nil || gone {
			return err
		}
		if s.deaf || time.Now().After(end) {
			return s.tooLate(ctx)
		}
		if err := s.c.pause(ctx); err != nil {
			return err
		}
	}
}

// tooLate is what happens when the time is over.
func (s *stopping) tooLate(ctx context.Context) error {
	name := s.was.Name
	if !s.c.destroy {
		err := fmt.Errorf("cannot stop %s: it did not shut down within %v", name, s.c.timeout)
		err = fault.Hint(err, "see what it waits for: xl console %s", run.Quote(name))
		return fault.Hint(err, "stop waiting for it, and lose what it has not written: domuswitch stop --destroy %s", run.Quote(name))
	}
	if _, err := s.e.Runner.Run(ctx, xl.Destroy(s.was.Number())); err != nil {
		return fmt.Errorf("cannot destroy %s: %w", name, err)
	}
	return s.c.freed(ctx, s.e, s.was)
}

// gone says whether the domain has ended; then its disks are free, too. A
// domain of that name with another number has been started anew.
func (s *stopping) gone(ctx context.Context) (bool, error) {
	dom, up, err := xl.Find(ctx, s.e.Runner, s.was.Name)
	if err != nil {
		return false, err
	}
	if up && dom.ID != s.was.ID {
		return false, fault.Hint(fmt.Errorf("cannot stop %s: it came back as domain %d (was %d): it rebooted, or was started by somebody else", s.was.Name, dom.ID, s.was.ID),
			"see on_poweroff in its configuration")
	}
	if up {
		return false, nil
	}
	return true, s.c.freed(ctx, s.e, s.was)
}

// freeWithin is how long the backends of a domain that is gone may take to write
// what is under way and to let go of their devices.
const freeWithin = time.Minute

// freed waits until the backends of a domain that is gone are gone as well.
func (c *command) freed(ctx context.Context, e *cli.Env, was present) error {
	var nodes []string
	for _, d := range was.disks {
		nodes = append(nodes, d.Node)
	}
	for end := time.Now().Add(freeWithin); ; {
		still, err := xl.Attached(ctx, e.Runner, nodes)
		if err != nil || len(still) == 0 {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("cannot free the disks of %s: it is gone, but its backends are still there: %s", was.Name, strings.Join(still, ", "))
		}
		if err := c.pause(ctx); err != nil {
			return err
		}
	}
}
