package main

import (
	"context"
	"slices"
	"strings"

	"xenlvm/lib/cli"
	"xenlvm/lib/convert"
	"xenlvm/lib/fault"
	"xenlvm/lib/mapping"
	"xenlvm/lib/mirror"
	"xenlvm/lib/run"
	"xenlvm/lib/step"
)

// add adds the volumes to the mirrors, creating those that are missing.
func (c *command) add(ctx context.Context, e *cli.Env, args []string) error {
	rate, err := c.rate()
	if err != nil {
		return err
	}
	t, release, err := c.begin(e, "add to", args[0])
	if err != nil {
		return err
	}
	defer release()
	todo, err := c.unadded(t)
	if err != nil {
		return err
	}
	if len(args) == 2 {
		if len(t.known) != 1 {
			return fault.BadUsage("%s says where one disk goes, and %s has %d mirrors: use --to", args[1], t.domain, len(t.known))
		}
		c.to = append(c.to, t.known[0].VDev+"="+args[1])
	}
	if len(todo) == 0 {
		e.Infof("nothing to do: the volumes of %s are in its mirrors", t.domain)
		return present(e, false, t.lines(mapping.Mirrored, onto), nil)
	}
	h := mirror.Host{Run: e.Runner, Journal: t.journal}
	if err := h.NotRenamed(ctx, todo); err != nil {
		return err
	}
	if err := reclaim(ctx, e, h, todo); err != nil {
		return err
	}
	opts := c.options(t.domain)
	for _, k := range todo { // disks on block devices are looked at only when named
		if k.Destination != "" && !slices.ContainsFunc(opts.To, func(to string) bool { return strings.HasPrefix(to, k.VDev+"=") }) {
			opts.To = append(opts.To, k.VDev+"="+k.Destination)
		}
	}
	conv, err := convert.PrepareMirror(ctx, e.Runner, reporter{e}, t.journal, opts, true)
	if err != nil {
		return err
	}
	conv.Keep(func(vdev string) bool {
		return slices.ContainsFunc(todo, func(k mirror.Known) bool { return k.VDev == vdev })
	})
	if len(conv.Disks) != len(todo) {
		return fault.Hint(fault.Refuse("cannot add to the mirrors of %s: its configuration has other disks now", t.domain), "mdmirror abort %s", run.Quote(t.domain))
	}
	// Everything is checked before the first volume is made.
	for _, d := range conv.Disks {
		k := mirrorOf(todo, d)
		if k.Source != d.Image {
			return fault.Hint(fault.Refuse("cannot add to the mirror of %s: it is of %s, and the configuration names %s now", k.Disk, k.Source, d.Image), "mdmirror abort %s", run.Quote(t.domain))
		}
		if err := h.MayAdd(ctx, k.Disk); err != nil {
			return err
		}
	}
	plan := conv.Destinations()
	for _, d := range conv.Disks {
		k := mirrorOf(todo, d)
		k.Destination = d.Dest.Path
		phase := e.Progress("copy " + k.VDev)
		defer phase.Done()
		plan = append(plan, h.Add(k.Disk, mirror.Adding{
			Rate: rate, Presync: c.presync, UUID: func() string { return d.Dest.LV.UUID },
			Progress: phase.Update,
			Fallback: func(why error) { e.Printf("%s: %v: md copies everything instead", k.VDev, why) },
		})...)
	}
	if err := e.Apply(ctx, plan); err != nil {
		return err
	}
	if !e.DryRun {
		e.Infof("they are being filled: mdmirror wait %s", run.Quote(t.domain))
		if err := t.read(); err != nil {
			return err
		}
	}
	return present(e, true, t.lines(mapping.Mirrored, onto), nil)
}

// reclaim removes what killed runs left.
func reclaim(ctx context.Context, e *cli.Env, h mirror.Host, todo []mirror.Known) error {
	var plan step.Plan
	for _, k := range todo {
		steps, err := h.Reclaim(k.Disk)
		if err != nil {
			return err
		}
		plan = append(plan, steps...)
	}
	return e.Apply(ctx, plan)
}

// mirrorOf is the mirror of a disk. Mirrors may have been built in another order.
func mirrorOf(all []mirror.Known, d *convert.Disk) mirror.Known {
	return all[slices.IndexFunc(all, func(k mirror.Known) bool { return k.VDev == d.VDev })]
}

// onto is the destination of a mirror.
func onto(k mirror.Known) string { return k.Destination }

// unadded are the mirrors that have no second member.
func (c *command) unadded(t *target) ([]mirror.Known, error) {
	if len(t.known) == 0 {
		return nil, fault.Hint(fault.Refuse("cannot add to the mirrors of %s: none is built", t.domain), "mdmirror build %s", run.Quote(t.domain))
	}
	var todo []mirror.Known
	for _, k := range t.known {
		s, err := k.Look()
		if err != nil {
			return nil, err
		}
		switch s.Phase {
		case mirror.Recovering, mirror.Synced:
		case mirror.Built:
			todo = append(todo, k)
		default:
			return nil, k.Unfit(s)
		}
	}
	return todo, nil
}
