package diskimg

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"xenlvm/lib/directio"
	"xenlvm/lib/extent"
	"xenlvm/lib/fault"
)

// Source is an image opened for reading. It is safe for concurrent use.
type Source interface {
	io.ReaderAt
	io.Closer
	// Size is the length of the disk in bytes.
	Size() int64
	// Data is the ranges that may hold other bytes than zero.
	Data() (extent.Set, error)
	// Unchanged reports whether the path still leads to what was opened, of
	// the same size, and whether a file was written to. A copy during which it
	// changed is worth nothing.
	Unchanged() error
	// Is reports whether f is the image itself: the same file or block device.
	Is(f *os.File) bool
}

// OpenSource opens the disk in the image file or block device at path, whose
// configured format is "raw" or "qcow2". CheckFormat applies. What is in memory is
// read from there, and the rest of a raw image past the page cache.
func OpenSource(path, format string) (Source, error) {
	return OpenSourceDirect(path, format, directio.Auto)
}

// OpenSourceDirect is OpenSource with a choice how to read a raw image. The requests
// for qcow2 do not suit reading past the page cache: directio.On is refused.
func OpenSourceDirect(path, format string, mode directio.Mode) (Source, error) {
	f, err := open(path)
	if err != nil {
		return nil, err
	}
	s, err := newSource(f, path, format, mode)
	if err != nil {
		_ = f.Close() // nothing was written
		return nil, err
	}
	return s, nil
}

func newSource(f *os.File, path, format string, mode directio.Mode) (Source, error) {
	size, err := check(f)
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", path, fault.Reason(err))
	}
	info := Info{Path: path, FileSize: size}
	if info.Format, err = Magic(f, size); err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", path, fault.Reason(err))
	}
	if err := CheckFormat(info, format); err != nil {
		return nil, err
	}
	id, err := identify(f)
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", path, fault.Reason(err))
	}
	o := opened{f: f, path: path, id: id}
	if info.Format == Qcow2 {
		if mode == directio.On {
			return nil, fmt.Errorf("cannot read %s past the page cache: it is qcow2", path)
		}
		q, err := openQcow2(f, size)
		if err != nil {
			return nil, fmt.Errorf("cannot read %s: %w", path, fault.Reason(err))
		}
		return &qcow2Source{opened: o, qcow2Disk: q}, nil
	}
	if size%sector != 0 {
		return nil, fmt.Errorf("cannot read %s: its size %d is not a multiple of %d bytes", path, size, sector)
	}
	r, err := directio.NewReader(f, size, mode)
	if err != nil {
		return nil, err
	}
	return &rawSource{opened: o, size: size, r: r}, nil
}

// opened is the file under a source.
type opened struct {
	f    *os.File
	path string
	id   identity
}

// identity is what makes a file the same file.
type identity struct {
	dev, ino, rdev uint64
	size           int64
	mtime, ctime   unix.Timespec
}

// same says whether both are one file, or nodes of one block device.
func (i identity) same(now identity) bool {
	return i.rdev == now.rdev && (i.rdev != 0 || i.dev == now.dev && i.ino == now.ino)
}

func identify(f *os.File) (identity, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return identity{}, err
	}
	size, err := check(f)
	return identity{uint64(st.Dev), st.Ino, uint64(st.Rdev), size, st.Mtim, st.Ctim}, err
}

// unchanged compares what path leads to now with what was opened.
func (o *opened) unchanged(written bool) error {
	err := o.compare(written)
	if err != nil {
		return fmt.Errorf("cannot rely on the copy of %s: %w", o.path, err)
	}
	return nil
}

func (o *opened) compare(written bool) error {
	f, err := open(o.path)
	if err != nil {
		return err
	}
	defer f.Close()
	now, err := identify(f)
	switch {
	case err != nil:
		return err
	case !o.id.same(now):
		return errors.New("it was replaced while it was read")
	case now.size != o.id.size:
		return fmt.Errorf("its size was %d and is %d", o.id.size, now.size)
	case written && (now.mtime != o.id.mtime || now.ctime != o.id.ctime):
		return errors.New("it was written to while it was read")
	}
	return nil
}

// Is compares f with what was opened.
func (o *opened) Is(f *os.File) bool {
	id, _ := identify(f) // which knows the file even when it has no size to copy
	return o.id.same(id)
}

// Close closes the image.
func (o *opened) Close() error { return o.f.Close() }

// qcow2Source: writes to a qcow2 file move its tables, so reading it while it
// is written gives garbage.
type qcow2Source struct {
	opened
	*qcow2Disk
}

func (s *qcow2Source) Unchanged() error { return s.unchanged(true) }

type rawSource struct {
	opened
	size int64
	r    *directio.Reader
}

func (s *rawSource) Size() int64      { return s.size }
func (s *rawSource) Unchanged() error { return s.unchanged(s.id.rdev == 0) }

// ReadAt reads the image.
func (s *rawSource) ReadAt(b []byte, off int64) (int, error) { return s.r.ReadAt(b, off) }

// Close closes the image.
func (s *rawSource) Close() error { return errors.Join(s.r.Close(), s.opened.Close()) }

// Data asks the filesystem for the holes.
func (s *rawSource) Data() (extent.Set, error) {
	if s.id.rdev != 0 {
		return extent.Whole(s.size), nil
	}
	return DataOf(s.f, s.size)
}
