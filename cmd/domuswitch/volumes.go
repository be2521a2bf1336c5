package main

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"xenlvm/lib/cli"
	"xenlvm/lib/convert"
	"xenlvm/lib/fault"
	"xenlvm/lib/journal"
	"xenlvm/lib/mapping"
	"xenlvm/lib/run"
	"xenlvm/lib/xl"
	"xenlvm/lib/xlcfg"
)

// onlyDisks says whether the arguments name a domain and perhaps some of its
// disks, but no device.
func onlyDisks(args []string) (domain string, vdevs []string, ok bool) {
	named := slices.ContainsFunc(args[1:], func(a string) bool { return strings.Contains(a, "=") })
	return args[0], args[1:], args[0] != "-" && !named
}

// toVolumes has QEMU move the images that it serves onto volumes, and makes those
// that are missing.
func (c *command) toVolumes(ctx context.Context, e *cli.Env, domain string, vdevs []string) error {
	s, release, err := c.take(ctx, e, "live", request{domain: domain, byHand: true})
	if err != nil {
		return err
	}
	defer release()
	m := &moving{switching: s}
	conv, err := m.served(ctx, vdevs)
	if err != nil {
		return err
	}
	if len(conv.Disks) == 0 {
		e.Infof("nothing to do: QEMU serves no image of %s", domain)
		m.out.Method = byQEMU
		if err := m.configure(); err != nil {
			return err
		}
		return m.done()
	}
	if m.now.State != xl.Running {
		return m.notRunning("move")
	}
	if err := conv.Place(ctx); err != nil {
		return err
	}
	m.lines, m.volumes = conv.Lines(mapping.Copied), map[string]*convert.Disk{}
	for _, d := range conv.Disks {
		if !d.Dest.Exists {
			m.volumes[d.Dest.Path] = d
		}
	}
	if err := m.prepare(ctx, m.may); err != nil {
		return err
	}
	conv.Keep(func(vdev string) bool {
		return slices.ContainsFunc(m.moves, func(mv *move) bool { return !mv.has && xlcfg.SameDevice(mv.disk.VDev, vdev) })
	})
	m.making = conv.Destinations()
	return m.copyInQEMU(ctx)
}

// served are the images of the domain that QEMU serves, or those of them that
// vdevs name.
func (m *moving) served(ctx context.Context, vdevs []string) (*convert.Conversion, error) {
	conv, err := convert.Images(ctx, m.e.Runner, m.d.journal, convert.Options{
		Domain: m.d.name, Config: m.d.file.Path, XenDir: m.c.xenDir, StateDir: cmp.Or(m.c.stateDir, journal.DefaultDir), To: m.c.to,
	})
	if err != nil {
		return nil, err
	}
	var others []string
	for _, d := range conv.Disks {
		if live, ok := m.now.liveDisk(d.VDev); !ok || live.Kind != qdisk {
			others = append(others, d.VDev)
		}
	}
	conv.Keep(func(vdev string) bool { return !slices.Contains(others, vdev) })
	if len(vdevs) == 0 {
		if len(conv.Disks) > 0 && len(others) > 0 {
			return nil, m.mixed(conv.Disks, others)
		}
		return conv, nil
	}
	for _, v := range vdevs {
		if !slices.ContainsFunc(conv.Disks, func(d *convert.Disk) bool { return xlcfg.SameDevice(d.VDev, v) }) {
			return nil, fault.Refuse("cannot move disk %s of %s: it is no image that QEMU serves", v, m.d.name)
		}
	}
	conv.Keep(func(vdev string) bool {
		return slices.ContainsFunc(vdevs, func(v string) bool { return xlcfg.SameDevice(v, vdev) })
	})
	return conv, nil
}

// mixed refuses a domain with images of both kinds: Xen cannot move it any more
// when QEMU has moved a disk, and not all of its disks would have moved live.
func (m *moving) mixed(served []*convert.Disk, others []string) error {
	var names []string
	for _, d := range served {
		names = append(names, d.VDev)
	}
	err := fault.Refuse("cannot move all disks of %s live: QEMU serves %s, and not %s", m.d.name, strings.Join(names, ", "), strings.Join(others, ", "))
	err = fault.Hint(err, "then the others, with a restart: image-to-lv --plan mirror %s", run.Quote(m.d.name))
	return fault.Hint(err, "those that QEMU serves: domuswitch live --to VG %s", run.Quote(append([]string{m.d.name}, names...)...))
}
