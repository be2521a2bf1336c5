package main

import (
	"bytes"
	"context"
	"fmt"
	"io"

	"xenlvm/lib/directio"
	"xenlvm/lib/extent"
)

const (
	// chunk is the size of one part of a sample.
	chunk = 64 << 10
	// largestBlock is that of blockcopy's digests. A block is copied whole: what is
	// nearer to data than that may be copied with it.
	largestBlock = 8 << 20

	// How many chunks of data, and of zeros, are compared before a copy.
	compareData, compareZeros = 64, 16
)

// parts are random parts of a source, whole pages.
type parts struct{ data, zeros extent.Set }

// draw takes up to so many chunks of what is data, and of what becomes zero.
func (f filled) draw(data, zeros int) (parts, error) {
	set, err := f.Data()
	pages := set.Complement(f.size).Align(directio.Align).Complement(f.size)
	return parts{pages.Sample(data, chunk), set.Align(largestBlock).Complement(f.size).Sample(zeros, chunk)}, err
}

// chunks is how many chunks of data are compared: no more than a 64th, but of small
// sources.
func (f filled) chunks() int { return int(max(8, min(compareData, f.size>>22))) }

// likeness is how many chunks of a sample are equal, and how many are zeros.
type likeness struct{ chunks, equal, zero int }

// sample compares random parts of a destination with the source.
func (t *target) sample(ctx context.Context, src filled, mode directio.Mode) (likeness, error) {
	drawn, err := src.draw(src.chunks(), compareZeros)
	if err != nil {
		return likeness{}, err
	}
	there, err := t.reader(src.size, mode)
	if err != nil {
		return likeness{}, err
	}
	defer there.Close()
	var l likeness
	have, want, zero := directio.Buffer(chunk), directio.Buffer(chunk), make([]byte, chunk)
	for r := range drawn.data.Union(drawn.zeros).Chunks(chunk) {
		if ctx.Err() != nil {
			return likeness{}, context.Cause(ctx)
		}
		h, w, z := have[:r.Len], want[:r.Len], zero[:r.Len]
		if err := readAt(there, h, r.Off, "destination"); err != nil {
			return likeness{}, err
		}
		if drawn.zeros.Contains(r.Off) {
			copy(w, z)
		} else if err := readAt(src, w, r.Off, "source"); err != nil {
			return likeness{}, err
		}
		l.chunks++
		if bytes.Equal(h, w) {
			l.equal++
		}
		if bytes.Equal(h, z) {
			l.zero++
		}
	}
	return l, nil
}

// reader reads a destination from the device.
func (t *target) reader(size int64, mode directio.Mode) (*directio.Reader, error) {
	if err := directio.Forget(t.f); err != nil {
		return nil, err
	}
	return directio.NewReader(t.f, size, mode)
}

// readAt fills b.
func readAt(r io.ReaderAt, b []byte, off int64, name string) error {
	if n, err := r.ReadAt(b, off); n < len(b) {
		return fmt.Errorf("cannot read %s at %d: %w", name, off, err)
	}
	return nil
}
