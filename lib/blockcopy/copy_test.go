package blockcopy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"xenlvm/lib/extent"
)

// A block of zeros but for its last byte is data. (bdsync once took such a
// block for zeros.)
func TestLastByteOfBlock(t *testing.T) {
	for _, block := range []int{4096, 65536, 1 << 20} {
		b := make([]byte, 3*block)
		b[2*block-1] = 1
		dst := scratch(t, noise(len(b), 1))
		copyAll(t, dst, b, nil)
		expect(t, dst, b)

		dst = scratch(t, nil)
		sums := copyAll(t, dst, make([]byte, len(b)), nil)
		copyAll(t, dst, b, sums)
		expect(t, dst, b)
	}
}

func copyAll(t *testing.T, dst *os.File, b []byte, before *Digests) *Digests {
	t.Helper()
	_, sums, err := Copy(context.Background(), dst, all(b), Options{Before: before})
	if err != nil {
		t.Fatal(err)
	}
	return sums
}

// Every fallback must do what the call it replaces does: buffered writes for
// direct ones, written zeros for punched holes.
func TestFallbacks(t *testing.T) {
	src := all(noise(3*chunkSize+1234, 3))
	clear(src.b[100000:900000])
	clear(src.b[2*chunkSize:])
	src.data = extent.Of(extent.Range{Off: 0, Len: 2 * chunkSize})
	for _, c := range []struct {
		name               string
		buffered, slowZero bool
	}{{"none", false, false}, {"buffered", true, false}, {"slow zeros", false, true}, {"both", true, true}} {
		t.Run(c.name, func(t *testing.T) {
			dst := scratch(t, noise(5*chunkSize+77, 4))
			cp, err := newCopier(dst, src, Options{BlockSize: 4096})
			if err != nil {
				t.Fatal(err)
			}
			defer cp.dst.close()
			cp.dst.buffered.Store(c.buffered)
			cp.dst.slowZero.Store(c.slowZero)
			if err := cp.run(context.Background()); err != nil {
				t.Fatal(err)
			}
			expect(t, dst, src.b)
			v := func() error { return Verify(context.Background(), dst, cp.sums, nil, Options{}) }
			if err := v(); err != nil {
				t.Error(err)
			}
		})
	}
}

// Many separate zero blocks are flushed while the copy runs.
func TestManyZeroRanges(t *testing.T) {
	b := noise(9<<20, 5)
	for off := 0; off < len(b); off += 8192 {
		clear(b[off : off+4096])
	}
	dst := scratch(t, noise(len(b), 6))
	st, _, err := Copy(context.Background(), dst, all(b), Options{BlockSize: 4096})
	if err != nil {
		t.Fatal(err)
	}
	expect(t, dst, b)
	if 2*st.BytesZeroed != 9<<20 || 2*st.BytesWritten != 9<<20 || st.BytesRead != 9<<20 {
		t.Errorf("%+v", st)
	}
}

// faulty fails to read the byte at bad.
type faulty struct {
	*image
	bad   int64
	err   error
	reads atomic.Int64
}

func (f *faulty) ReadAt(p []byte, off int64) (int, error) {
	f.reads.Add(1)
	if off <= f.bad && f.bad < off+int64(len(p)) {
		n, _ := f.image.ReadAt(p[:f.bad-off], off)
		return n, f.err
	}
	return f.image.ReadAt(p, off)
}

func TestReadErrors(t *testing.T) {
	b := noise(5<<20, 8)
	for _, c := range []struct {
		name, message string
		bad           int64
		err           error
	}{
		{"bad sector", "cannot read source at 2102152: input/output error", 2<<20 + 5000, unix.EIO},
		{"source shrank", "cannot read source at 4194304: it ends at 4200000: unexpected EOF", 4200000, io.EOF},
	} {
		t.Run(c.name, func(t *testing.T) {
			src := &faulty{image: all(b), bad: c.bad, err: c.err}
			_, sums, err := Copy(context.Background(), scratch(t, nil), src, Options{})
			if err == nil || err.Error() != c.message || sums != nil {
				t.Errorf("%v, digests %v", err, sums != nil)
			}
			if c.err == unix.EIO && !errors.Is(err, unix.EIO) {
				t.Error("the cause is lost")
			}
		})
	}
}

func TestCancel(t *testing.T) {
	cause := errors.New("the operator pressed ^C")
	src := &faulty{image: all(noise(64<<20, 9)), bad: -1}
	ctx, cancel := context.WithCancelCause(context.Background())
	st, sums, err := Copy(ctx, scratch(t, nil), src, Options{Workers: 2, Progress: func(p Progress) {
		if p.Read >= 4<<20 {
			cancel(cause)
		}
	}})
	if err != cause || sums != nil {
		t.Errorf("%v", err)
	}
	// 4 MiB, and what both workers had under way.
	if n := src.reads.Load(); n > 6 || st.BytesRead > 16<<20 {
		t.Errorf("%d reads, %d bytes after the cancel", n, st.BytesRead)
	}
	if _, _, err := Copy(ctx, scratch(t, nil), src, Options{}); err != cause {
		t.Errorf("cancelled before: %v", err)
	}
	if err := Verify(ctx, scratch(t, noise(4096, 1)), newDigests(4096, 4096), nil, Options{}); err != cause {
		t.Errorf("verify: %v", err)
	}
}

// The rate holds requests back: the second one could not start before the
// deadline, and no time is spent waiting for it.
func TestRate(t *testing.T) {
	src := &faulty{image: all(noise(8<<20, 9)), bad: -1}
	ctx, cancel := context.WithTimeout(context.Background(), 1<<40)
	defer cancel()
	_, _, err := Copy(ctx, scratch(t, nil), src, Options{BytesPerSecond: 1, Workers: 1})
	if !errors.Is(err, context.DeadlineExceeded) || src.reads.Load() != 1 {
		t.Errorf("%v after %d reads", err, src.reads.Load())
	}
}

