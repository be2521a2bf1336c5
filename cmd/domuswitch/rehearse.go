package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"xenlvm/lib/cli"
	"xenlvm/lib/fault"
	"xenlvm/lib/journal"
	"xenlvm/lib/lvm"
	"xenlvm/lib/mapping"
	"xenlvm/lib/run"
	"xenlvm/lib/snap"
	"xenlvm/lib/step"
	"xenlvm/lib/xl"
	"xenlvm/lib/xlcfg"
)

// rehearsal boots a copy of a domain from snapshots of its volumes, beside the
// domain, to see whether it comes up. Nothing of it stays.
type rehearsal struct {
	*checker
	copy    journal.Rehearsal // its name, its UUID
	disks   []trialDisk
	lines   []mapping.Line // of those that are copies
	mirrors []filled
	cfg     *xlcfg.File // of the copy
	leftOut []string    // the keys of the domain's own that it lacks

	made    present // the copy, once it is there
	console *console
	seen    string // of what was waited for
}

// rehearsalJSON is what rehearse reports with --json, also of a copy that did not
// come up.
type rehearsalJSON struct {
	Changed bool           `json:"changed"`
	DryRun  bool           `json:"dry_run"`
	Domain  string         `json:"domain"`
	Copy    string         `json:"copy"`
	CameUp  bool           `json:"came_up"`
	Seen    string         `json:"seen"`    // what told so
	Seconds float64        `json:"seconds"` // until then
	Console []string       `json:"console"` // its last lines
	LeftOut []string       `json:"left_out"`
	Disks   []mapping.Line `json:"disks"`

	Failed bool         `json:"failed,omitempty"`
	Msg    string       `json:"msg,omitempty"`
	Status fault.Status `json:"status,omitempty"`
	Hints  []string     `json:"hints,omitempty"`
}

func (c *command) rehearse(ctx context.Context, e *cli.Env, args []string) error {
	if c.timeout == 0 {
		return fault.BadUsage("rehearse wants a --timeout above 0")
	}
	asked := []request{{domain: args[0]}}
	if len(args) > 1 || args[0] == "-" {
		var err error
		if asked, err = requests(e, "rehearse", args, append(slices.Clone(ready), mapping.Planned)); err != nil {
			return err
		}
	}
	if len(asked) > 1 {
		return fault.Refuse("cannot rehearse %s and %s: one domain at a time", asked[0].domain, asked[1].domain)
	}
	d, release, err := c.begin(e, "rehearse", asked[0].domain)
	if err != nil {
		return err
	}
	defer release()
	r := &rehearsal{
		checker: &checker{c: c, e: e, d: d, byHand: asked[0].byHand}, copy: journal.Rehearsal{Name: d.name + "-rehearsal"},
		lines: []mapping.Line{}, leftOut: []string{},
	}
	left, err := r.clear(ctx)
	if err != nil || left && e.DryRun {
		return err
	}
	plan, err := r.prepare(ctx, asked[0].lines)
	if err != nil {
		return err
	}
	err = e.Apply(ctx, plan)
	r.console.close()
	return r.report(err)
}

// prepare checks everything, and plans.
func (r *rehearsal) prepare(ctx context.Context, lines []mapping.Line) (step.Plan, error) {
	for _, program := range []string{"lvcreate", "lvremove", "vgs", "xenstore-read"} {
		if err := run.Missing(program); err != nil {
			return nil, err
		}
	}
	var err error
	if r.now, err = r.c.look(ctx, r.e, r.d.name); err != nil {
		return nil, err
	}
	if err := r.choose(ctx, lines); err != nil {
		return nil, err
	}
	snapshots, err := r.snapshots(ctx)
	if err != nil {
		return nil, err
	}
	if err := r.configure(ctx); err != nil {
		return nil, err
	}
	if err := r.fits(ctx); err != nil {
		return nil, err
	}
	if _, up, err := xl.Find(ctx, r.e.Runner, r.copy.Name); err != nil {
		return nil, err
	} else if up {
		return nil, fault.Refuse("cannot rehearse %s: there is a domain %s, and no rehearsal made it", r.d.name, r.copy.Name)
	}
	announce := step.Step{What: "write down that " + r.copy.Name + " is made", Do: func(context.Context) error {
		return r.d.journal.Append(journal.KindRehearsing, r.copy)
	}}
	return slices.Concat(step.Plan{announce}, snapshots, r.boot()), nil
}

// snapshots plans those that the copy has as its disks.
func (r *rehearsal) snapshots(ctx context.Context) (step.Plan, error) {
	var plan step.Plan
	for i := range r.disks {
		k := &r.disks[i]
		if k.origin.Name == "" {
			continue
		}
		q := snap.Request{
			Origin: k.origin, Name: lvm.NameFor(k.origin.Name, "rehearsal"), COW: r.c.share, Writable: true,
			Tags: []string{lvm.TagRehearsal, lvm.TagDomain(r.d.name)},
		}
		steps, lv, err := q.Plan(ctx, r.e.Runner)
		if err != nil {
			return nil, err
		}
		steps[len(steps)-1].Temporary = true
		k.snapshot = lv
		r.copy.Snapshots = append(r.copy.Snapshots, lv.Spec())
		plan = append(plan, steps...)
	}
	return plan, nil
}

