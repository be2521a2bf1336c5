package blockcopy

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/zeebo/xxh3"
)

// The file format, all integers little-endian: the header {magic, version u32,
// block size u32, source size u64, seed u64, number of blocks u64, flags u64}, the
// XXH3-128 of the header, the content, and the XXH3-128 of everything before. The
// header has its own checksum so that a damaged count is never believed. The
// content of version 1 is all sums. That of version 2 is one bit for each block that
// is known, if not all are, one for each that has another sum than that of zeros,
// both in words of u64, and those sums: what is not allocated takes hardly any room.
const (
	digestMagic = "xenlvmDG"
	versionAll  = 1 // only read
	version     = 2
	headerLen   = 8 + 4 + 4 + 8 + 8 + 8 + 8

	flagRestUnknown = 1
	flagPartial     = 2
)

// batch is how many bytes are read or written at a time: whole words and sums.
const batch = 64 << 10

// WriteTo writes the set in the form that ReadDigests reads.
func (d *Digests) WriteTo(w io.Writer) (int64, error) {
	h := xxh3.New128()
	cw := &countWriter{w: io.MultiWriter(w, h)}
	head := make([]byte, 0, headerLen+16)
	head = append(head, digestMagic...)
	head = binary.LittleEndian.AppendUint32(head, version)
	head = binary.LittleEndian.AppendUint32(head, uint32(d.block))
	head = binary.LittleEndian.AppendUint64(head, uint64(d.size))
	head = binary.LittleEndian.AppendUint64(head, d.seed)
	head = binary.LittleEndian.AppendUint64(head, uint64(len(d.sums)))
	flags := uint64(0)
	if d.restUnknown {
		flags |= flagRestUnknown
	}
	if d.known != nil {
		flags |= flagPartial
	}
	head = binary.LittleEndian.AppendUint64(head, flags)
	sum := xxh3.Hash128(head).Bytes()
	cw.write(append(head, sum[:]...))
	buf := make([]byte, 0, batch)
	flush := func(more int) {
		if len(buf)+more > batch {
			cw.write(buf)
			buf = buf[:0]
		}
	}
	stored := d.stored()
	for _, w := range slices.Concat(d.known, stored) {
		flush(8)
		buf = binary.LittleEndian.AppendUint64(buf, w)
	}
	for i := range stored.all() {
		flush(len(Sum{}))
		buf = append(buf, d.sums[i][:]...)
	}
	cw.write(buf)
	cw.write(h.Sum(nil))
	if cw.err != nil {
		return cw.n, fmt.Errorf("cannot write digests: %w", cw.err)
	}
	return cw.n, nil
}

// stored is the blocks whose sums a file holds.
func (d *Digests) stored() blockSet {
	s := newBlockSet(int64(len(d.sums)))
	for i := range d.sums {
		if d.knows(int64(i)) && d.sums[i] != (Sum{}) {
			s.add(int64(i), int64(i)+1)
		}
	}
	return s
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
	v := binary.LittleEndian.Uint32(head[8:])
	if v != versionAll && v != version {
		return nil, fmt.Errorf("format version %d is not known, only %d and %d", v, versionAll, version)
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
	if flags&^(flagRestUnknown|flagPartial) != 0 || v == versionAll && flags&flagPartial != 0 {
		return nil, fmt.Errorf("flags %#x are not known", flags)
	}
	d.restUnknown = flags&flagRestUnknown != 0
	var err error
	if v == versionAll {
		d.sums = make([]Sum, 0, min(count, maxSums))
		err = inBatches(tr, count, len(Sum{}), func(b []byte) { d.sums = append(d.sums, Sum(b)) })
	} else {
		err = d.readSums(tr, count, flags&flagPartial != 0)
	}
	if err != nil {
		return nil, err
	}
	return d, checkEnd(r, h.Sum(nil))
}

// readSums reads the bits of known and stored blocks, and the sums.
func (d *Digests) readSums(r io.Reader, count int64, partial bool) (err error) {
	if partial {
		if d.known, err = readBlockSet(r, count); err != nil {
			return err
		}
	}
	stored, err := readBlockSet(r, count)
	if err != nil {
		return err
	}
	d.sums = make([]Sum, count) // of which at most 128 times what was read
	i, misplaced := int64(0), false
	err = inBatches(r, stored.count(), len(Sum{}), func(b []byte) {
		for !stored.has(i) {
			i++
		}
		d.sums[i] = Sum(b)
		misplaced = misplaced || !d.knows(i) || d.sums[i] == Sum{}
		i++
	})
	if err == nil && misplaced {
		err = errors.New("it has sums where it should not")
	}
	return err
}

func readBlockSet(r io.Reader, count int64) (blockSet, error) {
	s := blockSet{}
	err := inBatches(r, (count+63)/64, 8, func(b []byte) {
		s = append(s, binary.LittleEndian.Uint64(b))
	})
	if err == nil && count%64 != 0 && s[count/64]>>(count%64) != 0 {
		err = errors.New("it has blocks behind the end")
	}
	return s, err
}

// inBatches reads n items of size bytes each. What is made of them grows as data
// arrives: a short file never makes a large allocation.
func inBatches(r io.Reader, n int64, size int, take func([]byte)) error {
	buf := make([]byte, batch)
	for n > 0 {
		part := buf[:min(n, int64(batch/size))*int64(size)]
		if _, err := io.ReadFull(r, part); err != nil {
			return err
		}
		n -= int64(len(part) / size)
		for ; len(part) > 0; part = part[size:] {
			take(part[:size])
		}
	}
	return nil
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
