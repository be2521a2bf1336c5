package main

import (
	"context"

	"xenlvm/lib/cli"
	"xenlvm/lib/convert"
	"xenlvm/lib/journal"
	"xenlvm/lib/mapping"
	"xenlvm/lib/mirror"
	"xenlvm/lib/run"
	"xenlvm/lib/step"
	"xenlvm/lib/units"
)

// build makes the devices that the domain must use.
func (c *command) build(ctx context.Context, e *cli.Env, args []string) error {
	t, release, err := c.begin(e, "build", args[0])
	if err != nil {
		return err
	}
	defer release()
	conv, err := convert.PrepareMirror(ctx, e.Runner, reporter{e}, t.journal, c.options(t.domain), t.wants, false)
	if err != nil {
		return err
	}
	h := mirror.Host{Run: e.Runner, Journal: t.journal}
	var plan step.Plan
	var lines []mapping.Line
	var todo []mirror.Known
	for _, d := range conv.Disks {
		m := mirror.Disk{Domain: t.domain, VDev: d.VDev, Source: d.Image, Size: units.Bytes(d.Info.Size)}
		if err := h.MayBuild(ctx, m); err != nil {
			return err
		}
		steps, err := h.Build(m)
		if err != nil {
			return err
		}
		plan = append(plan, steps...)
		if k, alone, err := t.withoutVolume(m); err != nil {
			return err
		} else if alone {
			todo = append(todo, k)
		}
		if s := d.Info.Signature; s != nil && s.Type == "LVM2_member" {
			e.Infof("%s holds a physical volume of LVM, whose volume group this host shows as long as %s is mirrored: do not activate it, or hide it in lvm.conf: "+
				`global_filter = [ "r|^/dev/loop|", "r|^/dev/md/xenlvm-|", "r|^/dev/mapper/xenlvm-|" ]`, d.Image, m)
		}
		lines = append(lines, mapping.Line{Domain: t.domain, VDev: d.VDev, Source: d.Image, Destination: m.Path(), State: mapping.Mirrored})
	}
	if len(todo) > 0 && (c.checkAdd || c.overwrite || len(c.to) > 0) {
		if _, err := c.place(ctx, e, t, todo); err != nil {
			return err
		}
	}
	switch {
	case len(lines) == 0:
		e.Infof("nothing to do: %s has no disk on an image file; one that is on a volume moves when it is named: --to VDEV=VG", t.domain)
	case len(plan) == 0:
		e.Infof("nothing to do: the mirrors of %s are built", t.domain)
	}
	if err := e.Apply(ctx, plan); err != nil {
		return err
	}
	if len(plan) > 0 && !e.DryRun {
		e.Infof("put %s onto them: mdmirror build %s | domuswitch live -, or domuswitch restart -; then: mdmirror add --to VG %[2]s", t.domain, run.Quote(t.domain))
	}
	return present(e, len(plan) > 0, lines, nil)
}

// withoutVolume says whether add will have to find a volume for a disk, and what is
// known of its mirror.
func (t *target) withoutVolume(d mirror.Disk) (mirror.Known, bool, error) {
	s, err := d.Look()
	if s.Phase == mirror.Recovering || s.Phase == mirror.Synced {
		return mirror.Known{}, false, err
	}
	for _, k := range t.known {
		if k.VDev == d.VDev && k.Source == d.Source && k.Boot == journal.BootID() {
			return k, true, err
		}
	}
	return mirror.Known{Disk: d}, true, err
}
