package blockcopy

import (
	"context"
	"fmt"
	"io"
	"sync"

	"xenlvm/lib/extent"
)

// copier is one pass over a source. A first copy is a delta of which nothing, or
// nothing but zeros, is known.
type copier struct {
	src  Source
	dst  *dest
	o    Options
	look extent.Set // blocks to look at
	data extent.Set // those of them that must be read, whole blocks
	pace *pace

	// sums begin as what is known of the destination, was, and share its memory.
	// A block belongs to one task: no other worker touches its digest. The blocks
	// that sums knows are equal in both.
	sums *Digests
	was  Digests

	mu    sync.Mutex
	stats Stats
}

func (c *copier) run(ctx context.Context) error {
	zero := c.holes()
	c.pace.now.Total = c.data.Bytes()
	err := c.checkpointing(ctx, func(ctx context.Context) error {
		return c.pace.each(ctx, c.data, zero, c.do)
	})
	if err != nil {
		return err
	}
	return c.dst.finish()
}

// holes is what must become zero without a look at the source, and notes its
// blocks in the digests.
func (c *copier) holes() extent.Set {
	var s extent.Set
	block := int64(c.sums.block)
	for r := range c.look.Subtract(c.data).Chunks(block) {
		i := r.Off / block
		if c.was.same(i, Sum{}) {
			c.sums.known.add(i, i+1)
			continue
		}
		if c.sums.sums[i] != (Sum{}) { // else it would take memory
			c.sums.sums[i] = Sum{}
		}
		s.Add(r.Off, r.Len)
	}
	if c.was.restUnknown {
		s.Add(c.stats.Size, c.dst.size-c.stats.Size)
	}
	return s
}

func (c *copier) do(buf []byte, t task) error {
	if !t.zero {
		return c.chunk(buf, t.Range)
	}
	if err := c.dst.makeZero(t.Range); err != nil {
		return err
	}
	c.count(t.Range, Stats{BytesZeroed: t.Len, Written: extent.Of(t.Range)})
	return nil
}

// chunk reads r and makes the destination equal to it where it is not.
func (c *copier) chunk(buf []byte, r extent.Range) error {
	if err := readFull(c.src, buf, r.Off); err != nil {
		return err
	}
	st := Stats{BytesRead: r.Len}
	w := run{dst: c.dst, st: &st, buf: buf, at: r.Off}
	block := int64(c.sums.block)
	for off := r.Off; off < r.End(); off += block {
		b := buf[off-r.Off : min(off+block, r.End())-r.Off]
		i := off / block
		sum, wasZero := c.sums.sum(b), c.was.same(i, Sum{})
		if c.was.same(i, sum) {
			continue
		}
		c.sums.sums[i] = sum
		st.Written.Add(off, int64(len(b)))
		if err := w.block(off, b, sum, wasZero); err != nil {
			return err
		}
	}
	if err := w.flush(); err != nil {
		return err
	}
	c.count(r, st)
	return nil
}

// run gathers neighbouring pages of a chunk into one request: all data, or all
// zeros.
type run struct {
	dst *dest
	st  *Stats
	buf []byte // the chunk
	at  int64  // its offset
	task
}

// block takes a block of that digest, which the destination must get. Pages of zeros
// are not written but made, unless they are there already.
func (w *run) block(off int64, b []byte, sum Sum, wasZero bool) error {
	if sum == (Sum{}) {
		return w.add(extent.Range{Off: off, Len: int64(len(b))}, true) // of which not all was zero
	}
	for len(b) > 0 {
		page := b[:min(align, len(b))]
		zero := isZero(page)
		if !zero || !wasZero {
			if err := w.add(extent.Range{Off: off, Len: int64(len(page))}, zero); err != nil {
				return err
			}
		}
		off, b = off+int64(len(page)), b[len(page):]
	}
	return nil
}

// add joins r to what was gathered, or makes a request of that first.
func (w *run) add(r extent.Range, zero bool) error {
	if w.Len > 0 && w.zero == zero && w.End() == r.Off {
		w.Len += r.Len
		return nil
	}
	err := w.flush()
	w.task = task{r, zero}
	return err
}

// flush makes the request.
func (w *run) flush() (err error) {
	switch {
	case w.Len == 0:
	case w.zero:
		err = w.dst.makeZero(w.Range)
		w.st.BytesZeroed += w.Len
	default:
		err = w.dst.write(w.buf[w.Off-w.at:w.End()-w.at], w.Off)
		w.st.BytesWritten += w.Len
	}
	w.task = task{}
	return err
}

// count books that r is equal in both now, and what was done for it.
func (c *copier) count(r extent.Range, st Stats) {
	block := int64(c.sums.block)
	c.mu.Lock()
	c.stats.BytesRead += st.BytesRead
	c.stats.BytesWritten += st.BytesWritten
	c.stats.BytesZeroed += st.BytesZeroed
	for w := range st.Written.All() {
		c.stats.Written.Add(w.Off, w.Len)
	}
	if end := min(r.End(), c.stats.Size); r.Off < end {
		c.sums.known.add(r.Off/block, blockCount(end, c.sums.block))
	}
	c.mu.Unlock()
	c.pace.done(st.BytesRead, st.BytesWritten, st.BytesZeroed)
}

// readFull reads len(b) bytes of the source, all of which are below its Size.
func readFull(src io.ReaderAt, b []byte, off int64) error {
	n, err := src.ReadAt(b, off)
	if n == len(b) {
		return nil // at its end a reader may give io.EOF with the last bytes
	}
	n = max(n, 0)
	if err == nil || err == io.EOF {
		err = fmt.Errorf("it ends at %d: %w", off+int64(n), io.ErrUnexpectedEOF)
	} else {
		off = badAt(src, b[n:], off+int64(n))
	}
	return fmt.Errorf("cannot read source at %d: %w", off, err)
}

// badAt is where a request that failed cannot be read: it is repeated by pages.
func badAt(r io.ReaderAt, b []byte, off int64) int64 {
	for at := 0; at < len(b); at += align {
		page := b[at:min(at+align, len(b))]
		if n, err := r.ReadAt(page, off+int64(at)); n < len(page) && err != nil {
			return off + int64(at+max(n, 0))
		}
	}
	return off
}
