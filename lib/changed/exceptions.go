package changed

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"xenlvm/lib/directio"
	"xenlvm/lib/extent"
	"xenlvm/lib/lvm"
)

// The persistent exception store of dm-snapshot (Linux, drivers/md/dm-snap-persistent.c):
// the first chunk is a header; then an area, which is a chunk full of exceptions, and as
// many chunks of data as it has exceptions, and so on. All numbers are little-endian.
// The first exception without a new chunk ends the table. The kernel makes the next
// area empty before it fills one, and writes to the origin only after the exception is
// in its area.
const (
	storeMagic   = 0x70416e53 // "SnAp"
	storeVersion = 1
	exception    = 16 // bytes: old chunk, new chunk
	sector       = 512
	maxChunk     = 16 << 20 // bytes, far above what LVM makes (512 KiB)
)

// Exceptions reads the exception store in the first size bytes of r: which bytes of
// the origin, of which it has so many, were written since the snapshot was taken, in
// whole chunks of chunk bytes. The error is lvm.ErrLost when the snapshot has
// overflowed. Requests to r suit O_DIRECT.
func Exceptions(r io.ReaderAt, size, chunk, origin int64) (extent.Set, error) {
	if chunk < sector || chunk > maxChunk || chunk&(chunk-1) != 0 {
		return extent.Set{}, fmt.Errorf("cannot read an exception store with chunks of %d bytes", chunk)
	}
	s := store{r: r, chunk: chunk, chunks: size / chunk, origin: (origin + chunk - 1) / chunk, area: directio.Buffer(int(max(chunk, directio.Align)))}
	s.changed = make([]uint64, (s.origin+63)/64)
	if err := s.header(); err != nil {
		return extent.Set{}, err
	}
	perArea := chunk / exception
	for at := int64(1); ; at += perArea + 1 {
		full, err := s.readArea(at, perArea)
		if err != nil {
			return extent.Set{}, err
		}
		if !full {
			return s.set().Clip(origin), nil
		}
	}
}

// store is an exception store that is being read. Chunks are counted, not in bytes.
type store struct {
	r              io.ReaderAt
	chunk          int64 // bytes
	chunks, origin int64 // of the store, of the origin
	area           []byte
	changed        []uint64 // a bit for each chunk of the origin: exceptions come in the order of the writes
}

func (s *store) header() error {
	b := s.area[:max(s.chunk, directio.Align)]
	if err := s.read(b, 0); err != nil {
		return err
	}
	word := func(i int) uint32 { return binary.LittleEndian.Uint32(b[4*i:]) }
	switch {
	case word(0) != storeMagic:
		return errors.New("cannot read the exception store: it has no header")
	case word(2) != storeVersion:
		return fmt.Errorf("cannot read the exception store: its version is %d, not %d", word(2), storeVersion)
	case int64(word(3))*sector != s.chunk:
		return fmt.Errorf("cannot read the exception store: its chunks have %d bytes, not %d", int64(word(3))*sector, s.chunk)
	case word(1) == 0:
		return fmt.Errorf("cannot read the exception store: %w", lvm.ErrLost)
	case word(1) != 1:
		return fmt.Errorf("cannot read the exception store: it is neither valid nor lost but %d", word(1))
	}
	return nil
}

// readArea reads the exceptions in the chunk at, and says whether there may be another area.
func (s *store) readArea(at, perArea int64) (full bool, err error) {
	if at >= s.chunks {
		return false, fmt.Errorf("cannot read the exception store: it has no end within its %d chunks", s.chunks)
	}
	b := s.area[:s.chunk]
	if err := s.read(b, at*s.chunk); err != nil {
		return false, err
	}
	for i := int64(0); i < s.chunk; i += exception {
		from, to := binary.LittleEndian.Uint64(b[i:]), binary.LittleEndian.Uint64(b[i+8:])
		if to == 0 {
			return false, nil
		}
		// Chunk 0 is the header, and the first of each group an area.
		if from >= uint64(s.origin) || to >= uint64(s.chunks) || to%uint64(perArea+1) == 1 {
			return false, fmt.Errorf("cannot read the exception store: it has chunk %d of the origin's %d in chunk %d of its %d", from, s.origin, to, s.chunks)
		}
		s.changed[from/64] |= 1 << (from % 64)
	}
	return true, nil
}

func (s *store) read(b []byte, at int64) error {
	n, err := s.r.ReadAt(b, at)
	if n == len(b) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("cannot read the exception store: %w", err)
}

// set is the bytes of the origin that changed.
func (s *store) set() extent.Set {
	var set extent.Set
	for i, word := range s.changed {
		for bit := int64(0); word != 0; bit++ {
			if word&1 != 0 {
				set.Add((int64(i)*64+bit)*s.chunk, s.chunk)
			}
			word >>= 1
		}
	}
	return set
}
