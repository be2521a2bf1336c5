package blockcopy

import (
	"context"
	"slices"
	"sync"
	"time"
)

// checkpointEvery is how much work a copy that is killed may have to repeat.
const checkpointEvery = time.Second

// checkpointing does work and calls Options.Checkpoint meanwhile, whose error ends
// the work.
func (c *copier) checkpointing(ctx context.Context, work func(context.Context) error) error {
	if c.o.Checkpoint == nil {
		return work(ctx)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	worked := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for pause := checkpointEvery; ; {
			select {
			case <-worked:
				return
			case <-time.After(pause):
			}
			began := time.Now()
			if err := c.checkpoint(); err != nil {
				cancel(err)
				return
			}
			// Where that is slow it is done less often: one part in twenty.
			pause = max(checkpointEvery, 20*time.Since(began))
		}
	})
	err := work(ctx)
	close(worked)
	wg.Wait()
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return err
}

// checkpoint passes on what is equal in both, and on the device, by now. Blocks
// that are known do not change any more, so their sums can be read while others
// are written.
func (c *copier) checkpoint() error {
	d := *c.sums
	c.mu.Lock()
	d.known = slices.Clone(d.known)
	c.mu.Unlock()
	d.restUnknown = c.was.restUnknown
	c.dst.forgetEdges(&d)
	if err := c.dst.sync(); err != nil {
		return err
	}
	return c.o.Checkpoint(&d)
}
