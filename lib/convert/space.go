package convert

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

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

// checkSpace refuses when the new volumes and the sources together do not fit their
// volume groups, thin pools or file systems, or the digests the file system of the
// journal. It notes the pools, and the file systems of clones.
func (c *Conversion) checkSpace(ctx context.Context, sources []*source) error {
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
	for _, s := range sources {
		if sp := s.takes(c.o); sp.group != "" {
			if err := take(sp.group, sp.size); err != nil {
				return err
			}
		}
	}
	if err := c.checkDirs(sources); err != nil {
		return err
	}
	pools := c.fromPools(sources)
	c.pools = slices.Sorted(maps.Keys(pools))
	for pool, want := range pools {
		vg, name, _ := strings.Cut(pool, "/")
		if err := snap.CheckPool(ctx, c.r, vg, name, want); err != nil {
			return err
		}
	}
	return host.NeedSpace(ctx, existing(c.o.StateDir), digests+1<<20)
}

// checkDirs refuses when clones together do not fit their file systems, of which it
// notes a directory each.
func (c *Conversion) checkDirs(sources []*source) error {
	want := map[uint64]units.Bytes{}
	dirs := map[uint64]string{}
	for _, s := range sources {
		sp := s.takes(c.o)
		if sp.dir == "" {
			continue
		}
		dev, err := deviceOf(sp.dir)
		if err != nil {
			return err
		}
		want[dev] += sp.size
		dirs[dev] = sp.dir
	}
	c.dirs = slices.Sorted(maps.Values(dirs))
	for dev, dir := range dirs {
		if err := snap.CheckRoom(dir, want[dev]); err != nil {
			return err
		}
	}
	return nil
}

// checkKept gives up keeping what may fill its file system before the next pass: nobody
// watches it then.
func (c *Conversion) checkKept(sources []*source) error {
	want := map[uint64]units.Bytes{}
	for _, s := range sources {
		sp := s.takes(c.o)
		if !s.keep || sp.dir == "" {
			continue
		}
		dev, err := deviceOf(sp.dir)
		if err != nil {
			return err
		}
		room, err := snap.Room(sp.dir)
		if err != nil {
			return err
		}
		if want[dev] += sp.most; want[dev] > room {
			s.keep = false
			want[dev] -= sp.most
			c.rep.Infof("%s: the %s is not kept as a base: what the domain overwrites until the next pass could take %s in %s, which has room for %s",
				s.disks[0].VDev, s.kind(), sp.most, sp.dir, room)
		}
	}
	return nil
}

// deviceOf is the number of the file system that has dir.
func deviceOf(dir string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return 0, fmt.Errorf("cannot look at %s: %w", dir, err)
	}
	return st.Dev, nil
}

// fromPools is what the conversion may take from each thin pool VG/POOL: for
// snapshots, and for those parts of thin destinations that hold nothing yet.
func (c *Conversion) fromPools(sources []*source) map[string]units.Bytes {
	pools := map[string]units.Bytes{}
	for _, s := range sources {
		if sp := s.takes(c.o); sp.pool != "" {
			pools[sp.pool] += sp.size
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
