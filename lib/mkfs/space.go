package mkfs

import (
	"fmt"

	"golang.org/x/sys/unix"

	"xenlvm/lib/fault"
	"xenlvm/lib/units"
)

// Space is what a mounted filesystem can hold, and what it holds.
type Space struct {
	Path       string // where it is mounted
	Total      units.Bytes
	Used       units.Bytes
	BlockSize  units.Bytes
	Inodes     int64 // 0: made when needed, out of Total
	UsedInodes int64
}

// xfsInode is the size of an XFS inode unless mkfs was told another one.
const xfsInode units.Bytes = 512

// SpaceOf asks the filesystem mounted at path.
func SpaceOf(path string) (Space, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return Space{}, fmt.Errorf("cannot ask for the space on %s: %w", path, err)
	}
	unit := units.Bytes(st.Frsize)
	if unit == 0 {
		unit = units.Bytes(st.Bsize)
	}
	s := Space{
		Path: path, BlockSize: unit, Total: unit * units.Bytes(st.Blocks), Used: unit * units.Bytes(st.Blocks-st.Bfree),
		Inodes: int64(st.Files), UsedInodes: int64(st.Files - st.Ffree),
	}
	if st.Type == unix.XFS_SUPER_MAGIC {
		s.Inodes = 0
	}
	return s, nil
}

// Fits refuses a copy of everything in src to dst when it has no room. What dst
// holds now does not count, because the copy deletes it. It is a check against
// the plainly impossible: files that share extents need more room than src says.
func Fits(src, dst Space) error {
	need := src.Used
	if dst.BlockSize > src.BlockSize {
		// Half a block is lost at the end of a file, on average.
		need += units.Bytes(src.UsedInodes) * (dst.BlockSize - src.BlockSize) / 2
	}
	if dst.Inodes == 0 && src.Inodes != 0 {
		need += units.Bytes(src.UsedInodes) * xfsInode
	}
	if need > dst.Total {
		return fault.Refuse("cannot copy %s to %s: it needs %v, and there is room for %v", src.Path, dst.Path, need, dst.Total)
	}
	if dst.Inodes != 0 && src.UsedInodes > dst.Inodes {
		return fault.Refuse("cannot copy %s to %s: it has %d inodes, and there is room for %d", src.Path, dst.Path, src.UsedInodes, dst.Inodes)
	}
	return nil
}
