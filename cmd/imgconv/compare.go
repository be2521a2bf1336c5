package main

import (
	"context"
	"fmt"
	"io"

	"xenlvm/lib/blockcopy"
)

// filled is a source as large as its destination: with zeros behind it.
type filled struct {
	*source
	size int64
}

func (f filled) Size() int64 { return f.size }

func (f filled) ReadAt(b []byte, off int64) (int, error) {
	n := int(max(0, min(int64(len(b)), f.source.Size()-off)))
	if got, err := f.source.ReadAt(b[:n], off); got < n {
		return got, err
	}
	for i := n; i < len(b); i++ {
		b[i] = 0
	}
	return len(b), nil
}

// fill makes src as large as t, if t is the larger one.
func (t *target) fill(src *source) (filled, error) {
	if t.made {
		return filled{src, src.Size()}, nil
	}
	size, err := t.f.Seek(0, io.SeekEnd)
	t.short = size < src.Size()
	if !t.device {
		t.behind = max(0, size-src.Size())
	}
	return filled{src, max(size, src.Size())}, err
}

// andBehind says what a file that is equal has behind that.
func (t *target) andBehind() string {
	if t.behind == 0 {
		return ""
	}
	return fmt.Sprintf(", and has %d bytes of zeros behind it; --overwrite cuts them off", t.behind)
}

// content is what a destination holds before a copy.
type content struct {
	equal   bool               // to the source
	before  *blockcopy.Digests // of what is there, if it is much like the source
	resumed bool               // an interrupted copy left it
	same    bool               // of this very source
	ours    bool               // nobody's but an interrupted copy's, of which nothing is known
	left    int64              // bytes that an interrupted copy has not come to, where other data are now
}

// compare looks at a destination, and reads no more of it than it must: first a
// sample. What may be overwritten and is much like the source is read for its digests
// only, as the copy compares the source with them; in a dry run there is none.
func (t *target) compare(ctx context.Context, src filled, overwrite, dry bool, o blockcopy.Options) (content, error) {
	if t.empty {
		return content{}, nil
	}
	if t.short {
		var err error
		if !overwrite {
			t.empty, err = blockcopy.Zeros(ctx, t.f, o)
		}
		return content{}, err
	}
	s, err := t.sample(ctx, src, o.Direct)
	if err != nil {
		return content{}, err
	}
	if !overwrite && s.zero == s.chunks { // its size says nothing
		if t.empty, err = blockcopy.Zeros(ctx, t.f, o); err != nil || t.empty {
			return content{}, err
		}
	}
	// To write and read back what is equal already takes longer than to look for it
	// if that is more than half.
	if s.equal < s.chunks && (!overwrite || dry || 2*s.equal < s.chunks) {
		return content{}, nil
	}
	sums, err := blockcopy.Scan(ctx, t.f, src.size, o)
	if err != nil || overwrite && !dry {
		return content{before: sums}, err
	}
	differ, err := blockcopy.Differ(ctx, src, sums, o)
	return content{equal: err == nil && differ.Empty()}, err
}
