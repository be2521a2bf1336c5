package blockcopy

import (
	"iter"
	"math/bits"

	"xenlvm/lib/extent"
)

// blockSet is a set of blocks, one bit for each.
type blockSet []uint64

func newBlockSet(blocks int64) blockSet { return make(blockSet, (blocks+63)/64) }

func (s blockSet) has(i int64) bool { return s[i/64]>>(i%64)&1 != 0 }

// add puts the blocks from first up to, not including, end into the set.
func (s blockSet) add(first, end int64) {
	for i := first; i < end; {
		if i%64 == 0 && end-i >= 64 {
			s[i/64] = ^uint64(0)
			i += 64
			continue
		}
		s[i/64] |= 1 << (i % 64)
		i++
	}
}

func (s blockSet) remove(i int64) { s[i/64] &^= 1 << (i % 64) }

// all yields the blocks in ascending order.
func (s blockSet) all() iter.Seq[int64] {
	return func(yield func(int64) bool) {
		for k, w := range s {
			for ; w != 0; w &= w - 1 {
				if !yield(int64(k)*64 + int64(bits.TrailingZeros64(w))) {
					return
				}
			}
		}
	}
}

func (s blockSet) count() (n int64) {
	for _, w := range s {
		n += int64(bits.OnesCount64(w))
	}
	return n
}

// knows says whether the digest of block i counts.
func (d *Digests) knows(i int64) bool { return d.known == nil || d.known.has(i) }

// same says whether block i is known to have the digest s.
func (d *Digests) same(i int64, s Sum) bool { return d.knows(i) && d.sums[i] == s }

// Size is how many bytes the source had.
func (d *Digests) Size() int64 { return d.size }

// Unknown is the blocks of the source that d says nothing about: those that an
// interrupted Copy did not come to.
func (d *Digests) Unknown() extent.Set {
	var s extent.Set
	if d.known == nil {
		return s
	}
	for r := range extent.Whole(d.size).Chunks(int64(d.block)) {
		if !d.known.has(r.Off / int64(d.block)) {
			s.Add(r.Off, r.Len)
		}
	}
	return s
}

// seal drops the bits of a set that knows all.
func (d *Digests) seal() {
	if d.known != nil && d.known.count() == int64(len(d.sums)) {
		d.known = nil
	}
}

// resized is d for a source that now has size bytes: what both have in common is
// known, as far as it was. What the destination holds behind that is not: it may
// have grown as well.
func (d *Digests) resized(size int64) *Digests {
	n := newDigests(size, d.block)
	n.seed, n.restUnknown = d.seed, true
	n.known = newBlockSet(int64(len(n.sums)))
	for i := range min(size, d.size) / int64(d.block) {
		if d.knows(i) {
			n.sums[i] = d.sums[i]
			n.known.add(i, i+1)
		}
	}
	return n
}
