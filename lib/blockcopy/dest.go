package blockcopy

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"xenlvm/lib/directio"
	"xenlvm/lib/extent"
)

const align = directio.Align

// zeroRequest bounds one request to the kernel for zeros: a cancelled copy
// waits for the request under way.
const zeroRequest = 64 << 20

// smallWrite is the size from which on a write goes past the page cache of a device.
// Smaller ones are collected there: the kernel hands the disk many of them at a time,
// where a worker would wait for each.
const smallWrite = 64 << 10

// dest is the destination: aligned data goes past the page cache where the
// kernel allows, zeros are made by the cheapest call that works.
type dest struct {
	f      *os.File
	direct *os.File // nil if O_DIRECT is not to be had
	size   int64
	block  bool
	mode   directio.Mode
	zero   []byte // chunkSize bytes of zeros, never written to

	buffered atomic.Bool // a direct write was refused: use f
	slowZero atomic.Bool // the cheap zeroing call was refused: write zeros
	small    atomic.Bool // there were small writes, which leave pages in memory

	mu    sync.Mutex
	edges []edge // unaligned writes, kept for finish
}

// edge is data that does not fill an aligned page of the destination.
type edge struct {
	off  int64
	data []byte
}

// openDest checks f and makes a regular file at least size bytes long.
func openDest(f *os.File, size int64, mode directio.Mode) (*dest, error) {
	d := &dest{f: f, mode: mode, zero: directio.Buffer(chunkSize)}
	var err error
	if d.size, d.block, err = deviceSize(f); err != nil {
		return nil, fmt.Errorf("cannot use destination: %w", err)
	}
	if d.block && d.size < size {
		return nil, fmt.Errorf("cannot use destination %s: its %d bytes are less than the %d of the source", f.Name(), d.size, size)
	}
	if mode != directio.Off {
		d.direct = directio.Reopen(f, os.O_WRONLY)
	}
	if mode == directio.On && d.direct == nil {
		return nil, fmt.Errorf("cannot write %s past the page cache: its file system does not offer that", f.Name())
	}
	if d.size < size {
		if err := f.Truncate(size); err != nil {
			d.close()
			return nil, fmt.Errorf("cannot extend destination: %w", err)
		}
		d.size = size
	}
	return d, nil
}

// deviceSize is the size in bytes of a regular file or block device.
func deviceSize(f *os.File) (size int64, block bool, err error) {
	st, err := f.Stat()
	if err != nil {
		return 0, false, err
	}
	switch m := st.Mode(); {
	case m.IsRegular():
		return st.Size(), false, nil
	case m.Type() == fs.ModeDevice:
		here, err := f.Seek(0, io.SeekCurrent)
		if err != nil {
			return 0, false, err
		}
		if size, err = f.Seek(0, io.SeekEnd); err != nil {
			return 0, false, err
		}
		_, err = f.Seek(here, io.SeekStart)
		return size, true, err
	}
	return 0, false, fmt.Errorf("%s is neither a regular file nor a block device", f.Name())
}

func (d *dest) close() {
	if d.direct != nil {
		_ = d.direct.Close() // only ever a second descriptor: f reports the errors
	}
}

// write puts b, which starts at an aligned offset, at off. A last part that is
// shorter than a page is kept for finish: buffered writes into a page that a
// direct write is next to would race with it.
func (d *dest) write(b []byte, off int64) error {
	if n := len(b) % align; n != 0 {
		d.mu.Lock()
		d.edges = append(d.edges, edge{off + int64(len(b)-n), append([]byte(nil), b[len(b)-n:]...)})
		d.mu.Unlock()
		b = b[:len(b)-n]
	}
	if len(b) == 0 {
		return nil
	}
	if d.direct != nil && !d.buffered.Load() && !d.collected(len(b)) {
		n, err := d.direct.WriteAt(b, off)
		if !errors.Is(err, unix.EINVAL) || d.mode == directio.On {
			return writeError(off+int64(n), err)
		}
		d.buffered.Store(true) // the file system accepts the flag but not the request
	}
	n, err := d.f.WriteAt(b, off)
	return writeError(off+int64(n), err)
}

