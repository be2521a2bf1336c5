package directio

import (
	"errors"
	"fmt"
	"math"
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Reader reads a file or block device as its Mode says. It is safe for concurrent
// use. What is in memory of a file already comes from there: the disk would be slower,
// and nothing is pushed out by it.
type Reader struct {
	f      *os.File
	direct *os.File // nil: only by way of the page cache
	mode   Mode
	pages  residency
}

// NewReader reads f, which has size bytes and stays the caller's to close.
func NewReader(f *os.File, size int64, mode Mode) (*Reader, error) {
	r := &Reader{f: f, mode: mode}
	if mode == Off {
		return r, nil
	}
	r.direct = Reopen(f, os.O_RDONLY)
	switch {
	case r.direct == nil && mode == On:
		return nil, fmt.Errorf("cannot read %s past the page cache: its file system does not offer that", f.Name())
	case r.direct != nil && mode == Auto:
		// What is read from memory is there: reading ahead would fetch what is not.
		_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_RANDOM)
		// What others write to a device by way of another one above or below it is not
		// seen in its page cache: only that of a file is believed.
		if st, err := f.Stat(); err == nil && st.Mode().IsRegular() {
			r.pages.open(f, size)
		}
	}
	return r, nil
}

// ReadAt reads from memory what mostly is there, and past the page cache what is
// not, where both offset and length suit that.
func (r *Reader) ReadAt(b []byte, off int64) (int, error) {
	if r.direct != nil && !(r.mode == Auto && r.pages.mostly(off, len(b))) {
		n, err := r.direct.ReadAt(b, off)
		if !errors.Is(err, unix.EINVAL) || r.mode == On && len(b)%Align == 0 && off%Align == 0 {
			return n, err
		}
	}
	return r.f.ReadAt(b, off)
}

// Close ends what NewReader began.
func (r *Reader) Close() error {
	r.pages.close()
	if r.direct != nil {
		_ = r.direct.Close() // was only read
	}
	return nil
}

// residency tells which pages of a file are in memory, by mincore(2) of a mapping
// that is never touched: a file that is truncated meanwhile does no harm. (A read
// with RWF_NOWAIT would tell as well, but from Linux 5.9 on it starts to read
// ahead.) Where mapping is refused nothing counts as being in memory.
type residency struct {
	m       []byte
	page    int
	vectors sync.Pool // one byte for each page of a request
}

func (p *residency) open(f *os.File, size int64) {
	if size <= 0 || size > math.MaxInt {
		return // more than this process can map
	}
	m, err := unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return
	}
	p.m, p.page = m, os.Getpagesize()
}

func (p *residency) close() {
	if p.m != nil {
		_ = unix.Munmap(p.m)
		p.m = nil
	}
}

// mostly says whether more than half of the pages of n bytes from off are in
// memory.
func (p *residency) mostly(off int64, n int) bool {
	first := off - off%int64(max(p.page, 1))
	last := min(off+int64(n), int64(len(p.m)))
	if first < 0 || first >= last {
		return false
	}
	part := p.m[first:last]
	pages := (len(part) + p.page - 1) / p.page
	v, _ := p.vectors.Get().(*[]byte)
	if v == nil || len(*v) < pages {
		v = new(make([]byte, pages))
	}
	defer p.vectors.Put(v)
	if _, _, e := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&part[0])), uintptr(len(part)), uintptr(unsafe.Pointer(&(*v)[0]))); e != 0 {
		return false
	}
	in := 0
	for _, resident := range (*v)[:pages] {
		in += int(resident & 1)
	}
	return 2*in > pages
}
