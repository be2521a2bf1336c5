package changed

import (
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"xenlvm/lib/extent"
	"xenlvm/lib/fault"
)

// Cloned is which bytes of now may differ from base: two files of one file system, to
// neither of which anybody writes, such as two clones (FICLONE) of an image that were
// made one after the other.
//
// What lies in the same place in both at one moment is the same, whoever wrote it and
// however it came there: nothing has to be known of how the file system copies on
// write. So base must be in its places before and after now is mapped. It is not when
// the file system moves data (a balance of btrfs, xfs_fsr): then the error is one to try
// again after. The places of btrfs are no device's but its own, of all its devices
// together, and so good for this comparison, and for no other.
func Cloned(base, now *os.File) (extent.Set, error) {
	if err := inOneSpace(base, now); err != nil {
		return extent.Set{}, err
	}
	var maps [3]Map
	for i, f := range []*os.File{base, now, base} {
		var err error
		if maps[i], err = ReadMap(f); err != nil {
			return extent.Set{}, err
		}
	}
	for i, f := range []*os.File{base, now} {
		if !maps[i].Pending.Empty() {
			return extent.Set{}, fmt.Errorf("cannot compare %s with %s: somebody writes to %s", now.Name(), base.Name(), f.Name())
		}
	}
	if !slices.Equal(maps[0].Data, maps[2].Data) {
		return extent.Set{}, fmt.Errorf("cannot compare %s with %s: the file system is moving its blocks", now.Name(), base.Name())
	}
	return Between(maps[0], maps[1], extent.Set{}), nil
}

// inOneSpace refuses files whose places are not those of one space: of two file systems,
// two subvolumes, of which nobody can tell what they belong to, or two devices of an xfs.
func inOneSpace(base, now *os.File) error {
	var st [2]unix.Stat_t
	for i, f := range []*os.File{base, now} {
		var sys unix.Statfs_t
		if err := unix.Fstat(int(f.Fd()), &st[i]); err != nil {
			return fmt.Errorf("cannot look at %s: %w", f.Name(), err)
		}
		if err := unix.Fstatfs(int(f.Fd()), &sys); err != nil {
			return fmt.Errorf("cannot look at %s: %w", f.Name(), err)
		}
		switch int64(sys.Type) {
		case unix.BTRFS_SUPER_MAGIC:
		case unix.XFS_SUPER_MAGIC:
			if elsewhere, err := realtime(f); err != nil {
				return err
			} else if elsewhere {
				return fault.Refuse("cannot compare %s: %w: its data are on the realtime device", f.Name(), ErrNoMap)
			}
		default:
			return fault.Refuse("cannot compare %s: %w: its file system is neither xfs nor btrfs", f.Name(), ErrNoMap)
		}
	}
	switch {
	case st[0].Dev != st[1].Dev:
		return fault.Refuse("cannot compare %s with %s: they are not on one file system, or in two subvolumes", now.Name(), base.Name())
	case st[0].Ino == st[1].Ino:
		return fault.Refuse("cannot compare %s with itself", now.Name())
	}
	return nil
}
