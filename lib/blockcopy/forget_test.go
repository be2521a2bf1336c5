package blockcopy

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"xenlvm/lib/extent"
)

// Blocks that are forgotten are written, also where the destination was said to have
// them; all others stay as they are.
func TestForget(t *testing.T) {
	const block, blocks = 4096, 8
	size := int64(blocks * block)
	before := bytes.Repeat([]byte("a"), int(size))
	copy(before[5*block:], make([]byte, block))
	path := filepath.Join(t.TempDir(), "dst")
	if err := os.WriteFile(path, before, 0o600); err != nil {
		t.Fatal(err)
	}
	dst, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer dst.Close()
	sums, err := Scan(t.Context(), dst, size, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if want := extent.Of(extent.Range{Off: 0, Len: 5 * block}, extent.Range{Off: 6 * block, Len: 2 * block}); !sums.Data().Equal(want) {
		t.Errorf("Data = %v, want %v", sums.Data(), want)
	}

	// Of the source, blocks 1 to 3 and 7 differ; 3 is not told of, and 2 is damaged in
	// the destination.
	src := bytes.Clone(before)
	copy(src[block:], bytes.Repeat([]byte("b"), block))
	copy(src[3*block:], bytes.Repeat([]byte("c"), block))
	copy(src[7*block:], make([]byte, block))
	if _, err := dst.WriteAt([]byte("damaged"), 2*block); err != nil {
		t.Fatal(err)
	}
	changed := extent.Of(extent.Range{Off: block + 100, Len: block}, extent.Range{Off: 7 * block, Len: 3 * block})
	stats, now, err := Copy(t.Context(), dst, flat{bytes.NewReader(src)}, Options{Before: sums.Forget(changed), Only: &extent.Set{}})
	if err != nil {
		t.Fatal(err)
	}
	if stats.BytesRead != 3*block || stats.BytesWritten != 2*block || stats.BytesZeroed != block {
		t.Errorf("read %d, wrote %d, zeroed %d", stats.BytesRead, stats.BytesWritten, stats.BytesZeroed)
	}
	want := bytes.Clone(src)
	copy(want[3*block:], before[3*block:4*block])
	got, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("not as wanted, %v", err)
	}
	if err := Verify(t.Context(), dst, now, nil, Options{}); err != nil {
		t.Error(err)
	}
	if unknown := sums.Forget(changed).Unknown().Bytes(); unknown != 3*block || !sums.Unknown().Empty() {
		t.Errorf("%d bytes are unknown, and %v of what was forgotten from", unknown, sums.Unknown())
	}
}
