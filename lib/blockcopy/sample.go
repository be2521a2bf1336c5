package blockcopy

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"

	"xenlvm/lib/extent"
)

const (
	// sampleSize is how much is read around a block that was chosen.
	sampleSize = 64 << 10
	// edgeSize is how much of both ends is always read: disks keep their labels there.
	edgeSize = 1 << 20
)

// Sample verifies dst in n blocks that d knows, half of them of data and half of
// zeros, chosen so that nobody can foresee them, and at the ends of source and
// destination. It finds a destination that diverged in many places, or was replaced;
// only Verify finds a single block. A difference is a *MismatchError.
func Sample(ctx context.Context, dst *os.File, d *Digests, n int, o Options) error {
	size, _, err := deviceSize(dst)
	if err != nil {
		return fmt.Errorf("cannot verify destination: %w", err)
	}
	some := d.random(n)
	ends := []int64{0, d.size - edgeSize}
	if !d.restUnknown {
		ends = append(ends, d.size, size-edgeSize)
	}
	for _, off := range ends {
		some.Add(max(off, 0), edgeSize)
	}
	if d.restUnknown {
		some = some.Clip(d.size)
	}
	return Verify(ctx, dst, d, &some, o)
}

// random is the surroundings of n known blocks, as far as there are so many.
func (d *Digests) random(n int) extent.Set {
	var chosen [2][]int64 // of data, of zeros
	var seen [2]int
	for i := range d.sums {
		if !d.knows(int64(i)) {
			continue
		}
		kind := 0
		if d.sums[i] == (Sum{}) {
			kind = 1
		}
		// Each block so far is among the chosen with the same probability.
		seen[kind]++
		if len(chosen[kind]) < (n+1)/2 {
			chosen[kind] = append(chosen[kind], int64(i))
		} else if k := rand.IntN(seen[kind]); k < len(chosen[kind]) {
			chosen[kind][k] = int64(i)
		}
	}
	var s extent.Set
	for _, blocks := range chosen {
		for _, i := range blocks {
			s.Add(i*int64(d.block), int64(d.block))
		}
	}
	return s.Align(sampleSize).Clip(d.size)
}
