package main

import (
	"bytes"
	"context"
	"fmt"

	"xenlvm/lib/directio"
	"xenlvm/lib/extent"
	"xenlvm/lib/units"
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

// drawUnknown takes chunks of what is not known, and the first and the last MiB of it,
// where every file system and table has something.
func (f filled) drawUnknown(unknown extent.Set) parts {
	const mib = 1 << 20
	var ends extent.Set
	ends.Add(0, mib)
	ends.Add(max(0, f.size-mib), mib)
	unknown = unknown.Align(directio.Align).Clip(f.size)
	return parts{data: unknown.Sample(f.chunks(), chunk).Union(unknown.Intersect(ends))}
}

// chunks is how many chunks of data are compared: no more than a 64th, but of small
// sources.
func (f filled) chunks() int { return int(max(8, min(compareData, f.size>>22))) }

// likeness is how many chunks of a sample are equal, how many are zeros, and how many
// foreign.
type likeness struct{ chunks, equal, zero, other int }

// sample compares random parts of a destination with the source.
func (t *target) sample(ctx context.Context, src filled, mode directio.Mode) (likeness, error) {
	drawn, err := src.draw(src.chunks(), compareZeros)
	if err != nil {
		return likeness{}, err
	}
	return t.liken(ctx, src, drawn, mode)
}

// liken compares parts of a destination with the source.
func (t *target) liken(ctx context.Context, src filled, drawn parts, mode directio.Mode) (likeness, error) {
	if err := directio.Forget(t.f); err != nil {
		return likeness{}, err
	}
	there, err := directio.NewReader(t.f, src.size, mode)
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
		if n, err := there.ReadAt(h, r.Off); int64(n) < r.Len {
			return likeness{}, fmt.Errorf("cannot read destination at %d: %w", r.Off, err)
		}
		if drawn.zeros.Contains(r.Off) {
			copy(w, z)
		} else if n, err := src.ReadAt(w, r.Off); int64(n) < r.Len {
			return likeness{}, fmt.Errorf("cannot read source at %d: %w", r.Off, err)
		}
		l.chunks++
		if bytes.Equal(h, w) {
			l.equal++
		}
		if bytes.Equal(h, z) {
			l.zero++
		}
		if foreign(h, w) {
			l.other++
		}
	}
	return l, nil
}

// foreign says whether one of the sectors of have is neither that of want nor zeros: a
// copy that is killed may leave half a chunk, but no half sector.
func foreign(have, want []byte) bool {
	zero := make([]byte, units.Sector)
	for i := 0; i < len(have); i += len(zero) {
		end := min(i+len(zero), len(have))
		if h := have[i:end]; !bytes.Equal(h, want[i:end]) && !bytes.Equal(h, zero[:end-i]) {
			return true
		}
	}
	return false
}
