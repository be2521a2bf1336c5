package main

import (
	"context"
	"slices"

	"xenlvm/lib/cli"
	"xenlvm/lib/convert"
	"xenlvm/lib/fault"
	"xenlvm/lib/mirror"
	"xenlvm/lib/run"
	"xenlvm/lib/step"
)

// place finds out where the disks of mirrors go that have no volume yet, and checks
// that they can: before the first volume is made, and for build before the domain is
// interrupted.
func (c *command) place(ctx context.Context, e *cli.Env, t *target, todo []mirror.Known) (*convert.Conversion, error) {
	h := mirror.Host{Run: e.Runner, Journal: t.journal}
	if err := h.NotRenamed(ctx, todo); err != nil {
		return nil, err
	}
	if err := reclaim(ctx, e, h, todo); err != nil {
		return nil, err
	}
	opts := c.options(t.domain)
	for _, k := range todo { // disks on block devices are looked at only when named
		if k.Destination != "" && !convert.Named(opts.To, k.VDev) {
			opts.To = append(slices.Clone(opts.To), k.VDev+"="+k.Destination)
		}
	}
	among := func(vdev string) bool {
		return slices.ContainsFunc(todo, func(k mirror.Known) bool { return k.VDev == vdev })
	}
	conv, err := convert.PrepareMirror(ctx, e.Runner, reporter{e}, t.journal, opts, among, true)
	if err != nil {
		return nil, err
	}
	if len(conv.Disks) != len(todo) {
		return nil, fault.Hint(fault.Refuse("cannot add to the mirrors of %s: its configuration has other disks now", t.domain), "mdmirror abort %s", run.Quote(t.domain))
	}
	for _, d := range conv.Disks {
		if k := mirrorOf(todo, d); k.Source != d.Image {
			return nil, fault.Hint(fault.Refuse("cannot add to the mirror of %s: it is of %s, and the configuration names %s now", k.Disk, k.Source, d.Image), "mdmirror abort %s", run.Quote(t.domain))
		}
	}
	return conv, nil
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
