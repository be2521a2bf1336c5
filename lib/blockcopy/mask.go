package blockcopy

import "xenlvm/lib/extent"

// Mask is src with everything outside keep taken for zeros, such as the free
// blocks of its file systems. Where keep ends within a block of the digests all
// of the block is copied.
func Mask(src Source, keep extent.Set) Source { return masked{src, keep} }

type masked struct {
	Source
	keep extent.Set
}

func (m masked) Data() (extent.Set, error) {
	data, err := m.Source.Data()
	return data.Intersect(m.keep), err
}
