package blockcopy

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"xenlvm/lib/directio"
)

// reader reads a destination from the device: past the page cache where the
// kernel allows, else after the cache was dropped.
type reader struct {
	f, direct *os.File
	once      sync.Once // leaving direct reads
	onceErr   error
}

func openReader(f *os.File) (*reader, error) {
	r := &reader{f: f, direct: directio.Reopen(f, os.O_RDONLY)}
	if r.direct == nil {
		return r, directio.Forget(f)
	}
	return r, nil
}

func (r *reader) close() {
	if r.direct != nil {
		_ = r.direct.Close() // was only read
	}
}

// read fills b from the destination. A direct read at the end of a file gives
// less than it was asked for, and the rest must not be asked for again: it
// would be unaligned.
func (r *reader) read(b []byte, off int64) error {
	if r.direct != nil {
		err := readDirect(r.direct, b, off)
		if err == nil || !errors.Is(err, unix.EINVAL) {
			return destReadError(off, err)
		}
		r.once.Do(func() { r.onceErr = directio.Forget(r.f) })
		if r.onceErr != nil {
			return destReadError(off, r.onceErr)
		}
	}
	n, err := r.f.ReadAt(b, off)
	if n == len(b) {
		return nil
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return destReadError(off, err)
}

func readDirect(f *os.File, b []byte, off int64) error {
	full := b[:min((len(b)+align-1)/align*align, cap(b))]
	for got := 0; got < len(b); {
		n, err := unix.Pread(int(f.Fd()), full[got:], off+int64(got))
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return err
		case n == 0 || n%align != 0 && got+n < len(b):
			return io.ErrUnexpectedEOF
		}
		got += n
	}
	return nil
}

func destReadError(off int64, err error) error {
	if err != nil {
		return fmt.Errorf("cannot read destination at %d: %w", off, err)
	}
	return nil
}
