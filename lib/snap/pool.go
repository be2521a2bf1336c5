package snap

import (
	"context"
	"errors"
	"fmt"
	"strings"

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
// that is full, every guest on it stops. The error is lvm.ErrNoRoom then.
func CheckPool(ctx context.Context, r run.Runner, vg, pool string, want units.Bytes) error {
	p, err := lvm.FindPool(ctx, r, vg, pool)
	if err != nil || want <= p.Room() {
		return err
	}
	err = fault.Refuse("cannot write up to %s to thin pool %s/%s: it has room for %s (%s)", want, vg, pool, p.Room(), p)
	if !p.MetadataLow() {
		err = fault.Hint(err, "or ask for a smaller snapshot (a busy guest fills the pool all the same)")
	}
	return lvm.NoRoom(makeRoom(err, vg+"/"+pool, p, want-p.Room()))
}

// makeRoom hints at how to get so much more room in a pool.
func makeRoom(err error, pool string, p lvm.Pool, more units.Bytes) error {
	if p.MetadataLow() {
		return fault.Hint(err, "lvextend --poolmetadatasize +%db %s", int64(p.Metadata.Size), pool)
	}
	more = (more + more/10).RoundUp(1 << 20)
	return fault.Hint(err, "lvextend --size +%db %s", int64(more), pool)
}

// WatchPool looks at the thin pool VG/POOL every second until the context ends. The
// error is lvm.ErrPoolFull when it is nearly full.
func WatchPool(ctx context.Context, pool string) error {
	return every(ctx, func() (bool, error) {
		_, err := poolUsage(pool)
		if err != nil {
			err = fmt.Errorf("cannot go on writing to %s: %w", pool, err)
		}
		return true, err
	})
}

// poolUsage asks the kernel how full the thin pool VG/POOL is. The error is
// lvm.ErrPoolFull when nothing more may be written to it.
func poolUsage(pool string) (lvm.Usage, error) {
	vg, name, _ := strings.Cut(pool, "/")
	status, err := dm.Status(lvm.PoolDMPath(vg, name))
	if err != nil { // that a pool in use is not there does not mean that it was removed
		return lvm.Usage{}, fmt.Errorf("cannot watch the thin pool %s: %v", pool, err)
	}
	p, err := lvm.ParsePool(status)
	return p.Data, checkFill(pool, p, err)
}

// checkFill judges what lvm.ParsePool said of a pool.
func checkFill(pool string, p lvm.Pool, err error) error {
	if err == nil && p.Room() == 0 {
		err = lvm.ErrPoolFull
	}
	if !errors.Is(err, lvm.ErrPoolFull) {
		return err
	}
	err = fmt.Errorf("%w: %s: %s; when it is full, every guest on it stops", err, pool, p)
	return makeRoom(err, pool, p, p.Data.Size/10)
}
