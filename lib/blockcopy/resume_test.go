package blockcopy

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"xenlvm/lib/directio"
	"xenlvm/lib/extent"
)

// serial is one worker, so that requests are made in order.
var serial = Options{Workers: 1}

// stopped copies src onto dst until so many bytes were read, and returns what the
// last checkpoint said, by way of its file.
func stopped(t *testing.T, dst *os.File, src Source, o Options, after int64) *Digests {
	t.Helper()
	var file []byte
	var cp *copier
	enough := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	o.Checkpoint = func(d *Digests) error {
		file = marshal(t, d)
		return nil
	}
	o.Progress = func(p Progress) {
		if p.Read >= after {
			if err := cp.checkpoint(); err != nil {
				t.Error(err)
			}
			cancel(enough)
		}
	}
	cp, err := newCopier(dst, src, o)
	if err != nil {
		t.Fatal(err)
	}
	defer cp.dst.close()
	if err := cp.run(ctx); err != enough {
		t.Fatal(err)
	}
	d, err := ReadDigests(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// An interrupted copy goes on: nothing that was done is read again when the source
// is the same, and nothing written again when it is not.
func TestResume(t *testing.T) {
	const size = 40<<20 + 1234
	b := noise(size, 1)
	clear(b[2<<20 : 3<<20])
	src := all(b)
	src.data = src.data.Subtract(extent.Of(extent.Range{Off: 8 << 20, Len: 8 << 20}))
	clear(b[8<<20 : 16<<20])
	stale := noise(size+100000, 2)

	t.Run("same source", func(t *testing.T) {
		dst := scratch(t, stale)
		part := stopped(t, dst, src, serial, 16<<20)
		left := part.Unknown()
		if left.Contains(0) || left.Contains(2<<20) || left.Contains(12<<20) || !left.Contains(size-1) {
			t.Fatalf("left: %v", left)
		}
		st, sums, err := Copy(t.Context(), dst, src, Options{Before: part, Only: new(extent.Set)})
		if err != nil {
			t.Fatal(err)
		}
		expect(t, dst, b)
		if st.BytesRead != left.Intersect(src.data).Bytes() || sums.known != nil {
			t.Errorf("read %d bytes, %d were left", st.BytesRead, left.Bytes())
		}
		if err := Verify(t.Context(), dst, sums, nil, Options{}); err != nil {
			t.Error(err)
		}
	})
	t.Run("another source", func(t *testing.T) {
		dst := scratch(t, stale)
		part := stopped(t, dst, src, serial, 16<<20)
		now := all(bytes.Clone(b))
		now.b[1<<20+5] ^= 1 // which was copied
		st, _, err := Copy(t.Context(), dst, now, Options{Before: part})
		if err != nil {
			t.Fatal(err)
		}
		expect(t, dst, now.b)
		if st.BytesRead != size || st.BytesWritten != 4096+part.Unknown().Intersect(src.data).Bytes() {
			t.Errorf("%+v, left %d", st, part.Unknown().Bytes())
		}
	})
	// Of a delta that was killed the blocks that it had not come to are not known:
	// it may have written them after the checkpoint.
	t.Run("delta", func(t *testing.T) {
		dst := scratch(t, stale)
		_, sums, err := Copy(t.Context(), dst, src, Options{})
		if err != nil {
			t.Fatal(err)
		}
		now := all(bytes.Clone(b))
		for off := 0; off < size; off += 1 << 20 {
			now.b[off] ^= 1
		}
		part := stopped(t, dst, now, Options{Workers: 1, Before: sums}, 16<<20)
		if !part.Unknown().Contains(30 << 20) {
			t.Errorf("left: %v", part.Unknown())
		}
		if _, _, err := Copy(t.Context(), dst, src, Options{Before: part}); err != nil { // back again
			t.Fatal(err)
		}
		expect(t, dst, b)
	})
}

// The last part of a page waits for the end of the copy: until then it is not known.
func TestCheckpointLeavesTheEdgeOut(t *testing.T) {
	src := all(noise(8192+100, 1))
	part := stopped(t, scratch(t, nil), src, serial, src.Size())
	if want := extent.Of(extent.Range{Off: 8192, Len: 100}); !part.Unknown().Equal(want) {
		t.Errorf("unknown: %v", part.Unknown())
	}
}

// waiting does not give its last byte before a checkpoint was made.
type waiting struct {
	*image
	made chan struct{}
}

func (w waiting) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) == w.Size() {
		<-w.made
	}
	return w.image.ReadAt(p, off)
}

