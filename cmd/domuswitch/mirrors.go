package main

import (
	"context"

	"xenlvm/lib/blkdev"
	"xenlvm/lib/fault"
	"xenlvm/lib/mapping"
	"xenlvm/lib/run"
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
	above := blkdev.Device{Path: m.live.Path, Number: numberOf(*m.live)}
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
