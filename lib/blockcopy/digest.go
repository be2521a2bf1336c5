package blockcopy

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/zeebo/xxh3"
)

// Sum is the digest of one block: XXH3, 128 bits, seeded. The zero Sum stands
// for a block of zeros of any length, so that holes need neither reading nor
// hashing.
type Sum [16]byte

// String is the digest in hexadecimal, or "zeros".
func (s Sum) String() string {
	if s == (Sum{}) {
		return "zeros"
	}
	return hex.EncodeToString(s[:])
}

// Digests describes the content of a source: one Sum per block, the last block
// possibly short. Whoever writes the data must not be able to choose two
// blocks with one digest, therefore each set has its own random seed; keep a
// stored set where the guest cannot read it. It tells blocks apart, it does
// not sign them.
type Digests struct {
	block int
	size  int64
	seed  uint64
	sums  []Sum
	// restUnknown says that the destination may hold anything after size: the
	// next copy must zero it. Only Scan leaves it so.
	restUnknown bool
}

const (
	minBlock     = 4096
	maxBlock     = chunkSize
	defaultBlock = 64 << 10
	// maxSums bounds a set of default block size to 16 MiB of memory.
	maxSums = 1 << 20
)

// blockFor is the block size for a source of size bytes when none is asked
// for: 64 KiB, doubled from 64 GiB on so that the digests stay small. Above
// 1 TiB the block stays at 1 MiB and the digests take 16 bytes per MiB.
func blockFor(size int64) int {
	block := defaultBlock
	for block < maxBlock && size/int64(block) > maxSums {
		block *= 2
	}
	return block
}

func checkBlock(block int) error {
	if block < minBlock || block > maxBlock || block&(block-1) != 0 {
		return fmt.Errorf("block size %d is not a power of two from %d to %d", block, minBlock, maxBlock)
	}
	return nil
}

func blockCount(size int64, block int) int64 { return (size + int64(block) - 1) / int64(block) }

func newDigests(size int64, block int) *Digests {
	var seed [8]byte
	_, _ = rand.Read(seed[:]) // never fails: crypto/rand ends the program first
	return &Digests{
		block: block,
		size:  size,
		seed:  binary.LittleEndian.Uint64(seed[:]) | 1,
		sums:  make([]Sum, blockCount(size, block)),
	}
}

// sum digests one block; zero is a buffer of zeros at least as long.
func (d *Digests) sum(b, zero []byte) Sum {
	if bytes.Equal(b, zero[:len(b)]) {
		return Sum{}
	}
	s := Sum(xxh3.Hash128Seed(b, d.seed).Bytes())
	if s == (Sum{}) {
		s[0] = 1 // the zero Sum is taken
	}
	return s
}

// The file format, all integers little-endian: the header {magic, version u32,
// block size u32, source size u64, seed u64, number of sums u64, flags u64}, the
// XXH3-128 of the header, the sums, and the XXH3-128 of everything before. The
// header has its own checksum so that a damaged count is never believed.
const (
	digestMagic   = "xenlvmDG"
	digestVersion = 1
	headerLen     = 8 + 4 + 4 + 8 + 8 + 8 + 8

	flagRestUnknown = 1
)

// WriteTo writes the set in the form that ReadDigests reads.
func (d *Digests) WriteTo(w io.Writer) (int64, error) {
	h := xxh3.New128()
	cw := &countWriter{w: io.MultiWriter(w, h)}
	head := make([]byte, 0, headerLen+16)
	head = append(head, digestMagic...)
	head = binary.LittleEndian.AppendUint32(head, digestVersion)
	head = binary.LittleEndian.AppendUint32(head, uint32(d.block))
	head = binary.LittleEndian.AppendUint64(head, uint64(d.size))
	head = binary.LittleEndian.AppendUint64(head, d.seed)
	head = binary.LittleEndian.AppendUint64(head, uint64(len(d.sums)))
	flags := uint64(0)
	if d.restUnknown {
		flags = flagRestUnknown
	}
	head = binary.LittleEndian.AppendUint64(head, flags)
	sum := xxh3.Hash128(head).Bytes()
	cw.write(append(head, sum[:]...))
	const batch = 4096
	buf := make([]byte, 0, batch*len(Sum{}))
	for i := 0; i < len(d.sums); i += batch {
		buf = buf[:0]
		for _, s := range d.sums[i:min(i+batch, len(d.sums))] {
			buf = append(buf, s[:]...)
		}
		cw.write(buf)
	}
	cw.write(h.Sum(nil))
	if cw.err != nil {
		return cw.n, fmt.Errorf("cannot write digests: %w", cw.err)
	}
	return cw.n, nil
}

