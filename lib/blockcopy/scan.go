package blockcopy

import (
	"context"
	"errors"
	"fmt"
	"os"

	"xenlvm/lib/diskimg"
	"xenlvm/lib/extent"
)

// Zeros says whether f holds nothing but zeros: it reads all of f from the device,
// until it finds something else.
func Zeros(ctx context.Context, f *os.File, o Options) (bool, error) {
	err := Verify(ctx, f, newDigests(0, minBlock), nil, o)
	var m *MismatchError
	if errors.As(err, &m) {
		return false, nil
	}
	return err == nil, err
}

// Scan makes the digests of what dst holds in its first size bytes, read from
// the device. Given as Options.Before they make a Copy of a source of that
// size continue where one without digests was left: it writes what differs,
// and zeroes the rest of dst, which Scan does not look at.
func Scan(ctx context.Context, dst *os.File, size int64, o Options) (*Digests, error) {
	have, _, err := deviceSize(dst)
	if err != nil {
		return nil, fmt.Errorf("cannot scan destination: %w", err)
	}
	if have < size || size < 0 {
		return nil, fmt.Errorf("cannot scan destination %s: its %d bytes are less than %d", dst.Name(), have, size)
	}
	if o.BlockSize == 0 {
		o.BlockSize = blockFor(size)
	}
	if err := checkBlock(o.BlockSize); err != nil {
		return nil, fmt.Errorf("cannot scan destination: %w", err)
	}
	r, err := openReader(dst, o.Direct)
	if err != nil {
		return nil, fmt.Errorf("cannot scan destination: %w", err)
	}
	defer r.close()
	d := newDigests(size, o.BlockSize)
	d.restUnknown = true
	// Holes are known to be zero, which is what digests begin as.
	data, err := diskimg.DataOf(dst, size)
	if err != nil {
		return nil, fmt.Errorf("cannot scan destination: %w", err)
	}
	data = data.Align(int64(d.block)).Clip(size)
	p := newPace(o, dst, d.block)
	p.now.Total = data.Bytes()
	err = p.each(ctx, data, extent.Set{}, func(buf []byte, at task) error {
		if err := r.read(buf, at.Off); err != nil {
			return err
		}
		for off := int64(0); off < at.Len; off += int64(d.block) {
			d.sums[(at.Off+off)/int64(d.block)] = d.sum(buf[off:min(off+int64(d.block), at.Len)])
		}
		p.done(at.Len, 0, 0)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return d, nil
}
