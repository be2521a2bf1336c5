package blockcopy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"xenlvm/lib/diskimg"
	"xenlvm/lib/extent"
)

// flat is a source that holds its bytes in memory.
type flat struct{ *bytes.Reader }

func (m flat) Data() (extent.Set, error) { return extent.Whole(m.Reader.Size()), nil }

// TestVerifyReadsNoHoles: the holes of a huge file cost nothing, and one in the
// place of data is a difference.
func TestVerifyReadsNoHoles(t *testing.T) {
	data := noise(3<<20, 1)
	dst := scratch(t, nil)
	if err := dst.Truncate(1 << 40); err != nil {
		t.Fatal(err)
	}
	_, sums, err := Copy(t.Context(), dst, flat{bytes.NewReader(data)}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if whole, err := diskimg.DataOf(dst, 1<<40); err != nil || whole.Bytes() > 4<<20 {
		t.Skipf("this filesystem does not report holes (%v)", err)
	}
	verify := func() error {
		ctx, cancel := context.WithCancelCause(t.Context())
		defer cancel(nil)
		return Verify(ctx, dst, sums, nil, Options{Progress: func(p Progress) {
			if p.Total > 4<<20 {
				cancel(fmt.Errorf("%d bytes are to be read", p.Total))
			}
		}})
	}
	if err := verify(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Fallocate(int(dst.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 1<<20, 1<<20); err != nil {
		t.Fatal(err)
	}
	var m *MismatchError
	if err := verify(); !errors.As(err, &m) || m.Offset != 1<<20 || m.Got != (Sum{}) {
		t.Errorf("a hole in the place of data: %v", err)
	}
}

// TestScanServesAsBefore changes one block of a source whose destination nobody
// remembers: after a scan, one block is written.
func TestScanServesAsBefore(t *testing.T) {
	data := make([]byte, 3<<20+777)
	for i := range data[:2<<20] {
		data[i] = byte(rand.Uint32())
	}
	dst, err := os.Create(filepath.Join(t.TempDir(), "dst"))
	if err != nil {
		t.Fatal(err)
	}
	defer dst.Close()
	if _, _, err := Copy(t.Context(), dst, flat{bytes.NewReader(data)}, Options{}); err != nil {
		t.Fatal(err)
	}
	sums, err := Scan(t.Context(), dst, int64(len(data)), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := Verify(t.Context(), dst, sums, nil, Options{}); err != nil {
		t.Errorf("what was scanned does not verify: %v", err)
	}
	data[1<<20+5] ^= 1
	stats, _, err := Copy(t.Context(), dst, flat{bytes.NewReader(data)}, Options{Before: sums})
	if err != nil {
		t.Fatal(err)
	}
	if stats.BytesWritten != minBlock {
		t.Errorf("wrote %d bytes for one changed byte; want one block of %d", stats.BytesWritten, minBlock)
	}
	got, err := io.ReadAll(io.NewSectionReader(dst, 0, int64(len(data))+1))
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("the destination differs from the source (%d bytes, %v)", len(got), err)
	}
	if _, err := Scan(t.Context(), dst, int64(len(data))+1, Options{}); err == nil {
		t.Error("more was scanned than is there")
	}
}

// TestDifferNamesTheChangedBlocks compares a source with digests of what it was.
func TestDifferNamesTheChangedBlocks(t *testing.T) {
	data := make([]byte, 2<<20+5)
	data[7], data[1<<20] = 1, 2
	dst, err := os.Create(filepath.Join(t.TempDir(), "dst"))
	if err != nil {
		t.Fatal(err)
	}
	defer dst.Close()
	_, sums, err := Copy(t.Context(), dst, flat{bytes.NewReader(data)}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	differ := func() string {
		s, err := Differ(t.Context(), flat{bytes.NewReader(data)}, sums, Options{})
		if err != nil {
			t.Fatal(err)
		}
		var all string
		for r := range s.All() {
			all += r.String() + ";"
		}
		return all
	}
	if got := differ(); got != "" {
		t.Errorf("an unchanged source differs in %s", got)
	}
	data[7], data[len(data)-1] = 0, 9 // a block became zero; the last, short one is new
	if got, want := differ(), "0 4096;2097152 5;"; got != want {
		t.Errorf("Differ = %s; want %s", got, want)
	}
}

// One byte anywhere, behind any sample, is data.
func TestZeros(t *testing.T) {
	for _, at := range []int64{-1, 0, 100, 3<<20 - 1, 5<<20 + 4097, 10<<20 - 1} {
		f := scratch(t, nil)
		if err := f.Truncate(10 << 20); err != nil {
			t.Fatal(err)
		}
		if at >= 0 {
			if _, err := f.WriteAt([]byte{1}, at); err != nil {
				t.Fatal(err)
			}
		}
		if zeros, err := Zeros(t.Context(), f, Options{}); err != nil || zeros != (at < 0) {
			t.Errorf("a byte at %d: zeros %v, %v", at, zeros, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if zeros, err := Zeros(ctx, scratch(t, noise(4096, 1)), Options{}); err == nil || zeros {
		t.Errorf("cancelled: zeros %v, %v", zeros, err)
	}
}