type countWriter struct {
	w   io.Writer
	n   int64
	err error
}

func (c *countWriter) write(b []byte) {
	if c.err != nil {
		return
	}
	var n int
	n, c.err = c.w.Write(b)
	c.n += int64(n)
}

// ReadDigests reads a set that WriteTo wrote, up to the end of r. A truncated,
// damaged, longer or newer file is refused: deltas built on wrong digests lose
// data silently.
func ReadDigests(r io.Reader) (*Digests, error) {
	d, err := readDigests(r)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = errors.New("the file is truncated")
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read digests: %w", err)
	}
	return d, nil
}

func readDigests(r io.Reader) (*Digests, error) {
	h := xxh3.New128()
	tr := io.TeeReader(r, h)
	head := make([]byte, headerLen+16)
	if _, err := io.ReadFull(tr, head); err != nil {
		return nil, err
	}
	if string(head[:8]) != digestMagic {
		return nil, errors.New("this is not a digest file")
	}
	if v := binary.LittleEndian.Uint32(head[8:]); v != digestVersion {
		return nil, fmt.Errorf("format version %d is not known, only %d", v, digestVersion)
	}
	if want := xxh3.Hash128(head[:headerLen]).Bytes(); !bytes.Equal(want[:], head[headerLen:]) {
		return nil, errors.New("the header is damaged")
	}
	d := &Digests{
		block: int(binary.LittleEndian.Uint32(head[12:])),
		size:  int64(binary.LittleEndian.Uint64(head[16:])),
		seed:  binary.LittleEndian.Uint64(head[24:]),
	}
	if err := checkBlock(d.block); err != nil {
		return nil, err
	}
	count := int64(binary.LittleEndian.Uint64(head[32:]))
	if d.size < 0 || count != blockCount(d.size, d.block) {
		return nil, fmt.Errorf("%d digests do not describe %d bytes", count, d.size)
	}
	flags := binary.LittleEndian.Uint64(head[40:])
	if flags&^flagRestUnknown != 0 {
		return nil, fmt.Errorf("flags %#x are not known", flags)
	}
	d.restUnknown = flags == flagRestUnknown
	// Grown as data arrives: a short file never makes a large allocation.
	buf := make([]byte, 4096*len(Sum{}))
	for left := count; left > 0; {
		part := buf[:min(left, 4096)*int64(len(Sum{}))]
		if _, err := io.ReadFull(tr, part); err != nil {
			return nil, err
		}
		for s := part; len(s) > 0; s = s[16:] {
			d.sums = append(d.sums, Sum(s[:16]))
		}
		left -= int64(len(part)) / 16
	}
	return d, checkEnd(r, h.Sum(nil))
}

// checkEnd reads the checksum and insists that nothing follows.
func checkEnd(r io.Reader, want []byte) error {
	got := make([]byte, len(want))
	if _, err := io.ReadFull(r, got); err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return errors.New("the checksum does not match: the file is damaged")
	}
	if _, err := io.ReadFull(r, got[:1]); err != io.EOF {
		return errors.New("there is data after the end")
	}
	return nil
}

func (d *Digests) clone() *Digests {
	c := *d
	c.sums = slices.Clone(d.sums)
	return &c
}