// clear removes what a rehearsal left that was killed: the domains with the UUIDs
// in the journal, and the snapshots with our tags. It says whether there was any.
func (r *rehearsal) clear(ctx context.Context) (bool, error) {
	plan, err := r.c.clearance(ctx, r.e, r.d)
	if err != nil || len(plan) == 0 {
		return false, err
	}
	r.e.Infof("clearing what an earlier rehearsal of %s left", r.d.name)
	err = r.e.Apply(ctx, plan)
	if err != nil && ctx.Err() == nil {
		err = fault.With(fault.Left, fmt.Errorf("cannot clear what an earlier rehearsal of %s left: %w", r.d.name, err))
		for _, s := range slices.Backward(plan) {
			if s.Line != "" {
				err = fault.Hint(err, "%s", s.Line)
			}
		}
	}
	if err == nil && r.e.DryRun && r.e.JSON {
		err = r.e.Emit(r.result(nil))
	}
	return true, err
}

// clearance is the plan that removes what rehearsals of the domain left.
func (c *command) clearance(ctx context.Context, e *cli.Env, d *domain) (step.Plan, error) {
	var plan step.Plan
	open := d.rehearsals()
	uuids := make([]string, len(open))
	for i, o := range open {
		uuids[i] = o.UUID
	}
	domains, err := xl.ByUUID(ctx, e.Runner, uuids)
	if err != nil {
		return nil, err
	}
	for _, dom := range domains {
		plan = append(plan, step.Step{What: fmt.Sprintf("destroy %s (domain %d)", dom.Name, dom.ID), Line: xl.Destroy(dom.Number()).Line(), Do: func(ctx context.Context) error {
			return c.end(ctx, e, dom)
		}})
	}
	volumes, err := lvm.LVs(ctx, e.Runner, "")
	if err != nil {
		return nil, err
	}
	for _, v := range volumes {
		if !v.Tagged(lvm.TagRehearsal) || !v.Tagged(lvm.TagDomain(d.name)) {
			continue
		}
		steps, err := snap.Removal(e.Runner, v)
		if err != nil {
			return nil, err
		}
		plan = append(plan, steps...)
	}
	cfg := d.temp(trialConfig)
	if _, err := os.Lstat(cfg); err == nil {
		plan = append(plan, step.Step{What: "remove " + cfg, Line: run.Quote("rm", cfg), Do: func(context.Context) error { return os.Remove(cfg) }})
	}
	for _, o := range open {
		plan = append(plan, step.Step{What: "write down that " + o.Name + " is gone", Do: func(context.Context) error {
			return d.journal.Append(journal.KindRehearsed, o)
		}})
	}
	return plan, nil
}

// end destroys a domain, and waits until its disks are free.
func (c *command) end(ctx context.Context, e *cli.Env, dom xl.Domain) error {
	disks, err := xl.Disks(ctx, e.Runner, dom.ID)
	if err != nil {
		return err
	}
	if _, err := e.Runner.Run(ctx, xl.Destroy(dom.Number())); err != nil {
		now, up, look := xl.Find(ctx, e.Runner, dom.Name)
		if look != nil || up && now.ID == dom.ID {
			return err
		}
		// It has ended by itself meanwhile, such as a guest that panicked.
	}
	return c.freed(ctx, e, present{Domain: dom, disks: disks})
}

// report says how it went, and writes it down when nothing of the copy is left.
func (r *rehearsal) report(err error) error {
	if r.e.DryRun {
		return deliver(r.e, r.result(err), nil)
	}
	if r.seen != "" {
		r.e.Infof("%s came up: %s after %.1f s", r.copy.Name, r.seen, r.copy.Seconds)
	}
	if fault.StatusOf(err) != fault.Left {
		if failed := r.d.journal.Append(journal.KindRehearsed, r.copy); failed != nil {
			r.e.Printf("%v", failed) // the next rehearsal looks for it in vain
		}
	}
	if err == nil {
		return deliver(r.e, r.result(nil), r.lines)
	}
	if r.e.JSON {
		_ = r.e.Emit(r.result(err))
	}
	return err
}

func (r *rehearsal) result(err error) rehearsalJSON {
	doc := rehearsalJSON{
		DryRun: r.e.DryRun, Domain: r.d.name, Copy: r.copy.Name, CameUp: r.seen != "", Seen: r.seen, Seconds: r.copy.Seconds,
		Console: r.console.last(linesKept), LeftOut: r.leftOut, Disks: r.lines,
	}
	if err != nil {
		doc.Failed, doc.Msg, doc.Status, doc.Hints = true, err.Error(), fault.StatusOf(err), fault.Hints(err)
		doc.Changed = doc.Status == fault.Left
	}
	return doc
}

// cameUp ends the wait.
func (r *rehearsal) cameUp(seen string, began time.Time) error {
	r.seen, r.copy.CameUp, r.copy.Seconds = seen, true, time.Since(began).Seconds()
	return nil
}

// didNot is the error of a copy that did not come up, with the end of its console.
func (r *rehearsal) didNot(why string) error {
	tail := r.console.last(linesKept)
	if len(tail) == 0 {
		return fmt.Errorf("%s did not come up: %s; its console showed nothing", r.copy.Name, why)
	}
	return fmt.Errorf("%s did not come up: %s; the end of its console:\n  %s", r.copy.Name, why, strings.Join(tail, "\n  "))
}
