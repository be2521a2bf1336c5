package main

import (
	"context"
	"encoding/json"
	"errors"
	"slices"

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
