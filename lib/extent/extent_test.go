package extent

import (
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// world is the size of the bitmap that every operation is compared with.
const world = 256

type bitmap [world]bool

func draw(t *rapid.T, name string) (Set, bitmap) {
	var s Set
	var b bitmap
	for range rapid.IntRange(0, 12).Draw(t, name+" ranges") {
		off := rapid.Int64Range(0, world-1).Draw(t, name+" offset")
		n := rapid.Int64Range(0, min(40, world-off)).Draw(t, name+" length")
		s.Add(off, n)
		for i := range n {
			b[off+i] = true
		}
	}
	return s, b
}

// check fails unless s is exactly b, and sorted, disjoint and coalesced.
func check(t *rapid.T, what string, s Set, b bitmap) {
	t.Helper()
	var got bitmap
	prev := int64(-1)
	bytes := int64(0)
	for r := range s.All() {
		if r.Len <= 0 || r.Off <= prev {
			t.Fatalf("%s: ranges not sorted and apart: %v", what, s.r)
		}
		prev = r.End()
		bytes += r.Len
		for i := r.Off; i < r.End(); i++ {
			got[i] = true
		}
	}
	if got != b {
		t.Fatalf("%s: got %v", what, s.r)
	}
	if s.Bytes() != bytes || s.End() != max(prev, 0) || s.Empty() != (bytes == 0) {
		t.Fatalf("%s: Bytes %d End %d Empty %v of %v", what, s.Bytes(), s.End(), s.Empty(), s.r)
	}
	for i := range int64(world) {
		if s.Contains(i) != b[i] {
			t.Fatalf("%s: Contains(%d) is %v", what, i, s.Contains(i))
		}
	}
}

func each(f func(i int) bool) (b bitmap) {
	for i := range b {
		b[i] = f(i)
	}
	return b
}

func TestAgainstBitmap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, sb := draw(t, "s")
		u, ub := draw(t, "u")
		size := rapid.Int64Range(0, world).Draw(t, "size")
		n := rapid.SampledFrom([]int64{1, 2, 4, 8, 16}).Draw(t, "n")
		before, beforeU := s.Clone(), u.Clone()
		check(t, "add", s, sb)
		check(t, "union", s.Union(u), each(func(i int) bool { return sb[i] || ub[i] }))
		check(t, "intersect", s.Intersect(u), each(func(i int) bool { return sb[i] && ub[i] }))
		check(t, "subtract", s.Subtract(u), each(func(i int) bool { return sb[i] && !ub[i] }))
		check(t, "complement", s.Complement(size), each(func(i int) bool { return !sb[i] && int64(i) < size }))
		check(t, "clip", s.Clip(size), each(func(i int) bool { return sb[i] && int64(i) < size }))
		check(t, "align", s.Align(n), each(func(i int) bool {
			first := i - i%int(n)
			return slices.Contains(sb[first:first+int(n)], true)
		}))
		check(t, "close", s.Close(n), each(func(i int) bool {
			if sb[i] {
				return true
			}
			left := slices.Index(reversed(sb[:i]), true)
			right := slices.Index(sb[i:], true)
			return left >= 0 && right >= 0 && left+right < int(n)
		}))
		if !s.Equal(before) || !u.Equal(beforeU) {
			t.Fatal("an operation changed its operand")
		}
		if s.Equal(u) != (sb == ub) {
			t.Fatalf("Equal is %v", s.Equal(u))
		}
	})
}

func reversed(b []bool) []bool {
	b = slices.Clone(b)
	slices.Reverse(b)
	return b
}

func TestChunks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, sb := draw(t, "s")
		size := rapid.Int64Range(1, 64).Draw(t, "size")
		var again Set
		for r := range s.Chunks(size) {
			if r.Len <= 0 || r.Len > size || r.Off/size != (r.End()-1)/size {
				t.Fatalf("chunk %v crosses a multiple of %d", r, size)
			}
			again.Add(r.Off, r.Len)
		}
		check(t, "chunks", again, sb)
	})
}

func TestLimits(t *testing.T) {
	if got := Of(Range{math.MaxInt64 - 10, 5}).Align(4096); got.End() < math.MaxInt64-5 {
		t.Errorf("align at the upper end lost bytes: %v", got.r)
	}
	for _, r := range []Range{{-1, 1}, {0, -1}, {math.MaxInt64, 1}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("Add(%v) did not panic", r)
				}
			}()
			Of(r)
		}()
	}
	if (Range{4096, 512}).String() != "4096 512" {
		t.Error("String is not offset length")
	}
}
