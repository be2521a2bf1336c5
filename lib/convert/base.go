package convert

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"xenlvm/lib/blkdev"
	"xenlvm/lib/changed"
	"xenlvm/lib/diskimg"
	"xenlvm/lib/extent"
	"xenlvm/lib/fault"
	"xenlvm/lib/lvm"
	"xenlvm/lib/mnt"
	"xenlvm/lib/run"
	"xenlvm/lib/snap"
	"xenlvm/lib/step"
)

// A base is the snapshot that a pass copied from, kept for the next one, which then
// need look only at what was written since. It belongs to the digests of the same
// pass: without them, or when anybody may have written to the destination since, it
// says nothing. So nothing depends on it: one that overflowed, or is gone, only means
// that the image is read.

// How what changed was found: the Delta of a Result.
const (
	byExceptions  = "thick snapshot's exception table"
	byThinDelta   = "thin pool's metadata"
	byDigests     = "digests"
	byDestination = "digests of the destination, which was read for them"
	byCheckpoint  = "digests of the pass that was killed"
	byFiles       = "files"
)

// deltaBy is how a base tells what changed.
func deltaBy(base lvm.LV) string {
	if base.Thin() {
		return byThinDelta
	}
	return byExceptions
}

// mappable says whether a change of the volume tells what changed in the disk: not in
// one whose format has its own order of blocks, nor in single files.
func (d *Disk) mappable() bool { return d.Method == Blocks && d.Format == string(diskimg.Raw) }

// planBases gives each snapshot the base that the last pass kept for its disks, and
// is the plan that removes those that none can use.
func (c *Conversion) planBases(snaps []*snapshot) (step.Plan, error) {
	named := map[string]bool{}
	var unused []lvm.LV
	for _, base := range c.bases {
		named[base.UUID] = true
		if !c.useBase(base, snaps) {
			unused = append(unused, base)
		}
	}
	for _, d := range c.Disks {
		if d.last != nil && d.last.Base != "" && !named[d.last.Base] {
			c.rep.Infof("%s: the base of its last copy is gone: %s", d.VDev, instead)
		}
	}
	return c.removal(unused)
}

// useBase says whether a disk on one of the snapshots can use the base.
func (c *Conversion) useBase(base lvm.LV, snaps []*snapshot) bool {
	used := false
	for _, s := range snaps {
		if base.VG != s.origin.VG || base.Origin != s.origin.Name {
			continue
		}
		for _, d := range s.disks {
			if d.last == nil || d.last.Base != base.UUID {
				continue
			}
			if err := d.basedOn(base); err != nil {
				c.cannotTell([]*Disk{d}, base, err)
				continue
			}
			s.base, s.based, used = base, append(s.based, d), true
		}
	}
	return used
}

// removal is the plan that removes snapshots.
func (c *Conversion) removal(all []lvm.LV) (step.Plan, error) {
	var plan step.Plan
	for _, v := range all {
		steps, err := snap.Removal(c.r, v)
		if err != nil {
			return nil, err
		}
		plan = append(plan, steps...)
	}
	return plan, nil
}

// basedOn says why the base, which the last copy of d names, cannot be used.
func (d *Disk) basedOn(base lvm.LV) error {
	switch {
	case base.Invalid:
		return lvm.ErrLost
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
// for another snapshot beside them; empty if there is none.
func (c *Conversion) GiveUpBases() (step.Plan, error) {
	plan, err := c.removal(c.bases)
	if err == nil {
		c.bases = nil
	}
	return plan, err
}

// planCompare finds out what changed since the base of s, and removes it: it slows
// down all that is written to its origin.
func (c *Conversion) planCompare(s *snapshot) (step.Plan, error) {
	removal, err := snap.Removal(c.r, s.base)
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, d := range s.based {
		lines = append(lines, run.Quote("lvsnap", "changed", "--file", d.Image, s.base.Spec()))
	}
	return append(step.Plan{{
		What: "find what changed since " + s.base.Spec(),
		Line: strings.Join(lines, "\n"),
		Do:   func(ctx context.Context) error { return c.compare(ctx, s) },
	}}, removal...), nil
}

// compare notes what of each image may have changed since the base of s. Where that
// cannot be told, the next way is taken.
func (c *Conversion) compare(ctx context.Context, s *snapshot) (err error) {
	m := mnt.Mount{
		Device: s.base.Path, Point: filepath.Join(c.dir(), "base-"+s.base.VG+"-"+s.base.Name),
		Type: s.disks[0].FSType, Data: mnt.ReadOnly(s.disks[0].FSType),
	}
	if err := m.Do(); err != nil {
		c.cannotTell(s.based, s.base, err)
		return nil
	}
	defer func() { err = errors.Join(err, m.Undo()) }()
	maps, err := c.mapBoth(s, m.Point)
	if err != nil {
		return err
	}
	var written extent.Set // asked for last: what is written after the later map only adds to it
	find, err := changed.Finding(c.r, s.base, s.origin, &written)
	if err == nil {
		err = find.Do(ctx)
	}
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case fault.StatusOf(err) == fault.Left:
		return err
	case err != nil:
		c.cannotTell(s.based, s.base, err)
		return nil
	}
	for d, m := range maps {
		set := changed.Between(m.before, m.after, written)
		d.changed = &set
	}
	return nil
}

// twoMaps are those of an image in the base and in the snapshot.
type twoMaps struct{ before, after changed.Map }

// mapBoth maps the images on s, of which those in the base are below dir.
func (c *Conversion) mapBoth(s *snapshot, dir string) (map[*Disk]twoMaps, error) {
	now, err := blkdev.Stat(s.lv.Path)
	if err != nil {
		return nil, err
	}
	maps := map[*Disk]twoMaps{}
	for _, d := range s.based {
		before, berr := changed.MapOf(filepath.Join(dir, d.Inside), blkdev.Number{Major: s.base.Major, Minor: s.base.Minor})
		after, aerr := changed.MapOf(s.image(d), now.Number)
		if err := errors.Join(berr, aerr); err != nil {
			c.cannotTell([]*Disk{d}, s.base, err)
			continue
		}
		maps[d] = twoMaps{before, after}
	}
	return maps, nil
}

// instead is what is done without a base.
const instead = "all that is in use is read"

// cannotTell says that the base is of no use, and why.
func (c *Conversion) cannotTell(disks []*Disk, base lvm.LV, why error) {
	for _, d := range disks {
		c.rep.Infof("%s: cannot tell what changed by the base %s: %v: %s", d.VDev, base.Spec(), why, instead)
	}
}
