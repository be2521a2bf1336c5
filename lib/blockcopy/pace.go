package blockcopy

import (
	"context"
	"iter"
	"math"
	"os"
	"sync"

	"golang.org/x/time/rate"

	"xenlvm/lib/blkdev"
	"xenlvm/lib/directio"
	"xenlvm/lib/extent"
)

const (
	// chunkSize is the size of one request to the source and the largest to the
	// destination, as long as a block of the digests is not larger.
	chunkSize = 1 << 20
	// buffers bounds what all workers hold together, in bytes.
	buffers = 16 << 20

	defaultWorkers = 8
	// A disk that turns loses more by going to and fro than by waiting.
	rotationalChunk, rotationalWorkers = 4 << 20, 2
)

// pace is what all passes share: workers over requests, a rate, progress.
type pace struct {
	workers  int
	chunk    int64         // the largest request
	limit    *rate.Limiter // nil: none
	yield    func(context.Context)
	progress func(Progress)

	mu  sync.Mutex
	now Progress
}

// newPace is for reading or writing f by blocks of that size.
func newPace(o Options, f *os.File, block int) *pace {
	p := &pace{workers: defaultWorkers, chunk: chunkSize, yield: o.Yield, progress: o.Progress}
	if f != nil && blkdev.Rotational(f) {
		p.workers = rotationalWorkers
		if o.BytesPerSecond == 0 { // a large request is a long time then
			p.chunk = rotationalChunk
		}
	}
	p.chunk = max(p.chunk, int64(block))
	if o.Workers > 0 {
		p.workers = o.Workers
	}
	p.workers = min(p.workers, int(max(2, buffers/p.chunk)))
	if o.BytesPerSecond > 0 {
		// WaitN refuses more than the burst, which must hold a whole request.
		p.limit = rate.NewLimiter(rate.Limit(o.BytesPerSecond), int(min(max(p.chunk, o.BytesPerSecond/10), math.MaxInt32)))
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

// wait holds a request that reads n bytes back until the rate, and whoever else
// wants the disk, allow it.
func (p *pace) wait(ctx context.Context, n int64) error {
	if p.yield != nil {
		p.yield(ctx)
	}
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

// task is one request: to look at a range, or to make it zero.
type task struct {
	extent.Range
	zero bool
}

// tasks cuts both sets into requests, in the order of their offsets.
func (p *pace) tasks(look, zero extent.Set) iter.Seq[task] {
	return func(yield func(task) bool) {
		next, stop := iter.Pull(zero.Chunks(zeroRequest))
		defer stop()
		z, more := next()
		for r := range look.Chunks(p.chunk) {
			for ; more && z.Off < r.Off; z, more = next() {
				if !yield(task{z, true}) {
					return
				}
			}
			if !yield(task{r, false}) {
				return
			}
		}
		for ; more && yield(task{z, true}); z, more = next() {
		}
	}
}

// each calls do for every task of look and zero, from p.workers goroutines that
// each own a buffer. The first error stops the others and is returned.
func (p *pace) each(ctx context.Context, look, zero extent.Set, do func(buf []byte, t task) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	work := make(chan task)
	var wg sync.WaitGroup
	for range p.workers {
		wg.Go(func() {
			buf := directio.Buffer(int(p.chunk))
			for t := range work {
				if err := p.one(ctx, buf, t, do); err != nil {
					cancel(err)
					return
				}
			}
		})
	}
feed:
	for t := range p.tasks(look, zero) {
		select {
		case work <- t:
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

func (p *pace) one(ctx context.Context, buf []byte, t task, do func(buf []byte, t task) error) error {
	n := t.Len
	if t.zero {
		buf, n = nil, 0
	} else {
		buf = buf[:n]
	}
	if err := p.wait(ctx, n); err != nil {
		return err
	}
	return do(buf, t)
}
