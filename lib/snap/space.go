package snap

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"xenlvm/lib/fault"
	"xenlvm/lib/lvm"
	"xenlvm/lib/units"
)

// ErrNearlyFull means that a file system has so little room that guests whose images lie
// on it are in danger: while a file has a clone, overwriting it takes new space.
var ErrNearlyFull = errors.New("the file system is nearly full")

// reserve is what a copy leaves free of a file system of this size: guests go on writing
// while the copy is stopped and its clones are removed.
func reserve(size units.Bytes) units.Bytes { return min(size/20, 10<<30) }

// Room is what clones may take from the file system that has dir.
func Room(dir string) (units.Bytes, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("cannot read the free space of %s: %w", dir, err)
	}
	block := units.Bytes(st.Bsize)
	return max(units.Bytes(st.Bavail)*block-reserve(units.Bytes(st.Blocks)*block), 0), nil
}

// CheckRoom refuses when clones may not take so much more from the file system that has
// dir.
func CheckRoom(dir string, want units.Bytes) error {
	room, err := Room(dir)
	if err != nil || want <= room {
		return err
	}
	return fault.Hint(lvm.NoRoom(fault.Refuse("cannot clone files in %s: their guests may overwrite %s meanwhile, which take new space there, and it has room for %s", dir, want, room)),
		"make room there, or ask for less with --snapshot-size (a busy guest takes it all the same)")
}

// WatchRoom looks at the file system that has dir every second until the context ends.
// The error is ErrNearlyFull when clones may take nothing more from it.
func WatchRoom(ctx context.Context, dir string) error {
	return every(ctx, func() (bool, error) {
		room, err := Room(dir)
		if err == nil && room == 0 {
			err = fault.Hint(fmt.Errorf("cannot keep clones in %s: %w; when it is full, the guests on it cannot write any more", dir, ErrNearlyFull), "make room there")
		}
		return true, err
	})
}
