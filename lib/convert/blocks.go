package convert

import (
	"context"
	"errors"
	"os"
	"sync"

	"xenlvm/lib/blkdev"
	"xenlvm/lib/blockcopy"
	"xenlvm/lib/diskimg"
	"xenlvm/lib/extent"
	"xenlvm/lib/fault"
	"xenlvm/lib/host"
	"xenlvm/lib/lvm"
	"xenlvm/lib/snap"
)

// blocksPass is what a copy by blocks leaves to be verified.
type blocksPass struct {
	sums   *blockcopy.Digests
	used   extent.Set
	ranges *extent.Set // nil: all of the destination
	wrote  bool
	before int64 // the destination's counter of written sectors, before it wrote
}

// copyBlocks copies what is in use of the image in the snapshot to the destination.
func (c *Conversion) copyBlocks(ctx context.Context, s *source, d *Disk) (blocksPass, error) {
	src, err := diskimg.OpenSourceDirect(s.image(d), d.Format, c.o.Direct)
	if err != nil {
		return blocksPass{}, err
	}
	defer src.Close()
	used, err := c.used(src, d)
	if err != nil {
		return blocksPass{}, err
	}
	dst, err := blkdev.OpenExclusive(d.Dest.Path, os.O_RDWR)
	if err != nil {
		return blocksPass{}, err
	}
	defer dst.Close()
	before, err := c.before(ctx, d, dst, src.Size())
	if err != nil {
		return blocksPass{}, err
	}
	counter, _, err := counted(d)
	if err != nil {
		return blocksPass{}, err
	}
	o, finished := c.options("copy " + d.VDev)
	o.Before, o.Only, o.BytesPerSecond, o.Checkpoint = before, c.lookAt(s, d, used), c.o.Rate, c.checkpoint(d)
	show, done := o.Progress, s.done
	o.Progress = func(p blockcopy.Progress) {
		s.done = done + p.Read
		show(p)
	}
	stats, sums, err := blockcopy.Copy(ctx, dst, blockcopy.Mask(src, used), o)
	finished()
	if err == nil {
		err = src.Unchanged()
	}
	if err != nil {
		return blocksPass{}, err
	}
	d.Result.BytesRead += stats.BytesRead
	d.Result.BytesWritten, d.Result.BytesZeroed, d.Result.Size, d.Result.Seconds = stats.BytesWritten, stats.BytesZeroed, stats.Size, stats.Elapsed.Seconds()
	pass := blocksPass{sums: sums, used: used, wrote: stats.BytesWritten+stats.BytesZeroed > 0, before: counter}
	// What was not written was read back by an earlier pass, or read just now.
	if d.Result.Delta == byDestination || before != nil && d.Result.Delta != byCheckpoint && d.verified() {
		pass.ranges = &stats.Written
	}
	return pass, nil
}

// options are those of every use of the engine, with what ends its phase.
func (c *Conversion) options(what string) (o blockcopy.Options, finished func()) {
	phase := c.rep.Phase(what)
	o = blockcopy.Options{Direct: c.o.Direct, Yield: c.yield, Progress: func(p blockcopy.Progress) { phase.Update(p.Read, p.Total) }}
	return o, phase.Done
}

// before are the digests of what the destination holds already: those of the
// last copy; or, where that cannot be trusted, of what a pass that was killed had
// done, or of what is read from the destination now.
func (c *Conversion) before(ctx context.Context, d *Disk, dst *os.File, size int64) (*blockcopy.Digests, error) {
	// Now that nobody else can write: still so?
	if sums := c.loadDigests(d); sums != nil && d.unwritten(d.last) {
		d.Result.Delta = byDigests
		return sums, c.forgetCheckpoint(d)
	}
	sums, err := c.resume(ctx, d, dst)
	if sums != nil || err != nil || d.last == nil {
		return sums, err
	}
	d.Result.Delta = byDestination
	c.rep.Infof("%s: somebody may have written to %s since its last copy: reading all of it", d.VDev, d.Dest.LV.Spec())
	o, finished := c.options("read " + d.Dest.LV.Spec())
	defer finished()
	return blockcopy.Scan(ctx, dst, size, o)
}

