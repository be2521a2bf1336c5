package blockcopy

import (
	"strings"
	"testing"

	"xenlvm/lib/extent"
	"xenlvm/lib/fault"
)

// A source that calls data a hole: the copy would lack it, and nothing but reading the
// holes shows that.
func TestLyingHoles(t *testing.T) {
	b := noise(12<<20, 1)
	clear(b[4<<20 : 8<<20])
	src := &image{b, extent.Whole(12 << 20).Subtract(extent.Of(extent.Range{Off: 4 << 20, Len: 4 << 20}))}
	if err := CheckHoles(src); err != nil {
		t.Errorf("true holes: %v", err)
	}
	b[6<<20+5] = 1
	// So many places are all of them.
	if err := checkHoles(src, 5000); fault.StatusOf(err) != fault.Refused || !strings.Contains(err.Error(), "a hole at 6291461, and there is data") {
		t.Errorf("%v", err)
	}
	copy(b[4<<20:8<<20], noise(4<<20, 2))
	if err := CheckHoles(src); err == nil {
		t.Error("no sample found it")
	}
	if err := CheckHoles(all(b)); err != nil {
		t.Errorf("no holes at all: %v", err)
	}
}
