// Package blockcopy copies an image onto a block device or a file, block by
// block, and later only the blocks that changed since.
//
// The first Copy makes the whole destination equal to the source: data is
// written, and everything else (holes, blocks of zeros, the rest of a larger
// device) is made zero, because a reused volume holds another guest's bytes.
// It returns the digests of the source. A second Copy that is given them as
// Options.Before reads the source once, the destination never, and writes the
// blocks that differ. Verify reads the destination from the device and
// compares it with the digests. Where digests are lost, Scan makes them from
// the destination.
//
// Copy trusts Source.Data: what it leaves out is not read. It never guesses: a
// read error, a source shorter than it said, a failed flush all end the copy.
// A destination is only as described when Copy has returned no error.
package blockcopy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"xenlvm/lib/directio"
	"xenlvm/lib/extent"
)

// chunkSize is the size of one request to the source and the largest to the
// destination. With the default workers 4 MiB are under way.
const chunkSize = 1 << 20

const defaultWorkers = 4

// Source is an image of fixed size. ReadAt is called from several goroutines
// at once; bytes outside Data must read as zeros.
type Source interface {
	io.ReaderAt
	// Size is the length in bytes.
	Size() int64
	// Data is the ranges that may hold other bytes than zero.
	Data() (extent.Set, error)
}

// Options of a Copy; the zero value is a good one. Verify uses BytesPerSecond,
// Workers and Progress, Scan uses BlockSize as well.
type Options struct {
	// BlockSize is the number of bytes under one digest and the unit of a
	// delta: a power of two, 4 KiB to 1 MiB. 0 is that of Before, or 64 KiB
	// (more for sources above 64 GiB).
	BlockSize int
	// Before is what the destination holds, as an earlier Copy onto it or a
	// Scan of it returned. Only blocks that differ from it are written or
	// zeroed, and the rest of the destination is not touched.
	Before *Digests
	// Only limits a delta to the blocks that these ranges touch: the caller
	// knows that the others did not change since Before, which is required.
	Only *extent.Set
	// KnownZero says that a first copy finds a destination of zeros.
	KnownZero bool
	// BytesPerSecond limits reading, and thereby writing. 0 is no limit.
	BytesPerSecond int64
	// Workers is the number of requests under way. 0 is 4.
	Workers int
	// Progress is called after every request, never twice at a time.
	Progress func(Progress)
}

// Progress tells how far a Copy or Verify is, in bytes.
type Progress struct {
	Total   int64 // to be read, once everything is known
	Read    int64
	Written int64
	Zeroed  int64
}

// Stats is what a Copy did, in bytes.
type Stats struct {
	Size           int64 // of the source
	BytesRead      int64 // from the source
	BytesWritten   int64 // data written; zeros are not data
	BytesZeroed    int64 // made zero in the destination
	BytesUnchanged int64 // of the source, already in the destination
	Elapsed        time.Duration
	Written        extent.Set // what was written or zeroed: verify these after a delta
}

// Copy makes dst equal to src, as the package comment says, and waits until
// the device has it. dst must be open for writing; a block device must not be
// smaller than src, a file grows to its size. The digests describe src and
// thereby dst; they are nil if there is an error. Cancelling ctx ends the copy
// after the requests under way, with context.Cause(ctx).
func Copy(ctx context.Context, dst *os.File, src Source, o Options) (Stats, *Digests, error) {
	start := time.Now()
	c, err := newCopier(dst, src, o)
	if err != nil {
		return Stats{}, nil, err
	}
	defer c.dst.close()
	err = c.run(ctx)
	c.stats.Elapsed = time.Since(start)
	if err != nil {
		return c.stats, nil, err
	}
	c.stats.BytesUnchanged = max(0, c.stats.Size-c.stats.Written.Clip(c.stats.Size).Bytes())
	return c.stats, c.sums, nil
}