// collected says whether a write of n bytes waits in the page cache for others. No page
// there may be shared with a direct write beside it.
func (d *dest) collected(n int) bool {
	if !d.block || d.mode == directio.On || n >= smallWrite || os.Getpagesize() != align {
		return false
	}
	d.small.Store(true)
	return true
}

func writeError(off int64, err error) error {
	if err != nil {
		return fmt.Errorf("cannot write destination at %d: %w", off, err)
	}
	return nil
}

// makeZero zeroes r, at most zeroRequest bytes. Parts of a page are kept for
// finish.
func (d *dest) makeZero(r extent.Range) error {
	if !d.block && !d.slowZero.Load() {
		err := retryEINTR(func() error {
			return unix.Fallocate(int(d.f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, r.Off, r.Len)
		})
		if err == nil || !unsupported(err) {
			return zeroError(r.Off, err)
		}
		d.slowZero.Store(true)
	}
	off, end := r.Off, r.End()
	if n := min((align-off%align)%align, end-off); n > 0 {
		d.keepZeros(off, n)
		off += n
	}
	if n := end % align; off < end && n > 0 {
		d.keepZeros(end-n, n)
		end -= n
	}
	if off == end {
		return nil
	}
	if d.block && !d.slowZero.Load() {
		err := zeroOut(d.f, off, end-off)
		if err == nil || !unsupported(err) {
			return zeroError(off, err)
		}
		d.slowZero.Store(true)
	}
	for off < end {
		n := min(end-off, int64(len(d.zero)))
		if err := d.write(d.zero[:n], off); err != nil {
			return err
		}
		off += n
	}
	return nil
}

func (d *dest) keepZeros(off, n int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.edges = append(d.edges, edge{off, d.zero[:n]})
}

// forgetEdges removes the blocks that wait for finish from those that are known.
func (d *dest) forgetEdges(sums *Digests) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, e := range d.edges {
		if e.off < sums.size {
			sums.known.remove(e.off / int64(sums.block))
		}
	}
}

// sync waits until the device has what was written.
func (d *dest) sync() error {
	if err := retryEINTR(func() error { return unix.Fdatasync(int(d.f.Fd())) }); err != nil {
		return fmt.Errorf("cannot flush destination: %w", err)
	}
	return nil
}

// finish writes the edges, when no direct write is under way any more, and
// waits until the device has everything. It is where late errors surface.
func (d *dest) finish() error {
	for _, e := range d.edges {
		if _, err := d.f.WriteAt(e.data, e.off); err != nil {
			return writeError(e.off, err)
		}
	}
	flush := d.f.Sync
	if d.small.Load() {
		flush = func() error { return directio.Forget(d.f) }
	}
	if err := flush(); err != nil {
		return fmt.Errorf("cannot flush destination: %w", err)
	}
	return nil
}

func zeroError(off int64, err error) error {
	if err != nil {
		return fmt.Errorf("cannot zero destination at %d: %w", off, err)
	}
	return nil
}

// unsupported reports whether err says that there is no such call here, as
// opposed to the call having failed. EINVAL: sectors larger than a page.
func unsupported(err error) bool {
	return errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOTTY) ||
		errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EINVAL)
}

func retryEINTR(f func() error) error {
	for {
		if err := f(); err != unix.EINTR {
			return err
		}
	}
}

// zeroOut is the ioctl BLKZEROOUT: the device zeroes by itself if it can, else
// the kernel writes zeros. Unlike BLKDISCARD it promises that zeros are read.
func zeroOut(f *os.File, off, length int64) error {
	arg := [2]uint64{uint64(off), uint64(length)}
	return retryEINTR(func() error {
		_, _, e := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.BLKZEROOUT, uintptr(unsafe.Pointer(&arg)))
		runtime.KeepAlive(f)
		if e != 0 {
			return e
		}
		return nil
	})
}
