// Package extent holds sets of byte ranges: which parts of a disk hold data,
// which changed, which were written. All offsets and lengths are in bytes.
package extent

import (
	"fmt"
	"iter"
	"math"
	"slices"
	"sort"
)

// Range is Len bytes from offset Off: [Off, Off+Len).
type Range struct {
	Off int64 `json:"offset"`
	Len int64 `json:"length"`
}

// End is the offset of the first byte after the range.
func (r Range) End() int64 { return r.Off + r.Len }

// String is "offset length", the form that the programs print and read.
func (r Range) String() string { return fmt.Sprintf("%d %d", r.Off, r.Len) }

// Set is a set of bytes, kept as ranges sorted by offset that neither overlap
// nor touch. The zero value is the empty set. Only Add changes a set; every
// other operation returns a new one. A copy of a Set must not be added to
// while the original is in use: they share storage, as slices do.
type Set struct {
	r []Range
}

// Of is the union of ranges, which may overlap and come in any order.
func Of(ranges ...Range) Set {
	var s Set
	for _, r := range ranges {
		s.Add(r.Off, r.Len)
	}
	return s
}

// Add puts length bytes from offset into the set. Adding in ascending order
// costs O(1) each. A negative offset or length, or an end beyond the largest
// int64, is a mistake of the caller and panics.
func (s *Set) Add(offset, length int64) {
	if offset < 0 || length < 0 || offset > math.MaxInt64-length {
		panic(fmt.Sprintf("extent: invalid range %d %d", offset, length))
	}
	if length == 0 {
		return
	}
	end := offset + length
	// i is the first range that the new one touches, j the first beyond it.
	i := len(s.r)
	if i > 0 && s.r[i-1].End() >= offset {
		i = sort.Search(len(s.r), func(k int) bool { return s.r[k].End() >= offset })
	}
	j := i
	for j < len(s.r) && s.r[j].Off <= end {
		offset, end = min(offset, s.r[j].Off), max(end, s.r[j].End())
		j++
	}
	if i == j {
		s.r = slices.Insert(s.r, i, Range{offset, end - offset})
		return
	}
	s.r[i] = Range{offset, end - offset}
	s.r = slices.Delete(s.r, i+1, j)
}

// Len is the number of ranges.
func (s Set) Len() int { return len(s.r) }

// Empty reports whether the set holds no byte.
func (s Set) Empty() bool { return len(s.r) == 0 }

// Bytes is the number of bytes in the set.
func (s Set) Bytes() int64 {
	var n int64
	for _, r := range s.r {
		n += r.Len
	}
	return n
}

// End is the offset after the last byte of the set, 0 for the empty set.
func (s Set) End() int64 {
	if len(s.r) == 0 {
		return 0
	}
	return s.r[len(s.r)-1].End()
}

// Contains reports whether the byte at offset is in the set.
func (s Set) Contains(offset int64) bool {
	i := sort.Search(len(s.r), func(k int) bool { return s.r[k].End() > offset })
	return i < len(s.r) && s.r[i].Off <= offset
}

// Equal reports whether both sets hold the same bytes.
func (s Set) Equal(t Set) bool { return slices.Equal(s.r, t.r) }

// Clone is a copy that shares nothing with s.
func (s Set) Clone() Set { return Set{slices.Clone(s.r)} }

// All yields the ranges in ascending order.
func (s Set) All() iter.Seq[Range] { return slices.Values(s.r) }

// Chunks yields the set in ascending pieces that never cross a multiple of
// size, so that each piece fits one aligned buffer of that size.
func (s Set) Chunks(size int64) iter.Seq[Range] {
	return func(yield func(Range) bool) {
		for _, r := range s.r {
			for off := r.Off; off < r.End(); {
				n := min(size-off%size, r.End()-off)
				if !yield(Range{off, n}) {
					return
				}
				off += n
			}
		}
	}
}