// Checkpoints come by themselves, and their error ends the copy.
func TestCheckpoint(t *testing.T) {
	full := errors.New("the disk of the journal is full")
	for _, c := range []error{nil, full} {
		w := waiting{all(noise(16<<20, 1)), make(chan struct{})}
		var once sync.Once
		_, sums, err := Copy(t.Context(), scratch(t, nil), w, Options{Checkpoint: func(d *Digests) error {
			once.Do(func() { close(w.made) })
			return c
		}})
		if err != c || (sums == nil) != (c != nil) {
			t.Errorf("%v: %v", c, err)
		}
	}
}

// A source of another size: what both have in common is not written again, what the
// source lost is made zero.
func TestResized(t *testing.T) {
	ctx := context.Background()
	b := noise(6<<20+512, 1)
	for _, c := range []struct {
		name          string
		size          int64
		read, written int64
	}{
		{"grown", 8 << 20, 8 << 20, 2 << 20},
		{"shrunk", 3<<20 + 512, 3<<20 + 512, 512},
		{"grown to many times its size", 12 << 30, 8 << 20, 8 << 20},
	} {
		dst := scratch(t, nil)
		sums := copyAll(t, dst, b, nil)
		now := noise(8<<20, 2)
		copy(now, b[:6<<20])
		src := all(now[:min(c.size, 8<<20)])
		var s Source = src
		if c.size > src.Size() {
			s = sparse{src, c.size}
		}
		st, sums, err := Copy(ctx, dst, s, Options{Before: sums})
		if err != nil {
			t.Fatal(err)
		}
		if st.BytesRead != c.read || st.BytesWritten != c.written {
			t.Errorf("%s: %+v", c.name, st)
		}
		if c.size <= src.Size() {
			expect(t, dst, src.b)
		}
		if err := Verify(ctx, dst, sums, nil, Options{}); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// Behind a short last block that was zeros the destination may hold anything, if it
// grew with the source.
func TestGrownShortBlockOfZeros(t *testing.T) {
	dst := scratch(t, nil)
	sums := copyAll(t, dst, make([]byte, 8192+512), nil)
	if _, err := dst.WriteAt(noise(8192, 1), 8192+512); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 16384)
	copyAll(t, dst, b, sums)
	expect(t, dst, b)
}

// sparse is an image with a hole behind it.
type sparse struct {
	*image
	size int64
}

func (s sparse) Size() int64 { return s.size }

// Whatever a set of digests knows, of a source that has another size by now: the
// copy makes both equal, and what is not known may be anything.
func TestPartialDigests(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		old := &image{b: make([]byte, rapid.IntRange(1, 300000).Draw(t, "old size"))}
		mutate(t, old, 6)
		dst, err := os.Create(filepath.Join(dir, "dst"))
		if err != nil {
			t.Fatal(err)
		}
		defer dst.Close()
		if _, err := dst.Write(noise(400000, 7)); err != nil {
			t.Fatal(err)
		}
		block := rapid.SampledFrom([]int{4096, 16384}).Draw(t, "block")
		_, sums, err := Copy(context.Background(), dst, old, Options{BlockSize: block})
		if err != nil {
			t.Fatal(err)
		}
		sums.known = newBlockSet(int64(len(sums.sums)))
		for i := range sums.sums {
			if rapid.Bool().Draw(t, "known") {
				sums.known.add(int64(i), int64(i)+1)
				continue
			}
			if _, err := dst.WriteAt(noise(min(block, len(old.b)-i*block), 8), int64(i*block)); err != nil {
				t.Fatal(err)
			}
		}
		if sums, err = ReadDigests(bytes.NewReader(marshal(t, sums))); err != nil {
			t.Fatal(err)
		}
		if err := Verify(context.Background(), dst, sums, nil, Options{}); err != nil {
			t.Fatalf("what is known: %v", err)
		}
		now := &image{b: make([]byte, rapid.IntRange(1, 300000).Draw(t, "size"))}
		copy(now.b, old.b)
		now.data = old.data.Clip(now.Size())
		mutate(t, now, 3)
		st, sums, err := Copy(context.Background(), dst, now, Options{Before: sums, Direct: rapid.SampledFrom([]directio.Mode{directio.Auto, directio.Off}).Draw(t, "direct")})
		if err != nil {
			t.Fatal(err)
		}
		expect(t, dst, now.b)
		if sums.known != nil || st.BytesRead != now.data.Align(int64(block)).Clip(now.Size()).Bytes() {
			t.Fatalf("%d blocks are not known; %+v", sums.Unknown().Len(), st)
		}
		if err := Verify(context.Background(), dst, sums, nil, Options{}); err != nil {
			t.Fatal(err)
		}
	})
}

// An error of the device at a checkpoint is an error of the copy.
func TestCheckpointFlushFails(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if err := (&dest{f: w}).sync(); !errors.Is(err, unix.EINVAL) {
		t.Errorf("%v", err)
	}
}
