package main

import (
	"context"
	"errors"
	"os"

	"xenlvm/lib/blkdev"
	"xenlvm/lib/diskimg"
	"xenlvm/lib/dm"
	"xenlvm/lib/fault"
	"xenlvm/lib/mirror"
	"xenlvm/lib/units"
)

// devices is what the kernel says of block devices.
type devices struct {
	stat func(path string) (blkdev.Device, error)
	idle func(blkdev.Device) error // the error says who uses it
	// mirror looks whether a number is one of mdmirror's devices, which are gone after a
	// boot of the host, so that no configuration may name one.
	mirror func(blkdev.Number) (dm.Device, bool, error)
	// leads says whether a device is the block device, or is built on the image,
	// at a path.
	leads func(upper blkdev.Device, path string) bool
	// held is idle for a device that the one above it may use.
	held func(dev, above blkdev.Device) error
	// filling says how far a mirror is that has a volume, "" for one that has none.
	filling func(mirror.Disk) (mirror.Phase, error)
	// mirrorState is what there is of a mirror.
	mirrorState func(mirror.Disk) (mirror.State, error)
	// holds names what is on a device, "" for nothing.
	holds func(path string) (string, error)
}

// held goes up from dev: whoever is built on it must lead to above, and nobody
// else may have any of them open.
func held(dev, above blkdev.Device) error {
	holders := dev.Holders()
	for _, name := range holders {
		h, err := blkdev.Stat("/dev/" + name)
		if err != nil {
			return err
		}
		if !above.DependsOn(h.Number) {
			return fault.Refuse("cannot write to %s: %s is built on it, and does not lead to the domain's disk", dev.Path, h.Path)
		}
		if h.Number == above.Number {
			continue
		}
		if err := held(h, above); err != nil {
			return err
		}
	}
	n, err := dm.OpenCount(dev.Number)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if n > len(holders) {
		return fault.Refuse("cannot write to %s: somebody has it open beside the domain", dev.Path)
	}
	return nil
}

func holds(path string) (string, error) {
	info, err := diskimg.Probe(path)
	switch {
	case err != nil || info.Kind == diskimg.Blank:
		return "", err
	case info.Kind == diskimg.Filesystem:
		return info.Signature.Type, nil
	case info.Kind == diskimg.Table:
		return "a " + info.Table.Type + " partition table", nil
	}
	return "data", nil
}

// room is where a domain's memory finds place.
type room struct {
	tmpfs  string
	free   func(ctx context.Context, dir string) (units.Bytes, error)
	memory func(ctx context.Context) (units.Bytes, error) // that programs of this host can have
}
