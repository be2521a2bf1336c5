package changed

import (
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"xenlvm/lib/extent"
	"xenlvm/lib/fault"
)

// ErrNoMap means that nobody can tell where the data of a file lie: it must be read
// to know what changed.
var ErrNoMap = errors.New("where its data lie cannot be told")

// From linux/fiemap.h, which x/sys does not have.
const (
	fsIocFiemap = 0xc020660b // FS_IOC_FIEMAP
	fiemapSync  = 0x1        // FIEMAP_FLAG_SYNC

	extentLast      = 0x1
	extentDelalloc  = 0x4
	extentUnwritten = 0x800
	extentMerged    = 0x1000 // of a file system without extents, put together
	extentShared    = 0x2000 // with another file: nobody writes in its place
)

// noPlace are the flags of extents whose bytes are not simply where they say.
var noPlace = []struct {
	flag uint32
	why  string
}{
	{0x2, "at an unknown place"},                  // FIEMAP_EXTENT_UNKNOWN
	{0x8, "compressed or encoded"},                // FIEMAP_EXTENT_ENCODED
	{0x80, "encrypted"},                           // FIEMAP_EXTENT_DATA_ENCRYPTED
	{0x100, "not on a block's boundary"},          // FIEMAP_EXTENT_NOT_ALIGNED
	{0x200, "among the metadata"},                 // FIEMAP_EXTENT_DATA_INLINE
	{0x400, "in one block with those of another"}, // FIEMAP_EXTENT_DATA_TAIL
}

const understood = extentLast | extentUnwritten | extentMerged | extentShared

// batch is how many extents the kernel is asked for at once.
const batch = 512

// request is struct fiemap with its array.
type request struct {
	start, length          uint64
	flags, mapped, extents uint32
	_                      uint32
	extent                 [batch]fiemapExtent
}

// fiemapExtent is struct fiemap_extent.
type fiemapExtent struct {
	logical, physical, length uint64
	_                         [2]uint64
	flags                     uint32
	_                         [3]uint32
}

// ReadMap asks the file system where the data of a file lie, after what is cached
// of it has been written there. The error is ErrNoMap, and a refusal, when it
// cannot tell or part of the file has no place of its own.
func ReadMap(f *os.File) (Map, error) {
	info, err := f.Stat()
	if err != nil {
		return Map{}, fmt.Errorf("cannot map %s: %w", f.Name(), err)
	}
	if !info.Mode().IsRegular() {
		return Map{}, fault.Refuse("cannot map %s: it is not a regular file", f.Name())
	}
	m := Map{Size: info.Size()}
	// Space reserved beyond the end is not asked for: xfs has not even allocated it.
	for at, last := int64(0), false; at < m.Size && !last; {
		r := request{start: uint64(at), length: uint64(m.Size - at), flags: fiemapSync, extents: batch}
		switch err := ioctl(f, fsIocFiemap, unsafe.Pointer(&r)); err {
		case nil:
		case unix.EOPNOTSUPP, unix.ENOTTY, unix.EBADR:
			return Map{}, fault.Refuse("cannot map %s: %w: its file system does not say", f.Name(), ErrNoMap)
		default:
			return Map{}, fmt.Errorf("cannot map %s: %w", f.Name(), err)
		}
		if r.mapped == 0 {
			break
		}
		for _, e := range r.extent[:min(r.mapped, batch)] {
			if at, err = m.add(e, at); err != nil {
				return Map{}, fault.Refuse("cannot map %s: %w", f.Name(), err)
			}
			last = e.flags&extentLast != 0
		}
	}
	return m, nil
}

// add puts an extent that the kernel told into the map, of which everything below
// at is known, and returns up to where it is known then.
func (m *Map) add(e fiemapExtent, at int64) (int64, error) {
	if e.length == 0 || e.length > math.MaxInt64 || e.logical > math.MaxInt64-e.length || e.physical > math.MaxInt64-e.length {
		return 0, fmt.Errorf("%w: the extent at %d is out of bounds", ErrNoMap, e.logical)
	}
	off, end, physical := int64(e.logical), int64(e.logical+e.length), int64(e.physical)
	if end <= at {
		return 0, fmt.Errorf("%w: the extent at %d is out of order", ErrNoMap, off)
	}
	if off < at { // a file that is written to: the extent grew meanwhile
		physical += at - off
		off = at
	}
	if off >= m.Size {
		return m.Size, nil
	}
	if e.flags&extentDelalloc != 0 { // of unknown place, too
		m.Pending.Add(off, min(end, m.Size)-off)
		return end, nil
	}
	if err := e.check(); err != nil {
		return 0, err
	}
	if e.flags&extentUnwritten == 0 {
		m.append(Extent{extent.Range{Off: off, Len: min(end, m.Size) - off}, physical})
	}
	return end, nil
}

// append adds the next extent. What continues the last one becomes part of it: where
// xfs splits them depends on what other files share.
func (m *Map) append(e Extent) {
	if n := len(m.Data) - 1; n >= 0 && m.Data[n].End() == e.Off && m.Data[n].Physical+m.Data[n].Len == e.Physical {
		m.Data[n].Len += e.Len
		return
	}
	m.Data = append(m.Data, e)
}

// check refuses an extent whose bytes are not where it says.
func (e fiemapExtent) check() error {
	var why []string
	for _, n := range noPlace {
		if e.flags&n.flag != 0 {
			why = append(why, n.why)
			e.flags &^= n.flag
		}
	}
	if unknown := e.flags &^ understood; unknown != 0 {
		why = append(why, fmt.Sprintf("with the unknown flags %#x", unknown))
	}
	if why == nil {
		return nil
	}
	return fmt.Errorf("%w: those at %d are %s", ErrNoMap, e.logical, strings.Join(why, ", "))
}

// ioctl asks about f. The error is a unix.Errno.
func ioctl(f *os.File, request uintptr, arg unsafe.Pointer) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, uintptr(arg))
	runtime.KeepAlive(f)
	if errno != 0 {
		return errno
	}
	return nil
}
