package main

import (
	"context"

	"xenlvm/lib/blkdev"
	"xenlvm/lib/fault"
	"xenlvm/lib/mapping"
	"xenlvm/lib/mirror"
	"xenlvm/lib/run"
	"xenlvm/lib/xlcfg"
)

// relate finds out whether the device has the bytes of the present disk, by way
// of mdmirror.
func (k *checker) relate(m *move) error {
	var err error
	if _, m.mirror, err = k.c.mirror(m.dev.Number); err != nil {
		return err
	}
	if m.mirror {
		is := m.disk.Target
		if m.live != nil {
			is = m.live.Path
		}
		m.equal = m.has || k.c.leads(m.dev, is)
		return nil
	}
	if m.live == nil || !m.live.HasDevice {
		return nil
	}
	above := blkdev.Device{Path: m.live.Path, Number: m.live.Number()}
	top, is, err := k.c.mirror(above.Number)
	if err != nil || !is {
		return err
	}
	if m.line.State == mapping.Synced && k.c.leads(above, m.line.Destination) || top.LinearOver(m.dev.Number) {
		m.above, m.equal = &above, true
	}
	return nil
}

// lasting: what the configuration names must be there after the host has booted.
func (k *checker) lasting(_ context.Context, m *move) error {
	if !m.mirror {
		return nil
	}
	return fault.Hint(fault.Refuse("cannot put %s into %s: it is a device of mdmirror, and gone when the host boots", m.line.Destination, k.d.file.Path),
		"let %s run on it: domuswitch restart %[1]s %s, or domuswitch live", run.Quote(k.d.name), run.Quote(m.line.VDev+"="+m.line.Destination))
}

// fromMirror refuses a device of mdmirror that is not above the present disk.
func (s *switching) fromMirror(m *move) error {
	is := m.disk.Target
	if m.live != nil {
		is = m.live.Path
	}
	return fault.Hint(fault.Refuse("cannot put disk %s of %s onto %s: that does not lead to %s", m.disk.VDev, s.d.name, m.line.Destination, is),
		"mdmirror status %s", run.Quote(s.d.name))
}

// filled is a mirror whose volume has, or is given, what the domain writes.
type filled struct {
	mirror.Known
	phase mirror.Phase
}

// filledMirrors are those of the domain. One of the image alone is none: nothing
// is lost when the domain writes beside it.
func (c *command) filledMirrors(d *domain) ([]filled, error) {
	var all []filled
	for _, k := range mirror.Remember(d.name, d.records) {
		if k.Ended {
			continue
		}
		phase, err := c.filling(k.Disk)
		if err != nil {
			return nil, err
		}
		if phase != "" {
			all = append(all, filled{k, phase})
		}
	}
	return all, nil
}

// filling says how far a mirror is that has a volume, "" for one that has none.
func filling(d mirror.Disk) (mirror.Phase, error) {
	s, err := d.Look()
	alone := s.Array == nil || s.StateOf(s.Destination) == "missing"
	if err != nil || s.Phase == mirror.Returned || alone && s.Phase != mirror.Switched {
		return "", err
	}
	return s.Phase, nil
}

// notBeside refuses to start a domain on disks beside its mirrors: what it writes
// would be in one of two copies that count as equal.
func (c *command) notBeside(d *domain, disks []xlcfg.Disk) error {
	all, err := c.filledMirrors(d)
	if err != nil {
		return err
	}
	for _, f := range all {
		for _, k := range disks {
			on := c.same(k.Target, f.Path()) || f.phase == mirror.Switched && c.same(k.Target, f.Destination)
			if on || !xlcfg.SameDevice(k.VDev, f.VDev) {
				continue
			}
			name := run.Quote(d.name)
			err := fault.Refuse("cannot start %s: its disk %s is mirrored (%s), and %s would be written to beside the mirror", d.name, k.VDev, f.phase, k.Target)
			err = fault.Hint(err, "or end the mirror: mdmirror finish %s, or mdmirror abort %[1]s", name)
			return fault.Hint(err, "start it on the mirror: domuswitch restart %s", run.Quote(d.name, f.VDev+"="+f.Path()))
		}
	}
	return nil
}

// wroteBeside refuses a mirror for a domain that runs beside it.
func (s *switching) wroteBeside(_ context.Context, m *move) error {
	if !m.mirror || m.has || !s.now.up {
		return nil
	}
	all, err := s.c.filledMirrors(s.d)
	if err != nil {
		return err
	}
	for _, f := range all {
		if s.c.same(m.line.Destination, f.Path()) {
			return fault.Hint(fault.Refuse("cannot put disk %s of %s onto %s: that is a mirror (%s), and %[2]s has written beside it", m.disk.VDev, s.d.name, m.line.Destination, f.phase),
				"make it anew: mdmirror abort %s, mdmirror build %[1]s", run.Quote(s.d.name))
		}
	}
	return nil
}
