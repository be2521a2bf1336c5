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
// kernel and the user allow, else after the cache was dropped. A directio.Reader
// reads from memory what is there: what the device has is not proven by that.
type reader struct {
	f, direct *os.File
	mode      directio.Mode
	once      sync.Once // leaving direct reads
	onceErr   error
}

func openReader(f *os.File, mode directio.Mode) (*reader, error) {
	r := &reader{f: f, mode: mode}
	if mode != directio.Off {
		r.direct = directio.Reopen(f, os.O_RDONLY)
	}
	switch {
	case r.direct != nil:
		return r, nil
	case mode == directio.On:
		return nil, fmt.Errorf("cannot read %s past the page cache: its file system does not offer that", f.Name())
	}
	return r, directio.Forget(f)
}

func (r *reader) close() {
	if r.direct != nil {
		_ = r.direct.Close() // was only read
	}
}

// read fills b from the destination.
func (r *reader) read(b []byte, off int64) error {
	_, err := r.ReadAt(b, off)
	if err != nil {
		return fmt.Errorf("cannot read destination at %d: %w", badAt(r, b, off), err)
	}
	return nil
}

// ReadAt reads all of b or nothing. A direct read at the end of a file gives less
// than it was asked for, and the rest must not be asked for again: it would be
// unaligned.
func (r *reader) ReadAt(b []byte, off int64) (int, error) {
	if r.direct != nil {
		err := readDirect(r.direct, b, off)
		if err == nil {
			return len(b), nil
		}
		if !errors.Is(err, unix.EINVAL) || r.mode == directio.On {
			return 0, err
		}
		r.once.Do(func() { r.onceErr = directio.Forget(r.f) })
		if r.onceErr != nil {
			return 0, r.onceErr
		}
	}
	n, err := r.f.ReadAt(b, off)
	if n == len(b) {
		return n, nil
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return 0, err
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
