package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"xenlvm/lib/blkdev"
	"xenlvm/lib/blockcopy"
	"xenlvm/lib/diskimg"
	"xenlvm/lib/extent"
	"xenlvm/lib/fault"
	"xenlvm/lib/fsmap"
	"xenlvm/lib/run"
	"xenlvm/lib/units"
)

// source is an opened source. The writes to a device are counted, as a file's
// time stamps tell of those to it.
type source struct {
	diskimg.Source
	path    string
	used    extent.Set     // what is copied of it
	regions []fsmap.Region // what is known of it, nil if all is copied unseen
	read    atomic.Int64   // bytes
	stat    unix.Stat_t
	device  *blkdev.Device // whose writes are counted, nil for none
	written int64          // its counter when it was opened
	behind  []file         // whose bytes the device has
}

// openSource opens a source that nobody writes to, as far as can be seen.
func (o *options) openSource(ctx context.Context, r run.Runner, path string) (*source, error) {
	behind, err := checkSource(ctx, r, path)
	if err != nil {
		return nil, err
	}
	info, err := diskimg.Probe(path)
	if err != nil {
		return nil, fault.With(fault.Refused, err)
	}
	format := o.format
	if format == "" {
		format = string(diskimg.Raw)
		switch {
		case info.Packed != "":
			return nil, fault.Hint(fault.Refuse("cannot copy %s: it looks like a %s file", path, info.Packed),
				"%s -dc %s >NEW; or, if these are the bytes of a disk: --format raw", info.Packed, run.Quote(path))
		case info.Format == diskimg.Raw:
		case info.Format == diskimg.Qcow2:
			return nil, fault.Hint(fault.Refuse("cannot copy %s: it looks like a qcow2 image", path), "say --format qcow2 if it is one and you trust it; a guest can make its raw disk look so")
		default:
			return nil, fault.Hint(fault.Refuse("cannot copy %s: it looks like a %s image, which imgconv does not read", path, info.Format), "if it is one: qemu-img convert -O raw %s NEW", run.Quote(path))
		}
	}
	if err := diskimg.CheckFormat(info, format); err != nil {
		return nil, fault.With(fault.Refused, err)
	}
	s := &source{path: path, behind: behind}
	if s.Source, err = diskimg.OpenSourceDirect(path, format, o.direct); err != nil {
		return nil, fault.With(fault.Refused, err)
	}
	if err := s.count(path); err != nil {
		return nil, fault.With(fault.Refused, errors.Join(err, s.Close()))
	}
	if err := s.findUsed(o.whole); err != nil {
		return nil, fault.With(fault.Refused, errors.Join(err, s.Close()))
	}
	return s, nil
}

// findUsed finds out what must be copied, and whether its holes are true.
func (s *source) findUsed(whole bool) (err error) {
	if err := blockcopy.CheckHoles(s.Source); err != nil {
		return err
	}
	s.used = extent.Whole(s.Size())
	if !whole {
		s.used, s.regions, err = fsmap.Used(s, units.Bytes(s.Size()))
	}
	return err
}

// ReadAt counts what is read.
func (s *source) ReadAt(b []byte, off int64) (int, error) {
	n, err := s.Source.ReadAt(b, off)
	s.read.Add(int64(n))
	return n, err
}

// Data leaves out the free blocks of file systems.
func (s *source) Data() (extent.Set, error) { return blockcopy.Mask(s.Source, s.used).Data() }

// count notes what a later Unchanged compares with.
func (s *source) count(path string) error {
	if err := unix.Stat(path, &s.stat); err != nil {
		return fmt.Errorf("cannot open %s: %w", path, err)
	}
	if !isBlock(&s.stat) {
		return nil
	}
	dev, err := blkdev.Stat(path)
	if err != nil {
		return err
	}
	s.written, err = writes(dev)
	if errors.Is(err, blkdev.ErrNotCounted) {
		return nil // nobody can tell
	}
	s.device = &dev
	return err
}

// writes is the counter of sectors written to a device, those that were still in
// memory included.
func writes(dev blkdev.Device) (int64, error) {
	f, err := os.Open(dev.Node)
	if err != nil {
		return 0, err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return 0, err
	}
	return dev.Written()
}

// Unchanged counts the writes to a device as well, and looks at the files behind it.
func (s *source) Unchanged() error {
	err := s.Source.Unchanged()
	if s.device != nil && err == nil {
		err = s.unwritten()
	}
	for _, f := range s.behind {
		err = errors.Join(err, f.unchanged())
	}
	return err
}

// shrunk is err, with the reason if that is that a file became smaller.
func (s *source) shrunk(err error) error {
	info, serr := os.Stat(s.path)
	if err == nil || serr != nil || !info.Mode().IsRegular() || info.Size() >= s.stat.Size {
		return err
	}
	return fmt.Errorf("%s became smaller while it was read, %d bytes of %d are left: %w", s.path, info.Size(), s.stat.Size, err)
}

func (s *source) unwritten() error {
	n, err := writes(*s.device)
	if err == nil && n != s.written {
		err = errors.New("it was written to while it was read")
	}
	if err != nil {
		return fmt.Errorf("cannot rely on the copy of %s: %w", s.device.Path, err)
	}
	return nil
}
