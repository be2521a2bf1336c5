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
	"xenlvm/lib/convert"
	"xenlvm/lib/diskimg"
	"xenlvm/lib/dm"
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
	used    extent.Set     // what is copied of it
	regions []fsmap.Region // what is known of it, nil if all is copied unseen
	read    atomic.Int64   // bytes
	stat    unix.Stat_t
	device  *blkdev.Device // whose writes are counted, nil for none
	written int64          // its counter when it was opened
}

// openSource opens a source that nobody writes to, as far as can be seen.
func (o *options) openSource(ctx context.Context, r run.Runner, path string) (*source, error) {
	if err := checkSource(ctx, r, path); err != nil {
		return nil, err
	}
	info, err := diskimg.Probe(path)
	if err != nil {
		return nil, fault.With(fault.Refused, err)
	}
	format := o.format
	if format == "" {
		format = string(diskimg.Raw)
		if info.Format == diskimg.Qcow2 {
			return nil, fault.Hint(fault.Refuse("cannot copy %s: it looks like a qcow2 image", path), "say --format qcow2 if it is one and you trust it; a guest can make its raw disk look so")
		}
	}
	if err := diskimg.CheckFormat(info, format); err != nil {
		return nil, fault.With(fault.Refused, err)
	}
	s := &source{}
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

// findUsed finds out what must be copied.
func (s *source) findUsed(whole bool) (err error) {
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

// Unchanged counts the writes to a device as well.
func (s *source) Unchanged() error {
	if err := s.Source.Unchanged(); err != nil || s.device == nil {
		return err
	}
	n, err := writes(*s.device)
	if err == nil && n != s.written {
		err = errors.New("it was written to while it was read")
	}
	if err != nil {
		return fmt.Errorf("cannot rely on the copy of %s: %w", s.device.Path, err)
	}
	return nil
}

// checkSource refuses a source that a domain, a mount, the holder of a loop device
// or any other program may write to.
func checkSource(ctx context.Context, r run.Runner, path string) error {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return fault.Refuse("cannot open %s: %w", path, err)
	}
	var dev blkdev.Device
	var mounted bool
	if isBlock(&st) {
		var err error
		if dev, err = blkdev.Stat(path); err != nil {
			return err
		}
		if !dev.ReadOnly() {
			if mounted, err = dev.Quiet(); err != nil {
				return err
			}
		}
	}
	uses, err := domainDisks(ctx, r)
	if err != nil {
		return err
	}
	for _, u := range uses {
		if !u.Disk.CDROM && convert.HasDisk(u.Disk, path) {
			return fault.Hint(fault.Refuse("cannot copy %s: domain %s has it as its disk %s, and may write to it", path, u.Domain.Name, u.Disk.VDev),
				"domuswitch stop %[1]s; or, while it runs: imgconv --snapshot %[1]s", run.Quote(u.Domain.Name))
		}
	}
	loops, err := attached(&st)
	if err != nil {
		return err
	}
	for _, l := range loops {
		if !l.ReadOnly {
			return detach(fault.Refuse("cannot copy %s: it is attached to %s, through which somebody may write to it", path, l.Path), l)
		}
	}
	switch {
	case !isBlock(&st):
		return checkFile(path)
	case dev.ReadOnly():
		return nil
	case mounted:
		return dm.Unopened(dev, "copy", 1)
	}
	return dm.Unopened(dev, "copy", 0)
}

// checkFile refuses a source file that a program has open for writing.
func checkFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0) // whatever it is, we do not wait for it
	if err != nil {
		return fault.Refuse("cannot open %s: %w", path, err)
	}
	defer f.Close()
	return checkOpen(f, unix.F_RDLCK, "cannot copy "+path+": another program has it open for writing")
}
