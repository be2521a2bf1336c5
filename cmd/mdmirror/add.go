package main

import (
	"context"

	"xenlvm/lib/cli"
	"xenlvm/lib/convert"
	"xenlvm/lib/fault"
	"xenlvm/lib/mapping"
	"xenlvm/lib/mirror"
	"xenlvm/lib/run"
	"xenlvm/lib/units"
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
	conv, err := c.place(ctx, e, t, todo)
	if err != nil {
		return err
	}
	h := mirror.Host{Run: e.Runner, Journal: t.journal}
	for _, k := range todo {
		if err := h.MayAdd(ctx, k.Disk); err != nil {
			return err
		}
	}
	if err := c.fill(ctx, e, h, conv, todo, rate); err != nil {
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

// fill makes the volumes, and adds them.
func (c *command) fill(ctx context.Context, e *cli.Env, h mirror.Host, conv *convert.Conversion, todo []mirror.Known, rate units.Bytes) error {
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
	return e.Apply(ctx, plan)
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
