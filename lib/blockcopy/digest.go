package blockcopy

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"fmt"
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
	// known is the blocks whose sums count; nil is all. The others are equal to
	// nothing.
	known blockSet
	// restUnknown says that the destination may hold anything after size: the
	// next copy must zero it.
	restUnknown bool
}

const (
	minBlock = 4096
	maxBlock = 8 << 20
	// maxSums bounds a set of default block size to 16 MiB of memory.
	maxSums = 1 << 20
)

// blockFor is the block size for a source of size bytes when none is asked
// for: 4 KiB, doubled from 4 GiB on so that the digests stay small. Above 8 TiB
// the block stays at 8 MiB and the digests take 2 MiB per TiB.
func blockFor(size int64) int {
	block := minBlock
	for block < maxBlock && blockCount(size, block) > maxSums {
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

// sum digests one block.
func (d *Digests) sum(b []byte) Sum {
	if isZero(b) {
		return Sum{}
	}
	s := Sum(xxh3.Hash128Seed(b, d.seed).Bytes())
	if s == (Sum{}) {
		s[0] = 1 // the zero Sum is taken
	}
	return s
}

// isZero says whether b is nothing but zeros.
func isZero(b []byte) bool {
	return len(b) == 0 || b[0] == 0 && bytes.Equal(b[1:], b[:len(b)-1])
}

// clone is a copy that shares nothing. Long runs of zeros are not touched, so that
// they take no memory.
func (d *Digests) clone() *Digests {
	c := *d
	c.known = slices.Clone(d.known)
	c.sums = make([]Sum, len(d.sums))
	const page = minBlock / len(Sum{})
	for i := 0; i < len(d.sums); i += page {
		part := d.sums[i:min(i+page, len(d.sums))]
		if slices.ContainsFunc(part, func(s Sum) bool { return s != Sum{} }) {
			copy(c.sums[i:], part)
		}
	}
	return &c
}

// nothing is digests of which no block is known, nor what is behind them.
func nothing(size int64, block int) *Digests {
	d := newDigests(size, block)
	d.known, d.restUnknown = newBlockSet(int64(len(d.sums))), true
	return d
}
