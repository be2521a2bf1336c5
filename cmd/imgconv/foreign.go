package main

import (
	"bytes"
	"context"
	"errors"

	"xenlvm/lib/blockcopy"
	"xenlvm/lib/directio"
	"xenlvm/lib/diskimg"
	"xenlvm/lib/extent"
	"xenlvm/lib/units"
)

var errForeign = errors.New("other data")

// foreign says whether a part of a destination holds anything but zeros and what the
// source has there. It reads all of it, until it finds something.
func (t *target) foreign(ctx context.Context, src filled, part extent.Set, o blockcopy.Options) (bool, error) {
	there, err := t.reader(src.size, o.Direct)
	if err != nil {
		return false, err
	}
	defer there.Close()
	data, err := diskimg.DataOf(t.f, src.size)
	if err != nil {
		return false, err
	}
	part = part.Intersect(data).Align(directio.Align).Clip(src.size)
	err = blockcopy.Read(ctx, rest{there, src, part}, o)
	if errors.Is(err, errForeign) {
		return true, nil
	}
	return false, err
}

// rest is a part of a destination, to be read. It ends where there is anything but zeros
// and what the source of the copy has there.
type rest struct {
	there *directio.Reader
	src   filled
	part  extent.Set
}

func (r rest) Size() int64 { return r.src.size }

func (r rest) Data() (extent.Set, error) { return r.part, nil }

func (r rest) ReadAt(b []byte, off int64) (int, error) {
	if err := readAt(r.there, b, off, "destination"); err != nil {
		return 0, err
	}
	if bytes.Equal(b, make([]byte, len(b))) {
		return len(b), nil
	}
	want := directio.Buffer(len(b))
	if err := readAt(r.src, want, off, "source"); err != nil {
		return 0, err
	}
	if otherSector(b, want) {
		return 0, errForeign
	}
	return len(b), nil
}

// otherSector says whether one of the sectors of have is neither that of want nor
// zeros: a copy that is killed may leave half a request, but no half sector.
func otherSector(have, want []byte) bool {
	zero := make([]byte, units.Sector)
	for i := 0; i < len(have); i += len(zero) {
		end := min(i+len(zero), len(have))
		if h := have[i:end]; !bytes.Equal(h, want[i:end]) && !bytes.Equal(h, zero[:end-i]) {
			return true
		}
	}
	return false
}