// lookAt is what must be looked at where a base told what changed, nil for all: what
// may have changed, and what was not copied by the last pass because it was free then.
func (c *Conversion) lookAt(s *source, d *Disk, used extent.Set) *extent.Set {
	if d.changed == nil || d.Result.Delta != byDigests {
		return nil
	}
	then, err := c.loadUsed(d)
	if err != nil {
		c.cannotTell([]*Disk{d}, s.base, err)
		return nil
	}
	d.Result.Delta = s.base.delta()
	look := d.changed.Union(used.Subtract(then))
	return &look
}

// verify reads back what was written, from the device, and keeps what the next pass
// must know of it.
func (c *Conversion) verify(ctx context.Context, s *source, d *Disk, pass blocksPass) error {
	dst, err := blkdev.OpenExclusive(d.Dest.Path, os.O_RDWR)
	if err != nil {
		return err
	}
	defer dst.Close()
	if err := c.readBack(ctx, d, dst, pass); err != nil {
		if fault.StatusOf(err) == fault.Mismatch { // what it calls done is wrong
			err = errors.Join(err, c.forgetCheckpoint(d))
		}
		return err
	}
	// Before dst is closed, and others can write again.
	if d.Result.written, _, err = counted(d); err != nil {
		return err
	}
	if pass.wrote && d.Result.written == pass.before {
		d.Result.written = -1 // our own writes were not counted: nor will others' be
	}
	if s.keep && !c.o.Whole {
		if d.usedSum, err = c.saveUsed(d, pass.used); err != nil {
			return err
		}
	}
	if err := c.saveDigests(d, pass.sums); err != nil {
		return err
	}
	return c.forgetCheckpoint(d)
}

// readBack compares what the device has with what was written to it.
func (c *Conversion) readBack(ctx context.Context, d *Disk, dst *os.File, pass blocksPass) (err error) {
	o, finished := c.options("verify " + d.VDev)
	defer finished()
	d.Result.Verified, err = c.o.Verify.ReadBack(ctx, dst, pass.sums, pass.ranges, o)
	return err
}

// counted is the counter of sectors written to d's destination, -1 when the
// kernel does not count, and the number that tells this activation from others.
func counted(d *Disk) (sectors int64, seq uint64, err error) {
	dev, err := blkdev.Stat(d.Dest.Path)
	if err != nil {
		return 0, 0, fault.With(fault.Failed, err)
	}
	sectors, err = dev.Written()
	if errors.Is(err, blkdev.ErrNotCounted) {
		sectors, err = -1, nil
	}
	return sectors, dev.DiskSeq(), err
}

// watched does work that reads a source, while the source, and all thin pools and file
// systems that it and the destinations fill, are looked at every second; the work ends as
// soon as the source is lost, or one of these nearly full: all that live in it matter
// more than the copy. It ends, too, when nobody can look: what was read is not known to
// be good. While the domain runs, work is done at the lowest priority; while it is
// stopped, somebody waits.
func (c *Conversion) watched(ctx context.Context, s *source, work func(context.Context) error) error {
	if c.Running {
		restore, err := host.Idle()
		if err != nil {
			return err
		}
		defer restore()
	}
	ctx, cancel := context.WithCancelCause(ctx)
	var watching sync.WaitGroup
	watch := func(look func() error) {
		watching.Go(func() {
			if err := look(); err != nil {
				cancel(err) // which does nothing when this is the end already
			}
		})
	}
	watch(func() error { return s.watch(ctx, c) })
	for _, pool := range c.pools {
		watch(func() error { return snap.WatchPool(ctx, pool) })
	}
	for _, dir := range c.dirs {
		watch(func() error { return snap.WatchRoom(ctx, dir) })
	}
	err := work(ctx)
	cancel(errWorked)
	watching.Wait()
	// Work that ended before it noticed is good if something only was nearly full.
	if cause := context.Cause(ctx); err == nil && cause != errWorked && !errors.Is(cause, lvm.ErrPoolFull) && !errors.Is(cause, snap.ErrNearlyFull) {
		err = cause
	}
	return s.verdict(s, err)
}

// errWorked is why nobody needs to watch any more.
var errWorked = errors.New("the work is done")
