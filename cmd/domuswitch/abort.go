package main

import (
	"context"
	"fmt"
	"slices"

	"xenlvm/lib/cli"
	"xenlvm/lib/fault"
	"xenlvm/lib/journal"
	"xenlvm/lib/mirror"
	"xenlvm/lib/run"
	"xenlvm/lib/step"
)

// abort gives up what was begun before the cutover, whatever program began it: the
// domain stays on, or goes back to, what it had.
func (c *command) abort(ctx context.Context, e *cli.Env, args []string) error {
	d, release, err := c.begin(e, "abort", args[0])
	if err != nil {
		return c.stopFirst(args[0], err)
	}
	defer release()
	a := &aborting{c: c, e: e, d: d}
	if err := a.check(ctx); err != nil {
		return err
	}
	if err := a.run(ctx); err != nil {
		return err
	}
	if !a.did {
		e.Infof("nothing to do: nothing is under way for %s", d.name)
	}
	if e.JSON {
		return e.Delivered(e.Emit(map[string]any{"changed": a.did, "dry_run": e.DryRun, "domain": d.name, "kept": a.kept}))
	}
	return nil
}

// stopFirst adds to a refusal that another run has the domain how to end that.
func (c *command) stopFirst(name string, err error) error {
	j, other := c.journalOf(name, nil)
	if other != nil {
		return err
	}
	if h, other := j.Holder(); other == nil && h != nil {
		return fault.Hint(err, "or end it, which undoes what it has begun: kill %d", h.PID)
	}
	return err
}

// aborting is abort at work.
type aborting struct {
	c    *command
	e    *cli.Env
	d    *domain
	now  present
	all  []mirror.Known // mirrors that were not taken down
	back *replacement   // of a configuration that the domain has not started from, nil for none
	kept []string       // volumes
	did  bool
}

// check refuses what abort is not for, before anything is touched.
func (a *aborting) check(ctx context.Context) error {
	var err error
	if a.now, err = a.c.look(ctx, a.e, a.d.name); err != nil {
		return err
	}
	if err := a.d.notSuspended(a.now); err != nil {
		return fault.With(fault.Refused, fmt.Errorf("cannot abort: %w", err))
	}
	for _, h := range a.c.unclear(a.d) {
		return h.refuse("abort the move of", a.d, a.now)
	}
	for _, k := range mirror.Remember(a.d.name, a.d.records) {
		if !k.Ended {
			a.all = append(a.all, k)
		}
	}
	return a.beforeCutover()
}

// beforeCutover refuses to abort what is over. A change of the configuration that the
// domain has not started from is taken back.
func (a *aborting) beforeCutover() error {
	h := a.d.historyOf()
	if !h.found || h.undone || len(a.all) > 0 { // of a mirror the kernel tells
		return nil
	}
	newest := -1
	for _, m := range a.d.movesMade() {
		newest = max(newest, m.index)
	}
	if a.begun() > newest {
		return nil // another move, which has not come to its cutover
	}
	back, err := a.c.goingBack(a.d)
	if err != nil || back == nil {
		return err
	}
	if err := a.c.loses(a.d, back, a.now); err != nil {
		return fault.Hint(fault.Refuse("cannot abort: the cutover of %s is over: %w", a.d.name, err), "to go back all the same: domuswitch revert %s", run.Quote(a.d.name))
	}
	back.ready = (&checker{c: a.c, e: a.e, d: a.d, now: a.now}).domainUnchanged
	a.back = back
	return nil
}

// begun is the index of the newest record that begins a move, -1 for none.
func (a *aborting) begun() int {
	for i, r := range slices.Backward(a.d.records) {
		if slices.Contains([]string{journal.KindDestination, journal.KindMirror, journal.KindMember, journal.KindCopying}, r.Kind) {
			return i
		}
	}
	return -1
}

// run goes back, part by part: what comes later can be planned when the parts before it
// are gone. Killed at any point, the next abort goes on there.
func (a *aborting) run(ctx context.Context) error {
	parts := []func(context.Context) (step.Plan, error){
		func(ctx context.Context) (step.Plan, error) { return a.c.clearance(ctx, a.e, a.d) },
		a.inQEMU, a.configuration, a.offMirrors, a.mirrors, a.copies, a.volumes, a.writeDown,
	}
	for _, part := range parts {
		plan, err := part(ctx)
		if err != nil {
			if a.did {
				err = fault.With(fault.Failed, err)
			}
			return err
		}
		if len(plan) == 0 {
			continue
		}
		a.did = true
		if err := a.e.Apply(ctx, plan); err != nil {
			return fault.Hint(err, "run the same command again: it goes on")
		}
	}
	return nil
}
