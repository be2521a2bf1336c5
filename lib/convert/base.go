package convert

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"xenlvm/lib/diskimg"
	"xenlvm/lib/journal"
	"xenlvm/lib/run"
	"xenlvm/lib/step"
)

// base is what a pass copied from, kept for the next one, which then need look only at
// what was written since. It belongs to the digests of the same pass: without them, or
// when anybody may have written to the destination since, it says nothing. So nothing
// depends on it: one that overflowed, or is gone, only means that the image is read.
type base interface {
	id() string    // in the journal
	name() string  // for people
	delta() string // how it tells what changed
	usable() error // why it tells nothing
	// clearance is the plan that takes away what stands on it.
	clearance() (step.Plan, error)
	removal(r run.Runner) (step.Plan, error)
}

// How what changed was found: the Delta of a Result.
const (
	byExceptions  = "thick snapshot's exception table"
	byThinDelta   = "thin pool's metadata"
	byClones      = "extents of two clones"
	byDigests     = "digests"
	byDestination = "digests of the destination, which was read for them"
	byCheckpoint  = "digests of the pass that was killed"
	byFiles       = "files"
)

// mappable says whether a change of the volume, or the file, tells what changed in the
// disk: not in one whose format has its own order of blocks, nor in single files.
func (d *Disk) mappable() bool { return d.Method == Blocks && d.Format == string(diskimg.Raw) }

// basesOf is what was kept, or left, for a domain.
func basesOf(ctx context.Context, r run.Runner, domain string, records []journal.Record) ([]base, error) {
	snapshots, err := snapshotsOf(ctx, r, domain)
	var all []base
	for _, v := range snapshots {
		all = append(all, keptSnapshot{v})
	}
	for _, k := range clonesIn(records) {
		all = append(all, k)
	}
	return all, err
}

// planBases gives each source the base that the last pass kept for its disks, and is the
// plan that removes those that none can use.
func (c *Conversion) planBases(all []*source) (step.Plan, error) {
	var unused []base
	for _, b := range c.bases {
		if !c.useBase(b, all) {
			unused = append(unused, b)
		}
	}
	for _, d := range c.Disks {
		if d.last != nil && d.last.Base != "" && !slices.ContainsFunc(c.bases, func(b base) bool { return b.id() == d.last.Base }) {
			c.rep.Infof("%s: the base of its last copy is gone: %s", d.VDev, instead)
		}
	}
	return c.removal(unused)
}

// useBase says whether a disk of one of the sources can use the base.
func (c *Conversion) useBase(b base, all []*source) bool {
	used := false
	for _, s := range all {
		if !s.follows(b) {
			continue
		}
		for _, d := range s.disks {
			if d.last == nil || d.last.Base != b.id() {
				continue
			}
			if err := d.basedOn(b); err != nil {
				c.cannotTell([]*Disk{d}, b, err)
				continue
			}
			s.base, s.based, used = b, append(s.based, d), true
		}
	}
	return used
}

// removal is the plan that removes bases.
func (c *Conversion) removal(all []base) (step.Plan, error) {
	var plan step.Plan
	for _, b := range all {
		steps, err := b.removal(c.r)
		if err != nil {
			return nil, err
		}
		plan = append(plan, steps...)
	}
	return plan, nil
}

// basedOn says why the base, which the last copy of d names, cannot be used.
func (d *Disk) basedOn(b base) error {
	if err := b.usable(); err != nil {
		return err
	}
	switch {
	case !d.mappable():
		return errors.New("it is copied in another way now")
	case d.last.DiskSize != d.Info.Size:
		return fmt.Errorf("the disk had %d bytes, and has %d", d.last.DiskSize, d.Info.Size)
	case d.last.Inside != d.Inside:
		return fmt.Errorf("the image was at %s in its file system, and is at %s", d.last.Inside, d.Inside)
	case !d.trusted:
		return fmt.Errorf("somebody may have written to %s since", d.Dest.LV.Spec())
	}
	return nil
}

// GiveUpBases is the plan that removes all bases, for a conversion that finds no room
// for another source beside them; empty if there is none.
func (c *Conversion) GiveUpBases() (step.Plan, error) {
	plan, err := c.removal(c.bases)
	if err == nil {
		c.bases = nil
	}
	return plan, err
}

// instead is what is done without a base.
const instead = "all that is in use is read"

// cannotTell says that the base is of no use, and why.
func (c *Conversion) cannotTell(disks []*Disk, b base, why error) {
	for _, d := range disks {
		c.rep.Infof("%s: cannot tell what changed by the base %s: %v: %s", d.VDev, b.name(), why, instead)
	}
}
