// Package snap is the life of one LVM snapshot: checked, created, watched while
// it is read, and removed with everything that stands on it; and that of a clone of
// one file.
package snap

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"xenlvm/lib/dm"
	"xenlvm/lib/fault"
	"xenlvm/lib/lvm"
	"xenlvm/lib/run"
	"xenlvm/lib/step"
	"xenlvm/lib/units"
)

// What the programs take when nothing is asked for.
const (
	DefaultCOW      = "10%ORIGIN" // COW space of a thick snapshot
	DefaultExtendAt = 70          // percent of it in use at which it is extended
)

// Request asks for a snapshot.
type Request struct {
	Origin   lvm.LV
	Name     string
	COW      units.Share // of its own, or what a thin one may take from its pool
	Tags     []string    // beside lvm.TagSnapshot
	Reuse    bool        // an existing snapshot will do, however old
	Replace  bool        // or is removed first, if it has all of Tags
	Writable bool
}

// Plan checks a request and returns the step that creates the snapshot, and the
// snapshot as it will be. One that is reused is returned with a nil plan.
func (q Request) Plan(ctx context.Context, r run.Runner) (plan step.Plan, snap lvm.LV, err error) {
	o := q.Origin
	snap = lvm.LV{VG: o.VG, Name: q.Name, Origin: o.Name, Size: o.Size, Path: "/dev/" + o.VG + "/" + q.Name, DMPath: lvm.DMPath(o.VG, q.Name)}
	if err := cmp.Or(lvm.CheckName(q.Name), lvm.CheckLength(o.VG, q.Name)); err != nil {
		return nil, snap, err
	}
	have, found, err := lvm.Find(ctx, r, o.VG, q.Name)
	if err != nil {
		return nil, snap, err
	}
	if found {
		if !have.Tagged(lvm.TagSnapshot) || have.Origin != o.Name {
			return nil, snap, fault.Refuse("cannot create snapshot %s: a volume of that name exists, and it is not a snapshot of %s made by us", snap.Spec(), o.Spec())
		}
		switch {
		case q.Reuse:
			return nil, have, nil
		case q.Replace && !slices.ContainsFunc(q.Tags, func(t string) bool { return !have.Tagged(t) }):
			if plan, err = Removal(r, have); err != nil {
				return nil, snap, err
			}
		default:
			return nil, snap, fault.Hint(fault.Refuse("cannot create snapshot %s: it exists", snap.Spec()), "lvsnap remove %s, if nobody needs it", snap.Spec())
		}
	}
	switch {
	case o.Origin != "" && !o.Thin():
		return nil, snap, fault.Refuse("cannot snapshot %s: it is itself a snapshot", o.Spec())
	case o.Type == "thin-pool":
		return nil, snap, fault.Refuse("cannot snapshot %s: it is a thin pool; name the volume in it", o.Spec())
	case !o.Active:
		return nil, snap, fault.Hint(fault.Refuse("cannot snapshot %s: it is not active", o.Spec()), "lvchange --activate y %s", o.Spec())
	}
	if o.Thin() {
		snap.Type, snap.Pool = "thin", o.Pool
		if err := CheckPool(ctx, r, o.VG, o.Pool, PoolShare(o, q.COW)); err != nil {
			return nil, snap, err
		}
	} else if snap.COW, err = cowSize(ctx, r, o, q.COW); err != nil {
		return nil, snap, err
	}
	tags := append([]string{lvm.TagSnapshot}, q.Tags...)
	what := "create snapshot " + snap.Spec()
	if snap.COW > 0 {
		what += " with " + snap.COW.String() + " of COW space"
	}
	s := step.Command(r, what, lvm.Snapshot(o, q.Name, q.Writable, snap.COW, tags...), lvm.Remove(snap.Spec()))
	create := s.Do
	s.Do = func(ctx context.Context) error {
		err := create(ctx)
		if err == nil {
			return nil
		}
		// lvcreate that was killed may have made it, and it would fill up.
		ctx = context.WithoutCancel(ctx)
		made, found, ferr := lvm.Find(ctx, r, o.VG, q.Name)
		if ferr == nil && found && made.Tagged(lvm.TagSnapshot) {
			_, ferr = r.Run(ctx, lvm.Remove(snap.Spec()))
		}
		if ferr != nil {
			err = fault.Hint(fault.With(fault.Left, errors.Join(err, ferr)), "lvs %s; dmsetup info; %s", o.VG, lvm.Remove(snap.Spec()).Line())
		}
		return err
	}
	return append(plan, s), snap, nil
}

