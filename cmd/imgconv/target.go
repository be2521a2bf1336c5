package main

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"xenlvm/lib/blkdev"
	"xenlvm/lib/blockcopy"
	"xenlvm/lib/diskimg"
	"xenlvm/lib/dm"
	"xenlvm/lib/extent"
	"xenlvm/lib/fault"
	"xenlvm/lib/host"
	"xenlvm/lib/loopdev"
	"xenlvm/lib/units"
)

// target is an opened destination.
type target struct {
	f     *os.File
	made  bool // the file was not there
	empty bool // nothing that could be lost
}

// checkTarget refuses a destination that must not be written to. It opens and
// changes nothing.
func checkTarget(ctx context.Context, src diskimg.Source, source, path string) error {
	var from, to unix.Stat_t
	if err := unix.Stat(source, &from); err != nil {
		return fault.Refuse("cannot open %s: %w", source, err)
	}
	err := unix.Stat(path, &to)
	switch kind := to.Mode & unix.S_IFMT; {
	case errors.Is(err, unix.ENOENT):
		return checkNew(ctx, src, path)
	case err != nil:
		return fault.Refuse("cannot open %s: %w", path, err)
	case from.Dev == to.Dev && from.Ino == to.Ino || kind == unix.S_IFBLK && from.Rdev == to.Rdev && from.Mode&unix.S_IFMT == unix.S_IFBLK:
		return fault.Refuse("cannot copy %s onto itself", source)
	case kind == unix.S_IFBLK:
		return checkDevice(&from, path, src.Size())
	case kind != unix.S_IFREG:
		return fault.Refuse("cannot copy to %s: it is neither a block device nor a regular file", path)
	}
	return checkFile(&to, path)
}

// checkNew checks the place of a file that is not there.
func checkNew(ctx context.Context, src diskimg.Source, path string) error {
	if strings.HasPrefix(filepath.Clean(path), "/dev/") && !strings.HasPrefix(filepath.Clean(path), "/dev/shm/") {
		return fault.Refuse("cannot find the device %s", path)
	}
	data, err := src.Data()
	if err != nil {
		return fault.With(fault.Refused, err)
	}
	return fault.With(fault.Refused, host.NeedSpace(ctx, filepath.Dir(path), units.Bytes(data.Bytes())))
}

// checkFile refuses a file that is behind a loop device: perhaps a domain's disk.
func checkFile(st *unix.Stat_t, path string) error {
	loops, err := loopdev.List(func(d loopdev.Device) bool { return d.Dev == blkdev.NumberOf(st.Dev) && d.Ino == st.Ino })
	if err != nil {
		return err
	}
	if len(loops) > 0 {
		return fault.Hint(fault.Refuse("cannot copy to %s: it is attached to %s", path, loops[0].Path), "losetup --list; xl list")
	}
	return nil
}

// checkDevice refuses a device that is in use, too small, or made of the source.
func checkDevice(from *unix.Stat_t, path string, size int64) error {
	dev, err := blkdev.Stat(path)
	if err != nil {
		return err
	}
	holder, sector := blkdev.NumberOf(from.Dev), int(units.Sector)
	if from.Mode&unix.S_IFMT == unix.S_IFBLK {
		holder = blkdev.NumberOf(from.Rdev)
		source, err := blkdev.Stat("/dev/block/" + holder.String())
		if err == nil {
			sector = source.SectorSize
		}
	}
	switch {
	case dev.DependsOn(holder):
		return fault.Refuse("cannot copy to %s: it is, or is built on, the device %s that holds the source", path, holder)
	case dev.Size < units.Bytes(size):
		return fault.Refuse("cannot copy to %s: the source is %d bytes, the device only %d", path, size, dev.Size)
	case dev.SectorSize != sector:
		return fault.Refuse("cannot copy to %s: its sectors are %d bytes, those of the source %d: nothing in it could be read", path, dev.SectorSize, sector)
	}
	if err := dev.Idle(); err != nil {
		return err
	}
	// A running domain's backend holds no claim that Idle could see.
	if open, err := dm.OpenCount(dev.Number); err == nil && open > 0 {
		return fault.Hint(fault.Refuse("cannot copy to %s: somebody has it open, perhaps a running domain", path), "xl list; dmsetup info %s", path)
	}
	return nil
}

// lock takes a destination file for one run, and closes it when another has it.
func lock(f *os.File, path string) error {
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return fault.Refuse("cannot copy to %s: another run has it", path)
	}
	return nil
}

// openTarget opens, or creates, the destination for us alone.
func openTarget(path string) (*target, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return nil, fault.Refuse("cannot create %s: %w", path, err)
		}
		if err := lock(f, path); err != nil {
			return nil, err
		}
		return &target{f: f, made: true, empty: true}, nil
	case err != nil:
		return nil, fault.Refuse("cannot open %s: %w", path, err)
	case info.Mode().IsRegular():
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return nil, fault.Refuse("cannot open %s: %w", path, err)
		}
		if err := lock(f, path); err != nil {
			return nil, err
		}
		return &target{f: f, empty: info.Size() == 0}, nil
	}
	f, err := blkdev.OpenExclusive(path, os.O_RDWR)
	if err != nil {
		return nil, err
	}
	content, err := diskimg.ProbeFile(f)
	if err != nil {
		f.Close()
		return nil, fault.With(fault.Refused, err)
	}
	return &target{f: f, empty: content.Kind == diskimg.Blank}, nil
}

// compare reads a destination that holds something, and the source. The digests
// are nil when there is nothing to compare.
func (t *target) compare(ctx context.Context, src diskimg.Source, o blockcopy.Options) (*blockcopy.Digests, bool, error) {
	size, err := t.f.Seek(0, io.SeekEnd)
	if t.empty || err != nil || size < src.Size() {
		return nil, false, err
	}
	sums, err := blockcopy.Scan(ctx, t.f, src.Size(), o)
	if err != nil {
		return nil, false, err
	}
	differ, err := blockcopy.Differ(ctx, src, sums, o)
	if err != nil || !differ.Empty() {
		return sums, false, err
	}
	// Behind the image, a larger destination must be zero.
	err = blockcopy.Verify(ctx, t.f, sums, new(extent.Of(extent.Range{Off: src.Size(), Len: size - src.Size()})), o)
	var m *blockcopy.MismatchError
	if errors.As(err, &m) {
		return sums, false, nil
	}
	return sums, true, err
}
