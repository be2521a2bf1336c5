// Package changed finds what changed in an image file since an earlier moment
// without reading the file.
//
// A byte of a file is where it was and as it was if its place on the volume is
// the same at both moments and that place was not written in between. So two maps
// of the file (ReadMap), one of each moment, and what was written on the volume
// (Finding) tell what may have changed (Between). It is a superset, rounded to the
// chunks of the snapshot or the blocks of its thin pool: a block that was written
// with what it held counts as changed.
//
// It matters neither which inode the file has nor how it came to its place: a file
// that was deleted and made again lies elsewhere, or where it lies was written.
//
// The earlier moment is a snapshot of the volume, the later one the snapshot that
// is copied from, or the live file. What was written must be asked for last: what
// is written after the later map then only adds to it.
package changed

import (
	"slices"
	"sort"

	"xenlvm/lib/extent"
)

// Extent is a range of a file whose bytes lie in one piece, in the same order, at
// offset Physical of a volume.
type Extent struct {
	extent.Range
	Physical int64
}

// Map says where the data of a file lie. What is in no extent reads as zeros: holes,
// and space that is reserved but was never written.
type Map struct {
	Size int64    // of the file, in bytes
	Data []Extent // ascending, apart, and below Size

	// Pending was written while the map was made, and has no place yet.
	Pending extent.Set
}

// set is all data of the map.
func (m Map) set() extent.Set {
	s := m.Pending.Clone()
	for _, e := range m.Data {
		s.Add(e.Off, e.Len)
	}
	return s
}

// Between is which bytes of a file may differ between two moments, given its maps
// at both and what was written on the volume from the first to the second or
// later. Bytes by which it grew are all in it, those by which it shrank are not.
func Between(before, after Map, written extent.Set) extent.Set {
	maybe := before.set().Union(after.set())
	if after.Size > before.Size {
		maybe.Add(before.Size, after.Size-before.Size)
	}
	var stayed, rewritten extent.Set
	ranges := slices.Collect(written.All())
	for _, e := range unmoved(before.Data, after.Data) {
		stayed.Add(e.Off, e.Len)
		i := sort.Search(len(ranges), func(i int) bool { return ranges[i].End() > e.Physical })
		for ; i < len(ranges) && ranges[i].Off < e.Physical+e.Len; i++ {
			from, to := max(ranges[i].Off, e.Physical), min(ranges[i].End(), e.Physical+e.Len)
			rewritten.Add(e.Off+from-e.Physical, to-from)
		}
	}
	return maybe.Subtract(stayed).Union(rewritten).Clip(after.Size)
}

// unmoved is what lies in the same place in both.
func unmoved(a, b []Extent) []Extent {
	var same []Extent
	for i, j := 0, 0; i < len(a) && j < len(b); {
		off, end := max(a[i].Off, b[j].Off), min(a[i].End(), b[j].End())
		place := a[i].Physical - a[i].Off
		if off < end && place == b[j].Physical-b[j].Off {
			same = append(same, Extent{extent.Range{Off: off, Len: end - off}, place + off})
		}
		if a[i].End() <= b[j].End() {
			i++
		} else {
			j++
		}
	}
	return same
}
