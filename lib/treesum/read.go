package treesum

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/zeebo/xxh3"
	"golang.org/x/sys/unix"
)

// xattr is one extended attribute.
type xattr struct{ name, value string }

// xattrLimit is what the kernel allows for all names, and for one value.
const xattrLimit = 64 << 10

// xattrTries bounds how often a list that grows between two calls is read.
const xattrTries = 4

// readXattrs is the extended attributes of an entry of a directory ("" for the
// directory itself), by name. Devices, FIFOs and symlinks cannot be opened, and
// no system call of older kernels takes a directory and a name, therefore the
// way over /proc, which does not follow a symlink at the end.
func readXattrs(dir int, name string) ([]xattr, error) {
	path := fmt.Sprintf("/proc/self/fd/%d/%s", dir, name)
	list := func(buf []byte) (int, error) { return unix.Llistxattr(path, buf) }
	if name == "" {
		list = func(buf []byte) (int, error) { return unix.Flistxattr(dir, buf) }
	}
	names, err := sized(list)
	if errors.Is(err, unix.ENOTSUP) || len(names) == 0 && err == nil {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var xattrs []xattr
	for attr := range strings.SplitSeq(strings.TrimSuffix(string(names), "\x00"), "\x00") {
		if strings.HasPrefix(attr, "trusted.SGI_ACL_") {
			continue
		}
		get := func(buf []byte) (int, error) { return unix.Lgetxattr(path, attr, buf) }
		if name == "" {
			get = func(buf []byte) (int, error) { return unix.Fgetxattr(dir, attr, buf) }
		}
		value, err := sized(get)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", attr, err)
		}
		xattrs = append(xattrs, xattr{attr, string(value)})
	}
	slices.SortFunc(xattrs, func(a, b xattr) int { return strings.Compare(a.name, b.name) })
	return xattrs, nil
}

// sized calls with a buffer of the size that the call asks for.
func sized(call func([]byte) (int, error)) ([]byte, error) {
	var small [256]byte
	n, err := call(small[:])
	if err == nil {
		return slices.Clone(small[:n]), nil
	}
	for range xattrTries {
		if !errors.Is(err, unix.ERANGE) {
			return nil, err
		}
		if n, err = call(nil); err != nil {
			return nil, err
		}
		if n > xattrLimit {
			return nil, fmt.Errorf("%d bytes are too many", n)
		}
		buf := make([]byte, max(n, 1))
		if n, err = call(buf); err == nil {
			return buf[:n], nil
		}
	}
	return nil, err
}

// block is the unit in which contents that are zero are left out of a digest.
const block = 4096

var zeros [block]byte

// largeFile is the size from which a file is dropped from the page cache after
// it was read. For a small one the call takes longer than the reading.
const largeFile = 1 << 20

// reader digests the contents of files.
type reader struct {
	hasher *xxh3.Hasher
	buf    []byte
	read   int64
}

// readContents digests an entry of the walker's current directory, as the
// entry is now: the size that a digest covers is what was read.
func (t *tree) readContents(ctx context.Context, e *entry) (string, error) {
	fd, err := openFile(t.fd, e.name)
	if err != nil {
		return "", t.cannot("open", e.path, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return "", t.cannot("stat", e.path, err)
	}
	if st.Ino != e.ino || st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size != e.size {
		return "", t.cannot("read", e.path, errors.New("it changed during the walk"))
	}
	digest, err := t.reader.digest(ctx, fd, e.size)
	if err != nil {
		return "", t.cannot("read", e.path, err)
	}
	return digest, nil
}

func openFile(dir int, name string) (int, error) {
	// O_NONBLOCK: should the file have become a FIFO, opening it must not hang.
	const flags = unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC
	fd, err := retry(func() (int, error) { return unix.Openat(dir, name, flags|unix.O_NOATIME, 0) })
	if errors.Is(err, unix.EPERM) { // only owners may leave the access time alone
		fd, err = retry(func() (int, error) { return unix.Openat(dir, name, flags, 0) })
	}
	return fd, err
}

// digest is over the blocks that are not zero, each with its number: holes are
// not read, and a hole equals zeros that are stored.
func (r *reader) digest(ctx context.Context, fd int, size int64) (string, error) {
	if r.hasher == nil {
		r.hasher, r.buf = xxh3.New(), make([]byte, 1<<20)
	}
	r.hasher.Reset()
	if size >= largeFile {
		// Dom0's page cache is for others.
		defer func() { _ = unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED) }() // advice
	}
	for off := int64(0); off < size; {
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		data, err := unix.Seek(fd, off, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break // a hole up to the end
		}
		if err != nil {
			return "", err
		}
		hole, err := unix.Seek(fd, data, unix.SEEK_HOLE)
		if err != nil {
			return "", err
		}
		hole = min((hole+block-1)/block*block, size)
		for off = max(off, data/block*block); off < hole; {
			if ctx.Err() != nil {
				return "", context.Cause(ctx)
			}
			n := int(min(int64(len(r.buf)), hole-off))
			if err := readFull(fd, r.buf[:n], off); err != nil {
				return "", err
			}
			r.add(off, r.buf[:n])
			off += int64(n)
		}
	}
	sum := r.hasher.Sum128().Bytes()
	return string(sum[:]), nil
}

func (r *reader) add(off int64, data []byte) {
	r.read += int64(len(data))
	for part := range slices.Chunk(data, block) {
		if !bytes.Equal(part, zeros[:len(part)]) {
			var number [8]byte
			binary.LittleEndian.PutUint64(number[:], uint64(off))
			_, _ = r.hasher.Write(number[:]) // a hash takes all
			_, _ = r.hasher.Write(part)
		}
		off += int64(len(part))
	}
}

func readFull(fd int, buf []byte, off int64) error {
	for len(buf) > 0 {
		n, err := retry(func() (int, error) { return unix.Pread(fd, buf, off) })
		if err != nil {
			return err
		}
		if n == 0 {
			return io.ErrUnexpectedEOF
		}
		buf, off = buf[n:], off+int64(n)
	}
	return nil
}
