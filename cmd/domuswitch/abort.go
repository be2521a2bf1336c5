package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"xenlvm/lib/cli"
	"xenlvm/lib/convert"
	"xenlvm/lib/fault"
	"xenlvm/lib/journal"
	"xenlvm/lib/lvm"
	"xenlvm/lib/mirror"
	"xenlvm/lib/qmp"
	"xenlvm/lib/run"
	"xenlvm/lib/step"
	"xenlvm/lib/xlcfg"
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

// inQEMU has QEMU give up copies that a run which was killed had it begin.
func (a *aborting) inQEMU(context.Context) (step.Plan, error) {
	var plan step.Plan
	for _, one := range a.d.copiesInQEMU(a.now) {
		plan = append(plan, step.Step{
			What: "have QEMU give up the copy of disk " + one.Disk.VDev + " to " + one.Device,
			Line: "# QEMU gives up the copy to " + one.Device + " (block-job-cancel)",
			Do: func(ctx context.Context) error {
				ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), max(a.c.timeout, a.c.patience))
				defer cancel()
				err := a.c.ask(ctx, a.now.ID, func(ctx context.Context, q *qmp.Client) error { return q.Mirror(one.Disk, one.Device).Cancel(ctx) })
				if errors.Is(err, qmp.ErrSwitched) {
					err = fault.Hint(err, "complete it: %s", run.Quote("domuswitch", "live", a.d.name, one.Disk.VDev+"="+one.Device))
				}
				return err
			},
		})
	}
	return plan, nil
}

// copiesInQEMU are those that the present QEMU of the domain was told to begin, and
// nobody knows how they ended.
func (d *domain) copiesInQEMU(now present) []copying {
	var all []copying
	for _, r := range d.records {
		var one copying // of which a handover has a part
		switch r.Kind {
		case journal.KindAborted:
			all = nil
		case journal.KindCopying, journal.KindHandover:
			if json.Unmarshal(r.Data, &one) != nil {
				continue
			}
			all = slices.DeleteFunc(all, func(o copying) bool { return xlcfg.SameDevice(o.Disk.VDev, one.Disk.VDev) })
			if r.Kind == journal.KindCopying && now.up && one.Domain.ID == now.ID && d.boot != "" && r.Boot == d.boot {
				all = append(all, one)
			}
		}
	}
	return all
}

// configuration puts the previous one back, and takes the back doors of this one away.
func (a *aborting) configuration(ctx context.Context) (step.Plan, error) {
	if a.back == nil {
		return nil, nil
	}
	doors, err := a.d.dropBackDoors(ctx, a.e.Runner)
	return append(a.back.steps(), doors...), err
}

func (a *aborting) host() mirror.Host { return mirror.Host{Run: a.e.Runner, Journal: a.d.journal} }

// offMirrors puts the domain back onto its images.
func (a *aborting) offMirrors(ctx context.Context) (step.Plan, error) {
	if len(a.all) == 0 {
		return nil, nil
	}
	return a.host().GoBack(ctx, a.d.file.Path, a.all, nil)
}

// mirrors takes them down.
func (a *aborting) mirrors(context.Context) (step.Plan, error) {
	plan, err := a.host().TakeDownAll(a.all)
	for _, k := range a.all {
		plan = append(plan, a.host().End(k.Disk)...)
	}
	return plan, err
}

// copies removes the snapshots and clones of copies, and all that stands on them, those included
// that were kept for a next pass.
func (a *aborting) copies(ctx context.Context) (step.Plan, error) {
	return convert.DropBases(ctx, a.e.Runner, a.d.name, a.d.records)
}

// volumes removes those that were made for this and never finished. One that was given
// stays, and so does a finished copy, or one that may be newer than the image: what is
// on it may be all that somebody has.
func (a *aborting) volumes(ctx context.Context) (step.Plan, error) {
	all, err := lvm.LVs(ctx, a.e.Runner, "")
	if err != nil {
		return nil, err
	}
	var plan step.Plan
	records, err := a.d.journal.Read() // which says by now what became of mirrors
	if err != nil {
		return nil, err
	}
	unfinished, given, finished := convert.Volumes(all, a.d.name, records)
	for _, v := range unfinished {
		if err := a.unused(v); err != nil {
			return nil, err
		}
		plan = append(plan, convert.Drop(a.e.Runner, a.d.journal, v)...)
	}
	used := func(v lvm.LV) bool {
		return slices.ContainsFunc(a.d.disks, func(k xlcfg.Disk) bool { return a.c.same(k.Target, v.Path) })
	}
	a.kept = []string{}
	for _, v := range given {
		a.kept = append(a.kept, v.Path)
		a.e.Infof("%s is kept, with its tag %s: it was not made for this, had a finished copy, or was in a mirror when the host went down. If nobody needs it: %s", v.Path, lvm.TagIncomplete, lvm.Remove(v.Spec()).Line())
	}
	for _, v := range finished {
		if !used(v) {
			a.kept = append(a.kept, v.Path)
			a.e.Infof("%s is kept: the copy on it is complete. If nobody needs it: %s", v.Path, lvm.Remove(v.Spec()).Line())
		}
	}
	return plan, nil
}

// unused refuses to remove a volume that the domain has, or will have: a tag that
// stayed says nothing then.
func (a *aborting) unused(v lvm.LV) error {
	for _, k := range a.d.disks {
		if a.back == nil && a.c.same(k.Target, v.Path) {
			return fault.Refuse("cannot abort: %s has %s as its disk %s, although it has the tag %s", a.d.name, v.Path, k.VDev, lvm.TagIncomplete)
		}
	}
	for _, l := range a.now.disks {
		if a.c.runs(l, v.Path) {
			return fault.Refuse("cannot abort: %s runs on %s, although it has the tag %s", a.d.name, v.Path, lvm.TagIncomplete)
		}
	}
	return nil
}

// writeDown ends the move in the journal, unless that says so already.
func (a *aborting) writeDown(context.Context) (step.Plan, error) {
	records, err := a.d.journal.Read()
	if err != nil {
		return nil, err
	}
	under := false
	for _, r := range records {
		switch r.Kind {
		case journal.KindDestination, journal.KindCopied, journal.KindMirror, journal.KindMember, journal.KindCopying:
			under = true
		case journal.KindAborted, journal.KindApplied:
			under = false
		}
	}
	if !under {
		return nil, nil
	}
	return step.Plan{{What: "write down that the move of " + a.d.name + " was given up", Do: func(context.Context) error {
		return a.d.journal.Append(journal.KindAborted, struct{}{})
	}}}, nil
}
