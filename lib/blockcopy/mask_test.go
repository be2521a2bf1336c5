package blockcopy

import (
	"testing"

	"xenlvm/lib/extent"
)

// What is masked is neither read nor copied, and is made zero in a destination
// that held something else.
func TestMask(t *testing.T) {
	b := noise(4<<20, 1)
	keep := extent.Of(extent.Range{Off: 0, Len: 1 << 20}, extent.Range{Off: 3 << 20, Len: 1 << 20})
	dst := scratch(t, noise(4<<20, 2))
	stats, sums, err := Copy(t.Context(), dst, Mask(all(b), keep), Options{})
	if err != nil {
		t.Fatal(err)
	}
	clear(b[1<<20 : 3<<20])
	expect(t, dst, b)
	if stats.BytesRead != 2<<20 || stats.BytesWritten != 2<<20 {
		t.Errorf("read %d, wrote %d bytes", stats.BytesRead, stats.BytesWritten)
	}
	if err := Verify(t.Context(), dst, sums, nil, Options{}); err != nil {
		t.Error(err)
	}
}
