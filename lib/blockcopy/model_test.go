package blockcopy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"pgregory.net/rapid"

	"xenlvm/lib/extent"
)

// image is a source in memory. Where data does not say so, it must be zero.
type image struct {
	b    []byte
	data extent.Set
}

func (m *image) Size() int64               { return int64(len(m.b)) }
func (m *image) Data() (extent.Set, error) { return m.data, nil }
func (m *image) ReadAt(p []byte, off int64) (int, error) {
	return bytes.NewReader(m.b).ReadAt(p, off)
}

// all is a source without holes.
func all(b []byte) *image { return &image{b, extent.Whole(int64(len(b)))} }

// noise is n random bytes, none of them zero.
func noise(n int, seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(1 + r.IntN(255))
	}
	return b
}

// scratch is a new file with content b, open for reading and writing.
func scratch(t testing.TB, b []byte) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "dst"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if _, err := f.Write(b); err != nil {
		t.Fatal(err)
	}
	return f
}

func content(t rapid.TB, f *os.File) []byte {
	t.Helper()
	b, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// mutate draws changes of a source: data, zeros, single bytes, holes.
func mutate(t *rapid.T, m *image, times int) {
	for i := range times {
		off := rapid.Int64Range(0, m.Size()-1).Draw(t, "offset")
		n := rapid.Int64Range(1, min(40000, m.Size()-off)).Draw(t, "length")
		switch rapid.SampledFrom([]string{"data", "data", "byte", "zeros", "hole"}).Draw(t, "what") {
		case "data":
			copy(m.b[off:off+n], noise(int(n), uint64(off)+uint64(i)))
			m.data.Add(off, n)
		case "byte":
			m.b[off] ^= 0x40
			m.data.Add(off, 1)
		case "zeros":
			clear(m.b[off : off+n])
			m.data.Add(off, n)
		case "hole":
			clear(m.b[off : off+n])
			m.data = m.data.Subtract(extent.Of(extent.Range{Off: off, Len: n}))
		}
	}
}

// expect fails unless f holds b and then only zeros.
func expect(t rapid.TB, f *os.File, b []byte) {
	t.Helper()
	got := content(t, f)
	if len(got) < len(b) {
		t.Fatalf("destination has %d bytes, source %d", len(got), len(b))
	}
	for i := range got {
		want := byte(0)
		if i < len(b) {
			want = b[i]
		}
		if got[i] != want {
			t.Fatalf("destination byte %d is %#x, want %#x", i, got[i], want)
		}
	}
}

// TestRandomDisks is the promise of the package: whatever the source and the
// stale destination, a copy makes them equal, so does each delta, and a byte
// that then differs anywhere is found.
func TestRandomDisks(t *testing.T) {
	dir := t.TempDir()
	ctx := context.Background()
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.IntRange(1, 3*chunkSize/2).Draw(t, "size")
		block := rapid.SampledFrom([]int{4096, 8192, 65536, 1 << 20}).Draw(t, "block")
		stale := rapid.IntRange(0, size+200000).Draw(t, "stale bytes")
		workers := rapid.IntRange(1, 3).Draw(t, "workers")
		src := &image{b: make([]byte, size)}
		mutate(t, src, rapid.IntRange(0, 8).Draw(t, "areas"))

		dst, err := os.Create(filepath.Join(dir, "dst"))
		if err != nil {
			t.Fatal(err)
		}
		defer dst.Close()
		known := rapid.Bool().Draw(t, "known zero")
		junk := noise(stale, 99)
		if known {
			clear(junk)
		}
		if _, err := dst.Write(junk); err != nil {
			t.Fatal(err)
		}
		o := Options{BlockSize: block, Workers: workers, KnownZero: known}
		st, sums, err := Copy(ctx, dst, src, o)
		if err != nil {
			t.Fatal(err)
		}
		expect(t, dst, src.b)
		if st.BytesRead > src.data.Align(int64(block)).Clip(int64(size)).Bytes() {
			t.Fatalf("read %d bytes of %d", st.BytesRead, src.data.Bytes())
		}
		if known && st.BytesZeroed != 0 {
			t.Fatalf("zeroed %d bytes of a destination known to be zero", st.BytesZeroed)
		}

		for range 2 {
			old := bytes.Clone(src.b)
			mutate(t, src, rapid.IntRange(0, 5).Draw(t, "changes"))
			changed := differing(old, src.b, block)
			o := Options{Before: sums, Workers: workers}
			if rapid.Bool().Draw(t, "only what changed") {
				// One byte of each block is enough to say that it changed.
				var only extent.Set
				for r := range changed.Chunks(int64(block)) {
					only.Add(r.Off+r.Len/2, 1)
				}
				o.Only = &only
			}
			before := bytes.Clone(marshal(t, sums))
			st, after, err := Copy(ctx, dst, src, o)
			if err != nil {
				t.Fatal(err)
			}
			expect(t, dst, src.b)
			if !st.Written.Equal(changed) {
				t.Fatalf("wrote %v, changed %v", st.Written, changed)
			}
			if st.BytesWritten+st.BytesZeroed > changed.Bytes() || st.BytesUnchanged != int64(size)-changed.Bytes() {
				t.Fatalf("%+v, changed %d", st, changed.Bytes())
			}
			if !bytes.Equal(before, marshal(t, sums)) {
				t.Fatal("a delta changed the digests it was given")
			}
			sums = after
		}

		if err := Verify(ctx, dst, sums, nil, Options{Workers: workers}); err != nil {
			t.Fatal(err)
		}
		end, _ := dst.Seek(0, io.SeekEnd)
		at := rapid.Int64Range(0, end-1).Draw(t, "flip")
		flip(t, dst, at)
		err = Verify(ctx, dst, sums, nil, Options{Workers: workers})
		var m *MismatchError
		if !errors.As(err, &m) || at < m.Offset || at >= m.Offset+m.Length || m.Want == m.Got {
			t.Fatalf("byte %d flipped: %v", at, err)
		}
		here := extent.Of(extent.Range{Off: at, Len: 1})
		if err := Verify(ctx, dst, sums, &here, Options{}); !errors.As(err, &m) {
			t.Fatalf("range with the flipped byte: %v", err)
		}
		elsewhere := here.Align(int64(block)).Complement(end)
		if err := Verify(ctx, dst, sums, &elsewhere, Options{}); elsewhere.Align(int64(block)).Contains(at) != (err != nil) {
			t.Fatalf("ranges without the flipped byte: %v", err)
		}
	})
}

func flip(t rapid.TB, f *os.File, at int64) {
	t.Helper()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1
	if _, err := f.WriteAt(b, at); err != nil {
		t.Fatal(err)
	}
}

// differing is the blocks in which a and b differ, by comparing all bytes.
func differing(a, b []byte, block int) extent.Set {
	var s extent.Set
	for off := 0; off < len(a); off += block {
		end := min(off+block, len(a))
		if !bytes.Equal(a[off:end], b[off:end]) {
			s.Add(int64(off), int64(end-off))
		}
	}
	return s
}

func marshal(t rapid.TB, d *Digests) []byte {
	t.Helper()
	var b bytes.Buffer
	n, err := d.WriteTo(&b)
	if err != nil || n != int64(b.Len()) {
		t.Fatalf("WriteTo: %d of %d bytes, %v", n, b.Len(), err)
	}
	return b.Bytes()
}
