package blockcopy

import (
	"context"
	"fmt"
	"os"

	"xenlvm/lib/diskimg"
	"xenlvm/lib/extent"
)

// MismatchError says that the destination does not hold what was copied.
type MismatchError struct {
	Offset, Length int64 // the block that differs, in bytes
	Want, Got      Sum
}

func (e *MismatchError) Error() string {
	return fmt.Sprintf("destination differs in the %d bytes at %d: digest %s, should be %s", e.Length, e.Offset, e.Got, e.Want)
}

// Verify reads dst from the device, not from the page cache, and compares it
// with the digests d of its source: the blocks that ranges touch, or all of
// dst, as far as d knows it, if ranges is nil. What lies after the end of the
// source must be zero; blocks that d does not know may be anything. The holes of
// a file are zeros without being read. If blocks differ the error is a
// *MismatchError for one of them.
func Verify(ctx context.Context, dst *os.File, d *Digests, ranges *extent.Set, o Options) error {
	size, _, err := deviceSize(dst)
	if err != nil {
		return fmt.Errorf("cannot verify destination: %w", err)
	}
	if size < d.size {
		return fmt.Errorf("cannot verify destination %s: its %d bytes are less than the %d of the source", dst.Name(), size, d.size)
	}
	look := extent.Whole(size)
	if d.restUnknown {
		look = extent.Whole(d.size)
	}
	if ranges != nil {
		look = ranges.Align(int64(d.block)).Clip(size)
	}
	look = look.Subtract(d.Unknown())
	data, err := diskimg.DataOf(dst, size)
	if err != nil {
		return fmt.Errorf("cannot verify destination: %w", err)
	}
	data = data.Align(int64(d.block)).Intersect(look)
	if err := d.zeroIn(look.Subtract(data)); err != nil {
		return err
	}
	r, err := openReader(dst, o.Direct)
	if err != nil {
		return fmt.Errorf("cannot verify destination: %w", err)
	}
	defer r.close()
	v := &verifier{r: r, d: d, pace: newPace(o, dst, d.block)}
	v.pace.now.Total = data.Bytes()
	return v.pace.each(ctx, data, extent.Set{}, v.chunk)
}

// zeroIn is a *MismatchError where holes, which are whole blocks, should hold
// data.
func (d *Digests) zeroIn(holes extent.Set) error {
	block := int64(d.block)
	for r := range holes.Clip(d.size).Chunks(block) {
		if want := d.sums[r.Off/block]; want != (Sum{}) {
			return &MismatchError{Offset: r.Off, Length: r.Len, Want: want}
		}
	}
	return nil
}

type verifier struct {
	r    *reader
	d    *Digests
	pace *pace
}

func (v *verifier) chunk(buf []byte, r task) error {
	if err := v.r.read(buf, r.Off); err != nil {
		return err
	}
	v.pace.done(r.Len, 0, 0)
	block := int64(v.d.block)
	for off := r.Off; off < r.End(); {
		end := min(off-off%block+block, r.End())
		want := Sum{}
		if off < v.d.size {
			end = min(end, v.d.size)
			want = v.d.sums[off/block]
		}
		b := buf[off-r.Off : end-r.Off]
		if got := v.d.sum(b); got != want {
			return &MismatchError{Offset: off, Length: end - off, Want: want, Got: got}
		}
		off = end
	}
	return nil
}
