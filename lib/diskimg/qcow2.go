package diskimg

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/lima-vm/go-qcow2reader/image/qcow2"

	"xenlvm/lib/extent"
)

// qcow2Disk is the virtual disk in a standalone qcow2 image.
type qcow2Disk struct {
	img  *qcow2.Qcow2
	file *padded
	size int64
}

// openQcow2 opens the image in f, fileSize bytes long, after its header was
// found harmless: the reader itself would open a backing file by name and
// allocate whatever the header asks for.
func openQcow2(f *os.File, fileSize int64) (*qcow2Disk, error) {
	cluster, err := checkQcow2(f, fileSize)
	if err != nil {
		return nil, err
	}
	// Not f itself: without a name the reader cannot resolve other files.
	file := &padded{f, fileSize, cluster}
	img, err := qcow2.Open(file, nil)
	if err == nil {
		err = img.Readable()
	}
	if err != nil {
		return nil, fmt.Errorf("it is damaged: %w", err)
	}
	return &qcow2Disk{img, file, img.Size()}, nil
}

// The incompatible features of a version 3 header (qemu docs/interop/qcow2).
const (
	qcow2Dirty       = 1 << 0
	qcow2Corrupt     = 1 << 1
	qcow2DataFile    = 1 << 2
	qcow2Compression = 1 << 3
	qcow2ExtendedL2  = 1 << 4
)

// maxL1 is the limit of qemu for the first-level table: 32 MiB.
const maxL1 = 32 << 20 / 8

const standalone = "convert it to a standalone image first: qemu-img convert -O qcow2"

// checkQcow2 refuses an image that refers to anything outside itself, that was
// not closed cleanly, or that needs what the reader does not know. It returns
// the cluster size in bytes.
func checkQcow2(r io.ReaderAt, fileSize int64) (cluster int64, err error) {
	h, err := readAt(r, 0, 112)
	if err != nil {
		return 0, err
	}
	if len(h) < 72 {
		return 0, errors.New("its qcow2 header is truncated")
	}
	u32, u64 := binary.BigEndian.Uint32, binary.BigEndian.Uint64
	version := u32(h[4:])
	if version != 2 && version != 3 {
		return 0, fmt.Errorf("its qcow2 version is %d, only 2 and 3 are known", version)
	}
	var incompatible uint64
	compression := byte(0)
	if version == 3 {
		if len(h) < 104 {
			return 0, errors.New("its qcow2 header is truncated")
		}
		incompatible = u64(h[72:])
		if u32(h[100:]) > 104 && len(h) > 104 {
			compression = h[104]
		}
	}
	switch unknown := incompatible &^ (1<<5 - 1); {
	case unknown != 0:
		return 0, fmt.Errorf("it uses unknown features (%#x)", unknown)
	case incompatible&qcow2DataFile != 0:
		return 0, fmt.Errorf("its data is in an external file (%s)", standalone)
	case incompatible&qcow2Corrupt != 0:
		return 0, errors.New("it is marked corrupt (check it first: qemu-img check -r all)")
	case incompatible&qcow2Dirty != 0:
		return 0, errors.New("it was not closed cleanly or is in use (when the guest is stopped: qemu-img check -r all)")
	case incompatible&qcow2ExtendedL2 != 0:
		return 0, fmt.Errorf("it has subclusters (%s)", standalone)
	case compression != 0:
		return 0, fmt.Errorf("its compression is not zlib (%s)", standalone)
	}
	if u32(h[32:]) != 0 {
		return 0, fmt.Errorf("it is encrypted (%s)", standalone)
	}
	if off := u64(h[8:]); off != 0 {
		name := []byte("?")
		if n := int64(u32(h[16:])); n <= 1023 && off < uint64(fileSize) {
			if name, err = readAt(r, int64(off), int(n)); err != nil {
				return 0, err
			}
		}
		return 0, fmt.Errorf("it has a backing file %q (%s)", name, standalone)
	}
	return checkQcow2Sizes(h, uint64(fileSize))
}

func checkQcow2Sizes(h []byte, fileSize uint64) (cluster int64, err error) {
	bits, size := binary.BigEndian.Uint32(h[20:]), binary.BigEndian.Uint64(h[24:])
	entries, l1 := uint64(binary.BigEndian.Uint32(h[36:])), binary.BigEndian.Uint64(h[40:])
	switch {
	case bits < 9 || bits > 21:
		return 0, fmt.Errorf("its cluster size is 2^%d, not 2^9 to 2^21", bits)
	case size == 0:
		return 0, errors.New("its disk is empty")
	case size%sector != 0:
		return 0, fmt.Errorf("its disk size %d is not a multiple of %d bytes", size, sector)
	}
	perEntry := uint64(1) << (2*bits - 3) // bytes of the disk under one L1 entry
	switch {
	case size > maxL1*perEntry || (size+perEntry-1)/perEntry > entries:
		return 0, fmt.Errorf("its disk of %d bytes does not fit its tables", size)
	case entries > maxL1 || l1 == 0 || l1%(1<<bits) != 0 || l1 > fileSize || entries*8 > fileSize-l1:
		return 0, errors.New("its first-level table is not in the file")
	}
	return 1 << bits, nil
}

// padded is an image file whose last cluster reads as zeros where the file
// ends inside it: qemu leaves the end of the newest cluster unwritten.
type padded struct {
	f             *os.File
	size, cluster int64
}

func (p *padded) ReadAt(b []byte, off int64) (int, error) {
	n, err := p.f.ReadAt(b, off)
	if err != io.EOF || n == len(b) {
		return n, err
	}
	end := (p.size + p.cluster - 1) / p.cluster * p.cluster
	if off+int64(n) < p.size || off+int64(n) >= end {
		return n, err // truncated since, or a reference beyond the file
	}
	pad := b[n:min(int64(len(b)), end-off)]
	clear(pad)
	if n += len(pad); n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (q *qcow2Disk) Size() int64 { return q.size }

// ReadAt reads the virtual disk. The reader below ends a request early at
// compressed clusters, and with io.EOF at that; this one does not: it goes on
// as long as bytes come.
func (q *qcow2Disk) ReadAt(b []byte, off int64) (int, error) {
	if off < 0 || off >= q.size {
		return 0, io.EOF
	}
	want := b[:min(int64(len(b)), q.size-off)]
	done := 0
	for done < len(want) {
		n, err := q.img.ReadAt(want[done:], off+int64(done))
		done += n
		if done < len(want) && (n <= 0 || err != nil && !errors.Is(err, io.EOF)) {
			if err == nil || errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return done, err
		}
	}
	if done < len(b) {
		return done, io.EOF
	}
	return done, nil
}

// Data is the clusters that are neither unallocated nor marked zero. Only it sees that
// the tables are damaged: who reads asks for it first.
func (q *qcow2Disk) Data() (s extent.Set, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("cannot read %s: %w", q.file.f.Name(), err)
		}
	}()
	if err := q.checkTables(); err != nil {
		return s, err
	}
	for off := int64(0); off < q.size; {
		e, err := q.img.Extent(off, q.size-off)
		if err != nil {
			return s, err
		}
		if e.Length <= 0 {
			return s, fmt.Errorf("its cluster map ends at %d", off)
		}
		n := min(e.Length, q.size-off)
		if !e.Zero {
			s = bound(s, off, n)
		}
		off += n
	}
	return s, nil
}