// newCopier checks everything that can be checked before the first write.
func newCopier(dst *os.File, src Source, o Options) (*copier, error) {
	size := src.Size()
	if size < 0 {
		return nil, fmt.Errorf("cannot copy source: its size is %d", size)
	}
	if o.Only != nil && o.Before == nil {
		return nil, errors.New("cannot copy only some ranges without the digests of an earlier copy")
	}
	if b := o.Before; b != nil {
		if b.size != size {
			return nil, fmt.Errorf("cannot copy the changes of source: its size was %d and is %d", b.size, size)
		}
		if o.BlockSize != 0 && o.BlockSize != b.block {
			return nil, fmt.Errorf("cannot copy the changes of source: block size %d, but %d in the earlier digests", o.BlockSize, b.block)
		}
		o.BlockSize = b.block
	}
	if o.BlockSize == 0 {
		o.BlockSize = blockFor(size)
	}
	if err := checkBlock(o.BlockSize); err != nil {
		return nil, fmt.Errorf("cannot copy source: %w", err)
	}
	data, err := src.Data()
	if err != nil {
		return nil, fmt.Errorf("cannot find the data of source: %w", err)
	}
	c := &copier{src: src, o: o, before: o.Before, zero: directio.Buffer(chunkSize)}
	c.stats.Size = size
	if c.before == nil {
		c.sums = newDigests(size, o.BlockSize)
	} else {
		c.sums = c.before.clone()
		c.sums.restUnknown = false
	}
	c.look = extent.Whole(size)
	if o.Only != nil {
		c.look = o.Only.Align(int64(o.BlockSize)).Clip(size)
	}
	c.data = data.Align(int64(o.BlockSize)).Intersect(c.look)
	if c.dst, err = openDest(dst, size, c.zero); err != nil {
		return nil, err
	}
	return c, nil
}

// pace is what Copy and Verify share: workers over chunks, a rate, progress.
type pace struct {
	workers  int
	limit    *rate.Limiter // nil: none
	progress func(Progress)

	mu  sync.Mutex
	now Progress
}

func newPace(o Options, total int64) *pace {
	p := &pace{workers: o.Workers, progress: o.Progress, now: Progress{Total: total}}
	if p.workers <= 0 {
		p.workers = defaultWorkers
	}
	if o.BytesPerSecond > 0 {
		// WaitN refuses more than the burst, which must hold a whole request.
		p.limit = rate.NewLimiter(rate.Limit(o.BytesPerSecond), int(min(max(chunkSize, o.BytesPerSecond/10), math.MaxInt32)))
	}
	return p
}

// done counts a request.
func (p *pace) done(read, written, zeroed int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.now.Read += read
	p.now.Written += written
	p.now.Zeroed += zeroed
	if p.progress != nil {
		p.progress(p.now)
	}
}

// wait holds a request of n bytes back until the rate allows it.
func (p *pace) wait(ctx context.Context, n int64) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if p.limit == nil {
		return nil
	}
	if err := p.limit.WaitN(ctx, int(n)); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return context.DeadlineExceeded // the limiter knows that the deadline comes first
	}
	return nil
}

// each calls do for every chunk of s, from p.workers goroutines that each own
// a buffer. The first error stops the others and is returned.
func (p *pace) each(ctx context.Context, s extent.Set, do func(ctx context.Context, buf []byte, r extent.Range) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	work := make(chan extent.Range)
	var wg sync.WaitGroup
	for range p.workers {
		wg.Go(func() {
			buf := directio.Buffer(chunkSize)
			for r := range work {
				err := p.wait(ctx, r.Len)
				if err == nil {
					err = do(ctx, buf, r)
				}
				if err != nil {
					cancel(err)
					return
				}
			}
		})
	}
feed:
	for r := range s.Chunks(chunkSize) {
		select {
		case work <- r:
		case <-ctx.Done():
			break feed
		}
	}
	close(work)
	wg.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}
