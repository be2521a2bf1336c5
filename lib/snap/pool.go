package snap

import (
	"context"
	"errors"
	"fmt"

	"xenlvm/lib/dm"
	"xenlvm/lib/fault"
	"xenlvm/lib/lvm"
	"xenlvm/lib/run"
	"xenlvm/lib/units"
)

// PoolShare is what a snapshot of a thin origin may take from its pool while it
// lives: it is asked for like the COW space of a thick one.
func PoolShare(origin lvm.LV, share units.Share) units.Bytes {
	return min(max(share.Of(origin.Size), 1), origin.Size)
}

// CheckPool refuses when so much more does not fit into a thin pool: with one
// that is full, every guest on it stops.
func CheckPool(ctx context.Context, r run.Runner, vg, pool string, want units.Bytes) error {
	p, err := lvm.FindPool(ctx, r, vg, pool)
	if err != nil || want <= p.Room() {
		return err
	}
	err = fault.Refuse("cannot write up to %s to thin pool %s/%s: it has room for %s (%s)", want, vg, pool, p.Room(), p)
	if !p.MetadataLow() {
		err = fault.Hint(err, "or ask for a smaller snapshot (a busy guest fills the pool all the same)")
	}
	return makeRoom(err, vg+"/"+pool, p, want-p.Room())
}

// makeRoom hints at how to get so much more room in a pool.
func makeRoom(err error, pool string, p lvm.Pool, more units.Bytes) error {
	if p.MetadataLow() {
		return fault.Hint(err, "lvextend --poolmetadatasize +%db %s", int64(p.Metadata.Size), pool)
	}
	more = (more + more/10).RoundUp(1 << 20)
	return fault.Hint(err, "lvextend --size +%db %s", int64(more), pool)
}

// poolUsage asks the kernel how full the pool of a thin snapshot is. The error
// is lvm.ErrPoolFull when the snapshot must go.
func poolUsage(v lvm.LV) (lvm.Usage, error) {
	status, err := dm.Status(lvm.PoolDMPath(v.VG, v.Pool))
	if err != nil { // the snapshot is there: that its pool is not does not mean that it was removed
		return lvm.Usage{}, fmt.Errorf("cannot watch the thin pool of %s: %v", v.Spec(), err)
	}
	p, err := lvm.ParsePool(status)
	return p.Data, checkFill(v, p, err)
}

// checkFill judges what lvm.ParsePool said of the pool of v.
func checkFill(v lvm.LV, p lvm.Pool, err error) error {
	if err == nil && p.Room() == 0 {
		err = lvm.ErrPoolFull
	}
	if !errors.Is(err, lvm.ErrPoolFull) {
		return err
	}
	pool := v.VG + "/" + v.Pool
	err = fmt.Errorf("cannot keep thin snapshot %s: %w: %s: %s; when it is full, every guest on it stops", v.Spec(), err, pool, p)
	return makeRoom(err, pool, p, p.Data.Size/10)
}
