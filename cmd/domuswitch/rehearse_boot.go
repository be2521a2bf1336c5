package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"xenlvm/lib/fault"
	"xenlvm/lib/lvm"
	"xenlvm/lib/run"
	"xenlvm/lib/step"
	"xenlvm/lib/xl"
)

// boot is the plan from the configuration of the copy to its end.
func (r *rehearsal) boot() step.Plan {
	name, path := r.copy.Name, r.d.temp(trialConfig)
	create := xl.CreatePaused(path)
	unpause := xl.Unpause(name)
	return step.Plan{
		r.d.tempStep(trialConfig, r.cfg),
		{What: "create " + name + ", paused", Line: create.Line(), Do: func(ctx context.Context) error { return r.make(ctx, create) },
			Undo: r.remove, UndoLine: xl.Destroy(name).Line(), Temporary: true},
		{What: "open the console of " + name, Do: r.listen},
		{What: "let " + name + " run", Line: unpause.Line(), Do: func(ctx context.Context) error {
			_, err := r.e.Runner.Run(ctx, xl.Unpause(r.made.Number()))
			return err
		}},
		{What: fmt.Sprintf("wait until %v", r.c.until), Line: fmt.Sprintf("# xl console %s, until %v", run.Quote(name), r.c.until), Do: r.wait},
	}
}

// make creates the copy. What xl made is found by its UUID, to be undone.
func (r *rehearsal) make(ctx context.Context, create run.Cmd) error {
	_, err := r.e.Runner.Run(ctx, create)
	if err == nil {
		err = r.meet(ctx)
	}
	if err == nil {
		return nil
	}
	return errors.Join(fmt.Errorf("cannot create %s: %w", r.copy.Name, err), r.remove(context.WithoutCancel(ctx)))
}

// meet finds the copy, and its disks.
func (r *rehearsal) meet(ctx context.Context) error {
	domains, err := xl.ByUUID(ctx, r.e.Runner, []string{r.copy.UUID})
	if err != nil {
		return err
	}
	if len(domains) != 1 {
		return errors.New("xl created it, but it is not there")
	}
	r.made.Domain = domains[0]
	r.made.disks, err = xl.Disks(ctx, r.e.Runner, r.made.ID)
	return err
}

// remove destroys the copy, if it is still there, and waits until its disks are free.
func (r *rehearsal) remove(ctx context.Context) error {
	domains, err := xl.ByUUID(ctx, r.e.Runner, []string{r.copy.UUID})
	for _, dom := range domains {
		if err == nil {
			err = r.c.end(ctx, r.e, dom)
		}
	}
	if err != nil {
		return fault.Hint(fault.With(fault.Left, err), "%s", xl.Destroy(r.copy.Name).Line())
	}
	return r.c.freed(ctx, r.e, r.made)
}

// listen opens the console. xenconsoled makes the terminal some time after the domain.
func (r *rehearsal) listen(ctx context.Context) error {
	for end := time.Now().Add(r.c.patience); ; {
		tty, err := xl.Console(ctx, r.e.Runner, r.made.Domain)
		if err != nil {
			return err
		}
		if tty != "" {
			f, err := r.c.terminal(tty)
			if err != nil {
				return fmt.Errorf("cannot read the console of %s: %w", r.copy.Name, err)
			}
			r.console = readConsole(f, r.c.until.console, func(line string) { r.e.Infof("%s| %s", r.copy.Name, line) })
			return nil
		}
		if time.Now().After(end) {
			return fault.Hint(fmt.Errorf("cannot read the console of %s: it has no terminal in xenstore", r.copy.Name), "does xenconsoled run?")
		}
		if err := r.c.pause(ctx); err != nil {
			return err
		}
	}
}

// wait returns when the copy is up. An error says that it is not.
func (r *rehearsal) wait(ctx context.Context) error {
	began := time.Now()
	for {
		runs, err := r.runs(ctx)
		if err != nil {
			return err
		}
		if !runs {
			r.drain()
		}
		seen, err := r.reached(ctx, began, runs)
		if err != nil {
			return err
		}
		if seen != "" {
			return r.cameUp(seen, began)
		}
		if err := r.lost(); err != nil {
			return err
		}
		switch {
		case !runs:
			return r.didNot(fmt.Sprintf("it ended after %.0f s, by a crash, a reboot or a shutdown", time.Since(began).Seconds()))
		case r.c.until.alive == 0 && time.Since(began) > r.c.timeout:
			return fault.Hint(r.didNot(fmt.Sprintf("it runs, but this was not seen within %v: %v", r.c.timeout, r.c.until)),
				"wait longer with --timeout, or say with --until what tells that it is up")
		}
		if err := r.rest(ctx); err != nil {
			return err
		}
	}
}

// runs says whether the guest of the copy does.
func (r *rehearsal) runs(ctx context.Context) (bool, error) {
	domains, err := xl.List(ctx, r.e.Runner)
	for _, d := range domains {
		if d.ID == r.made.ID {
			return alive(d.State), err
		}
	}
	return false, err
}

// drain waits for what a domain that has ended wrote last.
func (r *rehearsal) drain() {
	select {
	case <-r.console.ended:
	case <-time.After(2 * r.c.poll):
	}
}

// rest waits for the next look, or until the console shows what is waited for.
func (r *rehearsal) rest(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return fmt.Errorf("waiting: %w", context.Cause(ctx))
	case <-r.console.found:
	case <-time.After(r.c.poll):
	}
	return nil
}

// reached says what was seen of what is waited for, "" for nothing.
func (r *rehearsal) reached(ctx context.Context, began time.Time, runs bool) (string, error) {
	until := r.c.until
	switch {
	case until.console != nil:
		if line := r.console.seen(); line != "" {
			return fmt.Sprintf("its console showed %q", line), nil
		}
	case until.node != "":
		value, ok, err := xl.Node(ctx, r.e.Runner, r.made.Node(until.node))
		if err == nil && ok && (until.value == nil || *until.value == value) {
			return fmt.Sprintf("xenstore has %s = %q", until.node, value), nil
		}
		return "", err
	case runs && time.Since(began) >= until.alive:
		return until.String(), nil
	}
	return "", nil
}

// lost is the error of a copy whose snapshots are: then it says nothing.
func (r *rehearsal) lost() error {
	for _, k := range r.disks {
		if k.origin.Name == "" {
			continue
		}
		_, err := r.c.usage(k.snapshot)
		switch {
		case errors.Is(err, lvm.ErrLost):
			return fault.Hint(fmt.Errorf("cannot go on with %s: its disk %s had %s for what changes: %w", r.copy.Name, k.VDev, k.snapshot.COW, err),
				"give it more: --snapshot-size 30%%ORIGIN")
		case err != nil:
			return fmt.Errorf("cannot go on with %s: %w", r.copy.Name, err)
		}
	}
	return nil
}
