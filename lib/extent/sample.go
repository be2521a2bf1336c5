package extent

import (
	"math/rand/v2"
	"slices"
)

// Sample is the part of s in the aligned chunks of size bytes around n random bytes of
// it, which nobody who writes the data can foresee.
func (s Set) Sample(n int, size int64) Set {
	var some Set
	total := s.Bytes()
	if total == 0 {
		return some
	}
	at := make([]int64, n)
	for i := range at {
		at[i] = rand.Int64N(total)
	}
	slices.Sort(at)
	passed := int64(0)
	for r := range s.All() {
		for ; len(at) > 0 && at[0] < passed+r.Len; at = at[1:] {
			off := r.Off + at[0] - passed
			some.Add(off-off%size, size)
		}
		passed += r.Len
	}
	return some.Intersect(s)
}
