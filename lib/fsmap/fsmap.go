// Package fsmap tells which bytes of a disk its filesystems use, so that a copy
// can leave the free ones out and make them zero in the destination.
//
// What is free is believed only where the filesystem is read with certainty:
// known features only, every checksum and every count right, the journal of an
// ext3 or ext4 that was in use replayed in memory, an xfs log that is empty.
// Everything else is used: all other filesystems, swap, partition tables, boot
// code, gaps, what lies behind the end of a filesystem. A Region says why.
//
// A guest wrote these bytes, so nothing in them is trusted: reads are bounded by
// the disk, loops and memory by the limits beside them.
//
// A map belongs to one instant: r must not change while it is mapped, nor until
// it is copied. Two maps of a disk that lives on differ in a way that no record
// of writes shows: a guest may write a block before the first instant and commit
// its allocation after it. Whoever left out the free blocks of the first map and
// then copies only what was written since must also copy what is used in the
// second map and was not in the first.
package fsmap

import (
	"errors"
	"fmt"
	"io"

	"xenlvm/lib/extent"
	"xenlvm/lib/units"
)

// Region is a part of the disk and what is known of it. The rest of the disk
// belongs to no region and is copied.
type Region struct {
	extent.Range        // where on the disk, in bytes
	Name         string `json:"name"`                   // "disk", or "partition 5"
	Type         string `json:"type"`                   // as blkid says it: ext4, xfs, swap, …; "" if nothing is known
	Free         int64  `json:"free_bytes"`             // in free blocks, 0 if the region is copied whole
	Whole        string `json:"copied_whole,omitempty"` // why, "" if its free blocks are left out
	Note         string `json:"note,omitempty"`         // what else was taken into account
}

// String is a line for people.
func (r Region) String() string {
	kind := r.Type
	if kind == "" {
		kind = "unknown"
	}
	head := fmt.Sprintf("%s (%s, %v): ", r.Name, kind, units.Bytes(r.Len))
	if r.Whole != "" {
		return head + "copied whole: " + r.Whole
	}
	if r.Note != "" {
		r.Note = ", " + r.Note
	}
	return fmt.Sprintf("%s%v in use%s", head, units.Bytes(r.Len-r.Free), r.Note)
}

// Used is the bytes of the disk r of size bytes that must be copied, with what
// was found on it in ascending order. Free ranges shorter than a block of
// blockcopy's digests are counted as used. The only errors are those of reading
// r: what cannot be understood is used.
func Used(r io.ReaderAt, size units.Bytes) (extent.Set, []Region, error) {
	d := disk{r, int64(size)}
	regions, free, err := d.read()
	if err != nil {
		return extent.Set{}, nil, err
	}
	return free.Complement(d.size), regions, nil
}

const (
	// minGap is the smallest free range that is left out: 64 KiB, as little as
	// a copy skips at all.
	minGap = 64 << 10
	// maxRanges bounds a set: from 64 GiB on the gaps grow with the disk.
	maxRanges = 1 << 20
)

func gapFor(size int64) int64 {
	gap := int64(minGap)
	for size/gap > maxRanges {
		gap *= 2
	}
	return gap
}

// doubt is why a filesystem cannot be read with certainty. It is told, not
// returned: every other error is one of reading the disk.
type doubt string

func (d doubt) Error() string { return string(d) }

func doubtf(format string, args ...any) error { return doubt(fmt.Sprintf(format, args...)) }

// disk is a disk, a partition or a filesystem on one, of size bytes.
type disk struct {
	r    io.ReaderAt
	size int64
}

// at reads n bytes at off. What leads out of the disk is a doubt.
func (d disk) at(off int64, n int) ([]byte, error) {
	if off < 0 || n < 0 || off > d.size-int64(n) {
		return nil, doubtf("it leads to byte %d, which is not within it", off)
	}
	b := make([]byte, n)
	got, err := d.r.ReadAt(b, off)
	switch {
	case got == n:
		return b, nil
	case err == nil || errors.Is(err, io.EOF):
		err = io.ErrUnexpectedEOF
	}
	return nil, fmt.Errorf("cannot read %d bytes at %d: %w", n, off, err)
}

// part is the length bytes from start.
func (d disk) part(start, length int64) disk {
	return disk{io.NewSectionReader(d.r, start, length), length}
}
