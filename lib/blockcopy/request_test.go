package blockcopy

import (
	"context"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"xenlvm/lib/directio"
	"xenlvm/lib/extent"
)

// watched calls seen before it reads.
type watched struct {
	*image
	seen func(off int64)
}

func (w watched) ReadAt(p []byte, off int64) (int, error) {
	w.seen(off)
	return w.image.ReadAt(p, off)
}

// Holes are made zero in their turn, between the data, not before it.
func TestHolesInTheirTurn(t *testing.T) {
	const mib = 1 << 20
	b := noise(64*mib, 1)
	clear(b[8*mib : 24*mib])
	src := &image{b, extent.Whole(64 * mib).Subtract(extent.Of(extent.Range{Off: 8 * mib, Len: 16 * mib}))}
	dst := scratch(t, noise(64*mib, 2))
	zeroed := func() bool {
		p := make([]byte, 1)
		if _, err := dst.ReadAt(p, 16*mib); err != nil {
			t.Error(err)
		}
		return p[0] == 0
	}
	_, _, err := Copy(t.Context(), dst, watched{src, func(off int64) {
		if zeroed() != (off > 8*mib) {
			t.Errorf("at %d: hole made zero: %v", off, zeroed())
		}
	}}, serial)
	if err != nil {
		t.Fatal(err)
	}
	expect(t, dst, b)
}

// Of a block that is not all zeros only the pages that are not are written: no more
// than by a tool that looks for zeros page by page.
func TestPagesOfZerosAreNotWritten(t *testing.T) {
	const block = 65536
	b := make([]byte, 32*block)
	for off := 0; off < len(b); off += block {
		copy(b[off+4096*5:], noise(4096, uint64(off)))
	}
	for _, known := range []bool{false, true} {
		dst := scratch(t, make([]byte, len(b)))
		if !known {
			dst = scratch(t, noise(len(b), 2))
		}
		st, _, err := Copy(t.Context(), dst, all(b), Options{BlockSize: block, KnownZero: known})
		if err != nil {
			t.Fatal(err)
		}
		expect(t, dst, b)
		if zeroed := st.BytesZeroed > 0; st.BytesWritten != 32*4096 || zeroed == known {
			t.Errorf("destination of zeros %v: %+v", known, st)
		}
	}
}

// Each request asks first.
func TestYield(t *testing.T) {
	var asked, reads atomic.Int64
	src := watched{all(noise(9<<20, 1)), func(int64) { reads.Add(1) }}
	o := Options{Yield: func(context.Context) { asked.Add(1) }}
	dst := scratch(t, nil)
	_, sums, err := Copy(t.Context(), dst, src, o)
	if err != nil || asked.Load() != reads.Load() || reads.Load() == 0 {
		t.Errorf("%d reads, asked %d times, %v", reads.Load(), asked.Load(), err)
	}
	asked.Store(0)
	if err := Verify(t.Context(), dst, sums, nil, o); err != nil || asked.Load() == 0 {
		t.Errorf("verify asked %d times, %v", asked.Load(), err)
	}
}

// A larger block makes larger and fewer requests, never more memory.
func TestPace(t *testing.T) {
	for _, block := range []int{4096, 1 << 20, 8 << 20} {
		for _, workers := range []int{0, 3, 100} {
			p := newPace(Options{Workers: workers}, nil, block)
			if p.chunk%int64(block) != 0 || int64(p.workers)*p.chunk > buffers || p.workers < 2 || workers == 3 && block < 8<<20 && p.workers != 3 {
				t.Errorf("blocks of %d, %d workers: %d requests of %d", block, workers, p.workers, p.chunk)
			}
		}
	}
	b := noise(20<<20+5, 1)
	dst := scratch(t, nil)
	_, sums, err := Copy(t.Context(), dst, all(b), Options{BlockSize: 8 << 20})
	if err != nil {
		t.Fatal(err)
	}
	expect(t, dst, b)
	if err := Verify(t.Context(), dst, sums, nil, Options{}); err != nil {
		t.Error(err)
	}
}

// Every mode copies; on refuses what cannot be written or read past the page cache,
// before anything is changed.
func TestDirect(t *testing.T) {
	b := noise(3<<20+700, 1)
	for _, mode := range []directio.Mode{directio.Auto, directio.On, directio.Off} {
		dst := scratch(t, noise(100, 2))
		if mode == directio.On && directio.Reopen(dst, os.O_RDONLY) == nil {
			t.Skip("no O_DIRECT in " + t.TempDir())
		}
		_, sums, err := Copy(t.Context(), dst, all(b), Options{Direct: mode})
		if err != nil {
			t.Fatal(err)
		}
		expect(t, dst, b)
		if err := Verify(t.Context(), dst, sums, nil, Options{Direct: mode}); err != nil {
			t.Errorf("%v: %v", mode, err)
		}
		d, err := openDest(dst, 0, mode)
		if err != nil || (d.direct == nil) != (mode == directio.Off) {
			t.Errorf("%v: past the page cache %v, %v", mode, d.direct != nil, err)
		}
		d.close()
	}
	none, err := os.Open("/proc/version") // which is a file, and knows no O_DIRECT
	if err != nil {
		t.Fatal(err)
	}
	defer none.Close()
	if _, _, err := Copy(t.Context(), none, all(b), Options{Direct: directio.On}); err == nil || !strings.Contains(err.Error(), "past the page cache") {
		t.Errorf("%v", err)
	}
	if _, err := openReader(none, directio.On); err == nil || !strings.Contains(err.Error(), "past the page cache") {
		t.Errorf("%v", err)
	}
}

// badDisk cannot read one page.
type badDisk struct{ *image }

func (d badDisk) ReadAt(p []byte, off int64) (int, error) {
	if off <= 3<<20 && 3<<20 < off+int64(len(p)) {
		return 0, unix.EIO
	}
	return d.image.ReadAt(p, off)
}

// A request that fails as a whole is narrowed down to the page that cannot be read.
func TestBadPageIsNamed(t *testing.T) {
	d := badDisk{all(noise(4<<20, 1))}
	err := readFull(d, make([]byte, 2<<20), 2<<20)
	if err == nil || err.Error() != "cannot read source at 3145728: input/output error" {
		t.Errorf("%v", err)
	}
	// A destination that ends early fails in the same way as one that cannot be read.
	f := scratch(t, noise(10000, 1))
	r, err := openReader(f, directio.Off)
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	if err := r.read(make([]byte, 20000), 0); err == nil || !strings.HasPrefix(err.Error(), "cannot read destination at 8192: ") {
		t.Errorf("%v", err)
	}
}
