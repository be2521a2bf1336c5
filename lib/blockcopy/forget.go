package blockcopy

import "xenlvm/lib/extent"

// Forget is d without what it knows of the blocks that ranges touch. As Options.Before
// beside an empty Options.Only it makes a Copy write these blocks, whatever the
// destination holds there, and look at no other.
func (d *Digests) Forget(ranges extent.Set) *Digests {
	f := d.clone()
	if f.known == nil {
		f.known = newBlockSet(int64(len(f.sums)))
		f.known.add(0, int64(len(f.sums)))
	}
	for r := range ranges.Clip(d.size).Align(int64(d.block)).Chunks(int64(d.block)) {
		f.known.remove(r.Off / int64(d.block))
	}
	return f
}

// Data is the blocks that d knows to hold other bytes than zeros.
func (d *Digests) Data() extent.Set {
	var s extent.Set
	for i, sum := range d.sums {
		if sum != (Sum{}) && d.knows(int64(i)) {
			s.Add(int64(i)*int64(d.block), int64(d.block))
		}
	}
	return s.Clip(d.size)
}
