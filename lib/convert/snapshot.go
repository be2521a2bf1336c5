package convert

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"

	"xenlvm/lib/lvm"
	"xenlvm/lib/run"
	"xenlvm/lib/snap"
	"xenlvm/lib/step"
)

// snapshot is one origin with the disks whose images lie on it.
type snapshot struct {
	origin lvm.LV
	lv     lvm.LV
	disks  []*Disk
	point  string
	work   int64 // bytes that reading its disks takes at most
	done   int64 // of them

	base  lvm.LV  // kept by the last pass
	based []*Disk // those of which it tells what changed; none: there is no base
	keep  bool    // as the base of the next pass
}

// image is where a disk's image is seen in its snapshot.
func (s *snapshot) image(d *Disk) string { return filepath.Join(s.point, d.Inside) }

// snapshots are the disks by the volumes that their images lie on.
func (c *Conversion) snapshots() []*snapshot {
	var snaps []*snapshot
	for _, d := range c.Disks {
		i := slices.IndexFunc(snaps, func(s *snapshot) bool { return s.origin.UUID == d.Origin.UUID })
		if i < 0 {
			i = len(snaps)
			snaps = append(snaps, &snapshot{origin: d.Origin, point: filepath.Join(c.dir(), d.Origin.VG+"-"+d.Origin.Name)})
		}
		s := snaps[i]
		s.disks = append(s.disks, d)
		s.work += d.Info.Size
		s.keep = s.keep || c.o.KeepBase && d.mappable()
	}
	return snaps
}

// planSnapshots makes one snapshot for each origin, mounts it, and finds out what
// changed since the base of the last pass, which nobody needs then.
func (c *Conversion) planSnapshots(ctx context.Context, plan *step.Plan) ([]*snapshot, error) {
	snaps := c.snapshots()
	drop, err := c.planBases(snaps)
	if err != nil {
		return nil, err
	}
	*plan = append(*plan, drop...)
	for _, s := range snaps {
		steps, err := c.planSnapshot(ctx, s)
		if err != nil {
			return nil, err
		}
		*plan = append(*plan, steps...)
	}
	return snaps, nil
}

func (c *Conversion) planSnapshot(ctx context.Context, s *snapshot) (step.Plan, error) {
	request := snap.Request{Origin: s.origin, Name: c.snapshotName(s), COW: c.o.SnapshotSize, Tags: []string{lvm.TagDomain(c.o.Domain)}}
	if s.keep {
		request.Tags = append(request.Tags, lvm.TagBase)
	}
	plan, lv, err := request.Plan(ctx, c.r)
	if err != nil {
		return nil, err
	}
	s.lv = lv
	// What is kept is removed by a failure alone.
	plan[0].Temporary = !s.keep
	if s.keep {
		plan = append(plan, step.Step{What: "find snapshot " + lv.Spec(), Do: func(ctx context.Context) error {
			made, found, err := lvm.Find(ctx, c.r, lv.VG, lv.Name)
			if err == nil && !found {
				err = fmt.Errorf("cannot find snapshot %s after creating it", lv.Spec())
			}
			s.lv = made
			return err
		}})
	}
	mount := snap.Mounting(lv.Path, s.disks[0].FSType, s.point)
	mount.Temporary = true
	plan = append(plan, mount)
	if len(s.based) == 0 {
		return plan, nil
	}
	steps, err := c.planCompare(s)
	return append(plan, steps...), err
}

// snapshotName is a name that no base has.
func (c *Conversion) snapshotName(s *snapshot) string {
	kind := "-snap"
	if s.keep {
		kind = "-base"
	}
	name := lvm.NameFor(s.origin.Name+kind, c.o.Domain)
	if s.base.Name == name {
		name = lvm.NameFor(s.origin.Name+kind+"2", c.o.Domain)
	}
	return name
}

// planKeep is the step that leaves a snapshot as the base of the next pass. It is
// taken back when the copies from it are not written down.
func (c *Conversion) planKeep(s *snapshot) step.Plan {
	if !s.keep {
		return nil
	}
	return step.Plan{{
		What: "keep snapshot " + s.lv.Spec() + " for the next pass",
		Do:   func(context.Context) error { return nil },
		Undo: func(ctx context.Context) error {
			_, err := c.r.Run(ctx, lvm.Remove(s.lv.Spec()))
			return err
		},
		UndoLine: run.Quote("lvsnap", "remove", s.lv.Spec()),
	}}
}
