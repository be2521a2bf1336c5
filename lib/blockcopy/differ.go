package blockcopy

import (
	"context"
	"fmt"
	"sync"

	"xenlvm/lib/extent"
)

// Differ reads src and returns the blocks of it that d does not describe; none
// when d is a description of src. It is what a Copy with d as Options.Before
// would write. What o says of the destination is not used.
func Differ(ctx context.Context, src Source, d *Digests, o Options) (extent.Set, error) {
	if src.Size() != d.size {
		return extent.Set{}, fmt.Errorf("cannot compare source: its size is %d, that of the digests %d", src.Size(), d.size)
	}
	data, err := src.Data()
	if err != nil {
		return extent.Set{}, fmt.Errorf("cannot find the data of source: %w", err)
	}
	block := int64(d.block)
	data = data.Align(block).Clip(d.size)
	var mu sync.Mutex
	var differ extent.Set
	// Blocks outside the data are zeros without being read.
	for r := range extent.Whole(d.size).Subtract(data).Chunks(block) {
		if !d.same(r.Off/block, Sum{}) {
			differ.Add(r.Off, r.Len)
		}
	}
	p := newPace(o, nil, d.block)
	p.now.Total = data.Bytes()
	err = p.each(ctx, data, extent.Set{}, func(buf []byte, r task) error {
		if err := readFull(src, buf, r.Off); err != nil {
			return err
		}
		p.done(r.Len, 0, 0)
		for off := int64(0); off < r.Len; off += block {
			b := buf[off:min(off+block, r.Len)]
			if !d.same((r.Off+off)/block, d.sum(b)) {
				mu.Lock()
				differ.Add(r.Off+off, int64(len(b)))
				mu.Unlock()
			}
		}
		return nil
	})
	return differ, err
}

// Read reads the data of src at the pace of o, for what the source itself does with
// it. It ends with its first error.
func Read(ctx context.Context, src Source, o Options) error {
	data, err := src.Data()
	if err != nil {
		return fmt.Errorf("cannot find the data of source: %w", err)
	}
	p := newPace(o, nil, minBlock)
	p.now.Total = data.Bytes()
	return p.each(ctx, data, extent.Set{}, func(buf []byte, r task) error {
		if err := readFull(src, buf, r.Off); err != nil {
			return err
		}
		p.done(r.Len, 0, 0)
		return nil
	})
}
