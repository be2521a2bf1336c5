package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"xenlvm/lib/blockcopy"
	"xenlvm/lib/diskimg"
	"xenlvm/lib/extent"
)

// child is this program as something to be measured.
func child(ctx context.Context, args []string) error {
	switch {
	case args[0] == "engine" && len(args) == 6:
		return engineChild(ctx, args[1], args[2], args[3], args[4], args[5])
	case args[0] == "bound" && len(args) == 4:
		return boundChild(ctx, args[1], args[2], args[3])
	}
	return fmt.Errorf("cannot run %q", args)
}

// engineChild calls lib/blockcopy as a first copy with digests, with and without
// reading back; as a delta by digests; or to make the digests of base.
func engineChild(ctx context.Context, what, base, source, destination, digests string) error {
	if what == "sums" {
		return writeSums(ctx, base, digests)
	}
	src, err := diskimg.OpenSource(source, string(diskimg.Raw))
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(destination, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer dst.Close()
	var o blockcopy.Options
	if what == "delta" {
		if o.Before, err = readSums(digests); err != nil {
			return err
		}
	}
	_, sums, err := blockcopy.Copy(ctx, dst, src, o)
	if err != nil || what != "verified" {
		return err
	}
	return blockcopy.Verify(ctx, dst, sums, nil, o)
}

// writeSums keeps the digests of an image, as the copy that made them would.
func writeSums(ctx context.Context, path, digests string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	sums, err := blockcopy.Scan(ctx, f, info.Size(), blockcopy.Options{})
	if err != nil {
		return err
	}
	return withFile(digests, func(f *os.File) error {
		_, err := sums.WriteTo(f)
		return err
	})
}

func readSums(path string) (*blockcopy.Digests, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	sums, err := blockcopy.ReadDigests(f)
	return sums, errors.Join(err, f.Close())
}

// boundChild does the least that any tool must do: read the data of the source,
// or write every block of the destination past the page cache.
func boundChild(ctx context.Context, what, source, destination string) error {
	src, err := openImage(source)
	if err != nil {
		return err
	}
	defer src.Close()
	if what == "read" {
		_, err := readThrough(ctx, src.File, src.data)
		return err
	}
	return writeAll(ctx, destination, extent.Whole(src.size), func(b []byte, _ int64) error {
		b[0] = 1
		return nil
	})
}
