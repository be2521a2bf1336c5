package main

import (
	"context"
	"errors"

	"xenlvm/lib/cli"
	"xenlvm/lib/convert"
	"xenlvm/lib/fault"
	"xenlvm/lib/host"
	"xenlvm/lib/journal"
	"xenlvm/lib/lvm"
	"xenlvm/lib/run"
	"xenlvm/lib/step"
)

// runSnapshot copies the images of a domain from a snapshot of the volume, or
// volumes, that they lie on.
func (o *options) runSnapshot(ctx context.Context, e *cli.Env, domain string, rate int64) error {
	opts, err := o.conversion(domain, rate)
	if err != nil {
		return err
	}
	goal, err := o.goal(e)
	if err != nil {
		return err
	}
	for _, name := range []string{"keep-base", "passes", "max-interruption"} {
		if o.final && e.Given(name) {
			return fault.BadUsage("--%s means nothing with --final: no pass follows it", name)
		}
	}
	if err := host.NeedRoot("copy from a snapshot"); err != nil {
		return err
	}
	if err := run.Missing("lvs"); err != nil {
		return err
	}
	j, err := journal.Open(opts.StateDir, domain, e.Tool)
	if err != nil {
		return err
	}
	if !o.dropBase {
		// Looked at before the journal's directory is made: a name that is no
		// domain's must leave nothing behind.
		if err := convert.CheckDomain(opts); err != nil {
			return err
		}
	}
	if !e.DryRun { // which leaves nothing behind, not even the lock's directory
		release, err := j.Lock()
		if err != nil {
			return err
		}
		defer release()
	}
	if o.dropBase {
		return drop(ctx, e, j)
	}
	if planned, err := reclaim(ctx, e, j); err != nil || planned {
		return err
	}
	return o.runPasses(ctx, e, j, opts, goal)
}

// reclaim removes what a run left that was killed. The boolean says that this is all
// that a dry run can plan: what comes then can be planned when that is gone.
func reclaim(ctx context.Context, e *cli.Env, j *journal.Journal) (planned bool, err error) {
	records, err := j.Read()
	if err != nil {
		return false, err
	}
	leftovers, err := convert.Reclaim(ctx, e.Runner, j.Domain, records)
	if err != nil || len(leftovers) == 0 {
		return false, err
	}
	e.Infof("an earlier run of %s was killed: clearing what it left", j.Domain)
	return e.DryRun, e.Apply(ctx, leftovers)
}

// drop removes the snapshots and clones that were kept, or left, for a domain.
func drop(ctx context.Context, e *cli.Env, j *journal.Journal) error {
	dropped, err := dropQuietly(ctx, e, j)
	if err != nil {
		return err
	}
	if !dropped {
		e.Infof("nothing to do: no snapshot or clone was kept for %s", j.Domain)
	}
	if e.JSON {
		return e.Delivered(e.Emit(map[string]any{"changed": dropped}))
	}
	return nil
}

func dropQuietly(ctx context.Context, e *cli.Env, j *journal.Journal) (dropped bool, err error) {
	records, err := j.Read()
	if err != nil {
		return false, err
	}
	plan, err := convert.DropBases(ctx, e.Runner, j.Domain, records)
	if err != nil {
		return false, err
	}
	return len(plan) > 0, e.Apply(ctx, plan)
}

func convertDisks(ctx context.Context, e *cli.Env, c *convert.Conversion) error {
	for _, d := range c.Disks {
		e.Infof("%s: %s to %s by %s: %s", d.VDev, d.Image, d.Dest.Path, d.Method, d.Why)
	}
	if e.DryRun {
		c.Survey()
	}
	copying, commit, err := planIn(ctx, e, c)
	if err != nil {
		return err
	}
	if err := e.Apply(ctx, copying); err != nil {
		return err
	}
	// The copies are whole: a signal now must leave neither them nor a base unrecorded.
	if err := e.Apply(context.WithoutCancel(ctx), commit); err != nil {
		return err
	}
	if !e.DryRun {
		for _, d := range c.Disks {
			e.Infof("%s", howMuch(d))
		}
	}
	return nil
}

// planner is what planIn needs of a conversion.
type planner interface {
	Plan(context.Context) (copying, commit step.Plan, err error)
	GiveUpBases() (step.Plan, error)
}

// planIn is the plan of a conversion. Where there is no room for its snapshots beside
// the bases of the last pass, it removes these first; what is refused then is no
// refusal any more.
func planIn(ctx context.Context, e *cli.Env, c planner) (copying, commit step.Plan, err error) {
	copying, commit, err = c.Plan(ctx)
	if !errors.Is(err, lvm.ErrNoRoom) || e.DryRun {
		return copying, commit, err
	}
	bases, berr := c.GiveUpBases()
	if berr != nil || len(bases) == 0 {
		return nil, nil, errors.Join(err, berr)
	}
	e.Infof("%v: removing the base of the last pass", err)
	if err := e.Apply(ctx, bases); err != nil {
		return nil, nil, err
	}
	copying, commit, err = c.Plan(ctx)
	return copying, commit, fault.With(fault.Failed, err)
}
