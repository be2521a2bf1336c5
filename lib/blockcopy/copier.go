package blockcopy

import (
	"context"
	"fmt"
	"io"
	"sync"

	"xenlvm/lib/extent"
)

// copier is one pass over a source.
type copier struct {
	src    Source
	dst    *dest
	o      Options
	before *Digests   // of the destination; nil on a first copy
	sums   *Digests   // of the source, filled block by block
	look   extent.Set // blocks to look at
	data   extent.Set // those of them that must be read, whole blocks
	zero   []byte

	pace *pace

	mu    sync.Mutex
	stats Stats
}

func (c *copier) run(ctx context.Context) error {
	c.pace = newPace(c.o, c.data.Bytes())
	if err := c.zeroRanges(ctx, c.holes()); err != nil {
		return err
	}
	if err := c.pace.each(ctx, c.data, c.chunk); err != nil {
		return err
	}
	if err := c.zeroRanges(ctx, c.dst.takeZeros()); err != nil {
		return err
	}
	return c.dst.finish()
}

// holes is what must become zero without a look at the source, and notes its
// blocks in the digests. On a first copy that is everything of the destination
// that is not data, on a delta the holes where there were bytes before, and
// the rest of a destination of which only the beginning is known.
func (c *copier) holes() extent.Set {
	if c.before == nil {
		if c.o.KnownZero {
			return extent.Set{}
		}
		return c.data.Complement(c.dst.size)
	}
	var s extent.Set
	if c.before.restUnknown {
		s.Add(c.stats.Size, c.dst.size-c.stats.Size)
	}
	block := int64(c.sums.block)
	for r := range c.look.Subtract(c.data).All() {
		for off := r.Off; off < r.End(); off += block {
			if sum := &c.sums.sums[off/block]; *sum != (Sum{}) {
				*sum = Sum{}
				s.Add(off, min(block, r.End()-off))
			}
		}
	}
	return s
}

// zeroRanges makes s zero in the destination.
func (c *copier) zeroRanges(ctx context.Context, s extent.Set) error {
	for r := range s.Chunks(zeroRequest) {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := c.dst.makeZero(r); err != nil {
			return err
		}
		c.count(r, 0, r.Len)
	}
	return nil
}

// chunk reads r and writes those blocks of it that the destination lacks,
// neighbours in one request.
func (c *copier) chunk(ctx context.Context, buf []byte, r extent.Range) error {
	buf = buf[:r.Len]
	if err := readFull(c.src, buf, r.Off); err != nil {
		return err
	}
	c.mu.Lock()
	c.stats.BytesRead += r.Len
	c.mu.Unlock()

	var run extent.Range // blocks to write, gathered
	flush := func() error {
		if run.Len == 0 {
			return nil
		}
		err := c.dst.write(buf[run.Off-r.Off:run.End()-r.Off], run.Off)
		if err == nil {
			c.count(run, run.Len, 0)
		}
		run = extent.Range{}
		return err
	}
	full := false
	block := int64(c.sums.block)
	for off := r.Off; off < r.End(); off += block {
		b := extent.Range{Off: off, Len: min(block, r.End()-off)}
		switch c.decide(b, buf[off-r.Off:][:b.Len]) {
		case write:
			if run.Len == 0 {
				run.Off = off
			}
			run.Len += b.Len
			continue
		case makeZero:
			full = c.dst.zeroLater(b) || full
		}
		if err := flush(); err != nil {
			return err
		}
	}
	if err := flush(); err != nil {
		return err
	}
	c.pace.done(r.Len, 0, 0)
	if full {
		return c.zeroRanges(ctx, c.dst.takeZeros())
	}
	return nil
}

type action int

const (
	keep action = iota
	write
	makeZero
)

// decide notes the digest of a block and says what the destination needs.
// Every block belongs to one chunk, so no other worker touches its digest.
func (c *copier) decide(r extent.Range, b []byte) action {
	sum := &c.sums.sums[r.Off/int64(c.sums.block)]
	was := *sum
	*sum = c.sums.sum(b, c.zero)
	switch {
	case c.before != nil && *sum == was:
		return keep
	case *sum != Sum{}:
		return write
	case c.before == nil && c.o.KnownZero:
		return keep
	}
	return makeZero
}

// count books what was done to the destination.
func (c *copier) count(r extent.Range, written, zeroed int64) {
	c.mu.Lock()
	c.stats.BytesWritten += written
	c.stats.BytesZeroed += zeroed
	c.stats.Written.Add(r.Off, r.Len)
	c.mu.Unlock()
	c.pace.done(0, written, zeroed)
}

// readFull reads len(b) bytes of the source, all of which are below its Size.
func readFull(src io.ReaderAt, b []byte, off int64) error {
	n, err := src.ReadAt(b, off)
	if n == len(b) {
		return nil // at its end a reader may give io.EOF with the last bytes
	}
	if err == nil || err == io.EOF {
		err = fmt.Errorf("it ends at %d: %w", off+int64(max(n, 0)), io.ErrUnexpectedEOF)
	}
	return fmt.Errorf("cannot read source at %d: %w", off, err)
}
