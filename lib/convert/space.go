package convert

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"xenlvm/lib/fault"
	"xenlvm/lib/host"
	"xenlvm/lib/lvm"
	"xenlvm/lib/snap"
	"xenlvm/lib/units"
)

// digestsOf is how large a file of the digests of so many bytes becomes: 16 bytes and
// some bits for each block. There are at most a million blocks, until they have 8 MiB,
// from 8 TiB on. There are up to three such files: of the last pass, of this one, and
// what it has done so far.
func digestsOf(size units.Bytes) units.Bytes {
	return min(size/256, max(17<<20, size>>19*17/16))
}

// checkSpace refuses when the new volumes and the snapshots together do not fit
// their volume groups or thin pools, or the digests the file system of the journal.
// It notes the pools.
func (c *Conversion) checkSpace(ctx context.Context, snaps []*snapshot) error {
	need := map[string]units.Bytes{}
	groups := map[string]lvm.VG{}
	take := func(vg string, size units.Bytes) error {
		g, known := groups[vg]
		if !known {
			var found bool
			var err error
			if g, found, err = lvm.FindVG(ctx, c.r, vg); err != nil {
				return err
			} else if !found {
				return fault.Hint(fault.Refuse("cannot find volume group %s", vg), "vgs")
			}
			groups[vg] = g
		}
		if need[vg] += size.RoundUp(max(g.Extent, 1)); need[vg] > g.Free {
			return lvm.NoRoom(fault.Refuse("cannot find %s in volume group %s for new volumes and snapshots: only %s are free", need[vg], vg, g.Free))
		}
		return nil
	}
	var digests units.Bytes
	for _, d := range c.Disks {
		if d.Method != QEMU { // which keeps none
			digests += 3 * digestsOf(units.Bytes(d.Info.Size))
		}
		if !d.Dest.Exists {
			if err := take(d.Dest.LV.VG, units.Bytes(d.Info.Size)); err != nil {
				return err
			}
		}
	}
	for _, s := range snaps {
		if err := take(s.lv.VG, s.lv.COW); err != nil {
			return err
		}
	}
	pools := c.fromPools(snaps)
	c.pools = slices.Sorted(maps.Keys(pools))
	for pool, want := range pools {
		vg, name, _ := strings.Cut(pool, "/")
		if err := snap.CheckPool(ctx, c.r, vg, name, want); err != nil {
			return err
		}
	}
	return host.NeedSpace(ctx, existing(c.o.StateDir), digests+1<<20)
}

// fromPools is what the conversion may take from each thin pool VG/POOL: for
// snapshots, and for those parts of thin destinations that hold nothing yet.
func (c *Conversion) fromPools(snaps []*snapshot) map[string]units.Bytes {
	pools := map[string]units.Bytes{}
	for _, s := range snaps {
		if s.lv.Thin() {
			pools[s.lv.VG+"/"+s.lv.Pool] += snap.PoolShare(s.disks[0].Origin, c.o.SnapshotSize)
		}
	}
	for _, d := range c.Disks {
		if v := d.Dest.LV; v.Thin() {
			pools[v.VG+"/"+v.Pool] += v.Size - units.Bytes(float64(v.Size)*v.Used/100)
		}
	}
	return pools
}

// existing is dir, or the nearest directory above it that exists.
func existing(dir string) string {
	for {
		if _, err := os.Stat(dir); err == nil || dir == filepath.Dir(dir) {
			return dir
		}
		dir = filepath.Dir(dir)
	}
}
