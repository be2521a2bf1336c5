package convert

import (
	"context"

	"xenlvm/lib/journal"
	"xenlvm/lib/run"
)

// QEMU is the method of domuswitch live: the QEMU that serves an image copies it.
const QEMU Method = "qmp"

// Images finds the disks of a domain that are on image files, for QEMU to copy.
// It changes nothing; its errors are refusals. Where they go is said by Place.
func Images(ctx context.Context, r run.Runner, j *journal.Journal, o Options) (*Conversion, error) {
	o.Method = QEMU
	c := &Conversion{o: o, r: r, journal: j}
	if err := run.Missing("lvs"); err != nil {
		return nil, err
	}
	var err error
	if c.records, err = j.Read(); err != nil {
		return nil, err
	}
	if err := c.findDisks(ctx); err != nil {
		return nil, err
	}
	for _, d := range c.Disks {
		d.Method, d.Why = QEMU, "asked for"
	}
	return c, nil
}

// Place finds out where the disks go, and checks that there is room for the
// volumes that are missing. Who has a volume that exists, and what it holds, is
// for the caller to check: QEMU may be copying there already.
func (c *Conversion) Place(ctx context.Context) error {
	if err := c.chooseDestinations(ctx); err != nil {
		return err
	}
	if err := c.checkSpace(ctx, nil); err != nil {
		return err
	}
	return c.checkOthers(ctx)
}
