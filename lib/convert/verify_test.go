package convert

import (
	"crypto/rand"
	"os"
	"path/filepath"
	"testing"

	"xenlvm/lib/blockcopy"
	"xenlvm/lib/extent"
	"xenlvm/lib/fault"
)

// Each way finds a byte that is wrong where it looks, and says where it looked.
func TestReadBack(t *testing.T) {
	const size = 64 << 20
	path := filepath.Join(t.TempDir(), "volume")
	content := make([]byte, size)
	_, _ = rand.Read(content)
	must(t, os.WriteFile(path, content, 0o600))
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	sums, err := blockcopy.Scan(t.Context(), f, size, blockcopy.Options{})
	must(t, err)
	written := extent.Of(extent.Range{Off: 40 << 20, Len: 4096})
	for _, c := range []struct {
		how     Verify
		written *extent.Set
		want    Verified
		finds   []int64 // bytes that are wrong
		misses  []int64
	}{
		{VerifyDefault, nil, VerifiedFull, []int64{0, 20 << 20, size - 1}, nil},
		{VerifyDefault, &written, VerifiedWritten, []int64{40<<20 + 7}, []int64{0, 20 << 20, size - 1}},
		{VerifyFull, &written, VerifiedFull, []int64{0, 20 << 20, 40 << 20}, nil},
		{VerifySample, &written, VerifiedSample, []int64{0, size - 1}, nil},
		{VerifyNone, nil, VerifiedNone, nil, []int64{0, 20 << 20}},
	} {
		check := func(at int64, want fault.Status) {
			t.Helper()
			if at >= 0 {
				content[at]++
				defer func() { content[at]--; put(t, f, content, at) }()
				put(t, f, content, at)
			}
			got, err := c.how.ReadBack(t.Context(), f, sums, c.written, blockcopy.Options{})
			if got != c.want || fault.StatusOf(err) != want {
				t.Errorf("--verify %q, byte %d is wrong: %q, %v; want %q, status %d", string(c.how), at, string(got), err, string(c.want), want)
			}
		}
		check(-1, fault.Done)
		for _, at := range c.finds {
			check(at, fault.Mismatch)
		}
		for _, at := range c.misses {
			check(at, fault.Done)
		}
		if c.want.String() == "" || c.how.Check() != nil {
			t.Errorf("--verify %q: %q", string(c.how), c.want)
		}
	}
	if err := Verify("all").Check(); fault.StatusOf(err) != fault.Usage {
		t.Errorf("--verify all: %v", err)
	}
}

// put writes the byte at off of content, and what is around it, to f.
func put(t *testing.T, f *os.File, content []byte, off int64) {
	t.Helper()
	page := content[off-off%4096:][:4096]
	_, err := f.WriteAt(page, off-off%4096)
	must(t, err)
}