// cowSize is the COW space in whole extents, checked against the free space of
// the volume group. No snapshot needs more than its origin and the table that
// says where each chunk is.
func cowSize(ctx context.Context, r run.Runner, o lvm.LV, share units.Share) (units.Bytes, error) {
	vg, found, err := lvm.FindVG(ctx, r, o.VG)
	if err != nil {
		return 0, err
	}
	if !found || vg.Extent == 0 {
		return 0, fault.Refuse("cannot find volume group %s", o.VG)
	}
	whole := o.Size + o.Size/100 + vg.Extent
	want := max(share.Of(o.Size), 1).RoundUp(vg.Extent)
	want = min(want, whole.RoundUp(vg.Extent))
	if want > vg.Free {
		return 0, fault.Hint(lvm.NoRoom(fault.Refuse("cannot snapshot %s with %s of COW space: volume group %s has only %s free", o.Spec(), want, vg.Name, vg.Free)),
			"add a physical volume to %s, or ask for a smaller snapshot (a busy guest fills it sooner)", vg.Name)
	}
	return want, nil
}

// Every is how often a snapshot is looked at. dmeventd's ten seconds are too
// many: a fast writer fills gigabytes in them.
const Every = time.Second

// Extension makes a thick snapshot larger before it overflows.
type Extension struct {
	At float64     // percent in use; 0: never extend
	By units.Share // of the origin
}

// Usage asks the kernel how full the snapshot is, or the data of a thin one's
// pool. The error is lvm.ErrLost when it has overflowed, lvm.ErrPoolFull when its
// pool is about to, and os.ErrNotExist when it is gone.
func Usage(v lvm.LV) (lvm.Usage, error) {
	status, err := dm.Status(v.DMPath)
	if err != nil {
		return lvm.Usage{}, err
	}
	u, err := lvm.ParseUsage(v, status)
	if err != nil || !v.Thin() {
		return u, err
	}
	if u, err = poolUsage(v.VG + "/" + v.Pool); err != nil {
		err = fmt.Errorf("cannot keep thin snapshot %s: %w", v.Spec(), err)
	}
	return u, err
}

// Watch looks at the snapshot every second until the context ends, and tells
// seen how full it is, and what went wrong with extending it. It returns an
// error that is lvm.ErrLost as soon as the snapshot has overflowed, lvm.ErrPoolFull
// when its thin pool is nearly full, and nil when it is removed.
func Watch(ctx context.Context, r run.Runner, v lvm.LV, x Extension, seen func(lvm.Usage, error)) error {
	return every(ctx, func() (bool, error) {
		u, err := Usage(v)
		switch {
		case ctx.Err() != nil:
			return false, context.Cause(ctx)
		case errors.Is(err, lvm.ErrLost):
			return false, fmt.Errorf("cannot use snapshot %s: %w", v.Spec(), err)
		case errors.Is(err, os.ErrNotExist), errors.Is(err, lvm.ErrNoSnapshot):
			return false, nil // removed, or just being
		case err != nil:
			return false, err
		}
		var trouble error
		if x.At > 0 && !v.Thin() && u.Percent() >= x.At {
			if _, trouble = r.Run(ctx, lvm.Extend(v.Spec(), max(x.By.Of(v.Size), 1))); trouble != nil {
				trouble = fmt.Errorf("cannot extend snapshot %s at %.0f %% of %s: %w", v.Spec(), u.Percent(), u.Size, trouble)
			}
		}
		seen(u, trouble)
		return true, nil
	})
}

// every looks each second until that finds an error or nothing to go on with, or
// the context ends.
func every(ctx context.Context, look func() (more bool, err error)) error {
	tick := time.NewTicker(Every)
	defer tick.Stop()
	for {
		if more, err := look(); err != nil || !more {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}
