package convert

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"xenlvm/lib/blkdev"
	"xenlvm/lib/fault"
	"xenlvm/lib/lvm"
	"xenlvm/lib/run"
	"xenlvm/lib/snap"
	"xenlvm/lib/step"
	"xenlvm/lib/units"
)

// snapshot is a snapshot of the volume whose file system has the images, mounted.
type snapshot struct {
	origin lvm.LV
	lv     lvm.LV
	fsType string
	point  string
}

// pointOf is where the snapshot of origin is mounted.
func (c *Conversion) pointOf(origin lvm.LV) string {
	return filepath.Join(c.dir(), origin.VG+"-"+origin.Name)
}

func (v *snapshot) kind() string { return "snapshot" }

func (v *snapshot) image(d *Disk) string { return filepath.Join(v.point, d.Inside) }

func (v *snapshot) look(d *Disk) error {
	info, err := os.Lstat(v.image(d))
	if err != nil {
		return err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); !ok || st.Ino != d.inode {
		return errReplaced(d)
	}
	d.Result.modified, d.Result.seen = info.ModTime(), time.Now()
	return nil
}

func errReplaced(d *Disk) error {
	return fmt.Errorf("cannot copy %s: it was replaced by another file meanwhile", d.Image)
}

// plan makes the snapshot and mounts it.
func (v *snapshot) plan(ctx context.Context, c *Conversion, s *source) (step.Plan, error) {
	spec := s.nameFor(func(kind string) string { return v.origin.VG + "/" + lvm.NameFor(v.origin.Name+kind, c.o.Domain) })
	request := snap.Request{Origin: v.origin, Name: strings.TrimPrefix(spec, v.origin.VG+"/"), COW: c.o.SnapshotSize, Tags: []string{lvm.TagDomain(c.o.Domain)}}
	if s.keep {
		request.Tags = append(request.Tags, lvm.TagBase)
	}
	plan, lv, err := request.Plan(ctx, c.r)
	if err != nil {
		return nil, err
	}
	v.lv = lv
	if s.keep {
		plan = append(plan, step.Step{What: "find snapshot " + lv.Spec(), Do: func(ctx context.Context) error {
			made, found, err := lvm.Find(ctx, c.r, lv.VG, lv.Name)
			if err == nil && !found {
				err = fmt.Errorf("cannot find snapshot %s after creating it", lv.Spec())
			}
			v.lv = made
			return err
		}})
	}
	mount := snap.Mounting(lv.Path, v.fsType, v.point)
	mount.Temporary = true
	return append(plan, mount), nil
}

func (v *snapshot) kept() base { return keptSnapshot{v.lv} }

func (v *snapshot) follows(b base) bool {
	kept, ok := b.(keptSnapshot)
	return ok && kept.VG == v.origin.VG && kept.Origin == v.origin.Name
}

func (v *snapshot) takes(o Options) space {
	if v.lv.Thin() {
		return space{pool: v.lv.VG + "/" + v.lv.Pool, size: snap.PoolShare(v.origin, o.SnapshotSize)}
	}
	return space{group: v.lv.VG, size: v.lv.COW}
}

func (v *snapshot) watch(ctx context.Context, c *Conversion) error {
	return snap.Watch(ctx, c.r, v.lv, c.o.Extend, func(u lvm.Usage, trouble error) {
		v.lv.COW = u.Size
		if trouble != nil {
			c.rep.Infof("%v", trouble)
		}
	})
}

// verdict asks once more, after the last byte was read, whether the snapshot was lost.
func (v *snapshot) verdict(s *source, err error) error {
	if _, lost := snap.Usage(v.lv); lost != nil && !errors.Is(lost, lvm.ErrPoolFull) {
		err = errors.Join(lost, err)
	}
	if errors.Is(err, lvm.ErrLost) {
		return v.tooSmall(s)
	}
	return err
}

// tooSmall says what size the snapshot should have had: it filled up while the
// part done was read, so the whole needs so much more. A quarter is added.
func (v *snapshot) tooSmall(s *source) error {
	if v.lv.Thin() {
		return fault.Hint(fmt.Errorf("cannot go on: the thin snapshot %s failed", v.lv.Spec()), "lvs -a %s; its pool may be full", v.lv.VG)
	}
	cow := v.lv.COW
	need := v.lv.Size
	if s.done > 0 && s.work > s.done {
		need = min(need, units.Bytes(float64(cow)*float64(s.work)/float64(s.done)*1.25))
	} else if s.done > 0 {
		need = min(need, cow*5/4)
	}
	err := fmt.Errorf("cannot go on: %w: its %s of COW space were full after %s of %s", lvm.ErrLost, cow, units.Bytes(s.done), units.Bytes(s.work))
	return fault.Hint(err, "--snapshot-size %db would have been enough at this rate of writes; or let it grow in time with --snapshot-extend", int64(need))
}

// keptSnapshot is a base that tells what was written to its origin since.
type keptSnapshot struct{ lvm.LV }

func (k keptSnapshot) id() string   { return k.UUID }
func (k keptSnapshot) name() string { return k.Spec() }

func (k keptSnapshot) delta() string {
	if k.Thin() {
		return byThinDelta
	}
	return byExceptions
}

func (k keptSnapshot) usable() error {
	if k.Invalid {
		return lvm.ErrLost
	}
	return nil
}

func (k keptSnapshot) clearance() (step.Plan, error) {
	return snap.Clearance(blkdev.Number{Major: k.Major, Minor: k.Minor}, k.Active)
}

func (k keptSnapshot) removal(r run.Runner) (step.Plan, error) { return snap.Removal(r, k.LV) }