func TestProgress(t *testing.T) {
	b := noise(10<<20+4096, 2)
	clear(b[1<<20 : 2<<20])
	src := &image{b, extent.Of(extent.Range{Off: 0, Len: 4 << 20}, extent.Range{Off: 6 << 20, Len: 4<<20 + 4096})}
	clear(b[4<<20 : 6<<20])
	var last Progress
	st, sums, err := Copy(context.Background(), scratch(t, nil), src, Options{Progress: func(p Progress) {
		if p.Read < last.Read || p.Written < last.Written || p.Zeroed < last.Zeroed {
			t.Errorf("backwards: %+v after %+v", p, last)
		}
		last = p
	}})
	if err != nil {
		t.Fatal(err)
	}
	if want := (Progress{Total: 8<<20 + 4096, Read: 8<<20 + 4096, Written: 7<<20 + 4096, Zeroed: 3 << 20}); last != want {
		t.Errorf("%+v, want %+v", last, want)
	}
	if st.BytesRead != last.Read || st.BytesWritten != last.Written || st.BytesZeroed != last.Zeroed || st.Elapsed <= 0 {
		t.Errorf("%+v", st)
	}
	if sums.size != src.Size() || sums.block != 4096 {
		t.Errorf("digests of %d bytes in %d", sums.size, sums.block)
	}
}

func TestRefusals(t *testing.T) {
	ctx := context.Background()
	src := all(noise(10000, 1))
	sums := newDigests(10000, 4096)
	some := extent.Whole(10)
	for _, c := range []struct {
		name, reason string
		o            Options
		src          Source
	}{
		{"only without before", "without the digests", Options{Only: &some}, src},
		{"block size changed", "block size 8192, but 4096", Options{Before: sums, BlockSize: 8192}, src},
		{"odd block size", "not a power of two", Options{BlockSize: 5000}, src},
		{"large block size", "not a power of two", Options{BlockSize: 16 << 20}, src},
	} {
		dst := scratch(t, []byte("kept"))
		if _, _, err := Copy(ctx, dst, c.src, c.o); err == nil || !strings.Contains(err.Error(), c.reason) {
			t.Errorf("%s: %v", c.name, err)
		}
		if string(content(t, dst)) != "kept" {
			t.Errorf("%s: the destination was touched", c.name)
		}
	}
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if _, _, err := Copy(ctx, null, src, Options{}); err == nil || !strings.Contains(err.Error(), "neither a regular file nor a block device") {
		t.Errorf("/dev/null: %v", err)
	}
	if err := Verify(ctx, scratch(t, []byte("short")), sums, nil, Options{}); err == nil || !strings.Contains(err.Error(), "less than") {
		t.Errorf("short destination: %v", err)
	}
}

// A destination that cannot be written is an error that names the offset.
func TestWriteErrors(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dst")
	if err := os.WriteFile(path, make([]byte, 1<<20), 0o400); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cp, err := newCopier(f, all(noise(1<<20, 1)), Options{KnownZero: true})
	if err != nil {
		t.Fatal(err)
	}
	defer cp.dst.close()
	cp.dst.buffered.Store(true) // root may reopen what it may not write
	if err := cp.run(context.Background()); err == nil || !strings.HasPrefix(err.Error(), "cannot write destination at 0: ") {
		t.Errorf("%v", err)
	}
	cp.dst.slowZero.Store(true)
	if err := cp.dst.makeZero(extent.Range{Off: 65536, Len: 4096}); err == nil || !strings.HasPrefix(err.Error(), "cannot write destination at 65536: ") {
		t.Errorf("%v", err)
	}
}

// An empty source is a destination of zeros.
func TestEmptySource(t *testing.T) {
	dst := scratch(t, noise(10000, 1))
	sums := copyAll(t, dst, nil, nil)
	if !bytes.Equal(content(t, dst), make([]byte, 10000)) {
		t.Error("not zeroed")
	}
	if err := Verify(context.Background(), dst, sums, nil, Options{}); err != nil {
		t.Error(err)
	}
}

// A copy whose digests are lost goes on from a scan: only what is missing is
// written, and the rest of the destination is zeroed all the same.
func TestScan(t *testing.T) {
	ctx := context.Background()
	b := noise(4<<20+777, 1)
	clear(b[1<<20 : 2<<20])
	dst := scratch(t, append(bytes.Clone(b), noise(100000, 2)...))
	flip(t, dst, 5)
	flip(t, dst, 1<<20+5)
	flip(t, dst, 4<<20+776)
	sums, err := Scan(ctx, dst, int64(len(b)), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if sums, err = ReadDigests(bytes.NewReader(marshal(t, sums))); err != nil {
		t.Fatal(err)
	}
	st, after, err := Copy(ctx, dst, all(b), Options{Before: sums})
	if err != nil {
		t.Fatal(err)
	}
	expect(t, dst, b)
	if st.BytesWritten != 4096+777 || st.BytesZeroed != 4096+100000 {
		t.Errorf("%+v", st)
	}
	if err := Verify(ctx, dst, after, nil, Options{}); err != nil {
		t.Error(err)
	}
	if st, _, err = Copy(ctx, dst, all(b), Options{Before: after}); err != nil || !st.Written.Empty() {
		t.Errorf("again: %+v, %v", st, err)
	}
	if _, err := Scan(ctx, dst, 1<<30, Options{}); err == nil {
		t.Error("a scan beyond the end")
	}
}
