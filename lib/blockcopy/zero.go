package blockcopy

import (
	"context"
	"os"

	"xenlvm/lib/directio"
	"xenlvm/lib/extent"
)

// Zero makes a range of f, in bytes, zero, and returns when the device has it.
func Zero(ctx context.Context, f *os.File, r extent.Range) error {
	d, err := openDest(f, r.End(), directio.Auto)
	if err != nil {
		return err
	}
	defer d.close()
	for part := range extent.Of(r).Chunks(zeroRequest) {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := d.makeZero(part); err != nil {
			return err
		}
	}
	return d.finish()
}
