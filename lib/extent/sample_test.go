package extent

import (
	"testing"

	"pgregory.net/rapid"
)

// A sample is of the set, in as many chunks as were asked for at the most, and each
// byte has its chance.
func TestSample(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, _ := draw(t, "s")
		n, size := rapid.IntRange(0, 9).Draw(t, "n"), rapid.Int64Range(1, 9).Draw(t, "size")
		some := s.Sample(n, size)
		if !some.Subtract(s).Empty() {
			t.Fatalf("%v has more than %v", some, s)
		}
		if chunks := int(some.Align(size).Bytes() / size); chunks > n || n > 0 && !s.Empty() && chunks == 0 {
			t.Fatalf("%d chunks of %d", chunks, n)
		}
		// What a chunk has of the set is in it whole.
		if whole := some.Align(size).Intersect(s); n > 0 && whole.Bytes() > 0 && !whole.Equal(some) {
			t.Fatalf("%v, and its chunks hold %v", some, whole)
		}
	})
	if some := (Set{}).Sample(4, 1); !some.Empty() {
		t.Errorf("%v of nothing", some)
	}
	all := Of(Range{3, 2}, Range{7, 1})
	var seen Set
	for range 1000 {
		seen = seen.Union(all.Sample(1, 1))
	}
	if !seen.Equal(all) {
		t.Errorf("only %v of %v", seen, all)
	}
}
