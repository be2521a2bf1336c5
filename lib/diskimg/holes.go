package diskimg

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"xenlvm/lib/extent"
	"xenlvm/lib/fault"
)

// DataOf is what of the first size bytes of f is no hole. What is written but
// has no place on the disk yet was taken for a hole by more than one filesystem,
// so it is written out first. Block devices, and filesystems that cannot tell,
// are all data.
func DataOf(f *os.File, size int64) (extent.Set, error) {
	if err := f.Sync(); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EROFS) {
		return extent.Set{}, fmt.Errorf("cannot read %s: %w", f.Name(), fault.Reason(err))
	}
	fd := int(f.Fd())
	var set extent.Set
	for off := int64(0); off < size; {
		data, err := seek(fd, off, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break // only a hole is left
		}
		hole := size
		if err == nil {
			hole, err = seek(fd, data, unix.SEEK_HOLE)
		}
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
			return extent.Whole(size), nil
		}
		if err != nil {
			return extent.Set{}, fmt.Errorf("cannot find the holes of %s: %w", f.Name(), err)
		}
		data, hole = min(data, size), min(hole, size)
		set = bound(set, data, hole-data)
		off = hole
	}
	return set, nil
}

// seek goes on where a signal comes between.
func seek(fd int, off int64, whence int) (int64, error) {
	for {
		n, err := unix.Seek(fd, off, whence)
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// maxRanges bounds a data map to 4 MiB of memory.
const maxRanges = 1 << 18

// bound adds a range at the end of s, and when there are too many forgets the
// smallest holes: reading zeros costs time, never correctness.
func bound(s extent.Set, off, n int64) extent.Set {
	s.Add(off, n)
	for gap := int64(64 << 10); s.Len() > maxRanges; gap *= 2 {
		s = s.Close(gap)
	}
	return s
}
