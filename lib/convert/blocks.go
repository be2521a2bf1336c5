package convert

import (
	"context"
	"errors"
	"fmt"
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
	"xenlvm/lib/units"
)

// blocksPass is what a copy by blocks leaves to be verified.
type blocksPass struct {
	sums   *blockcopy.Digests
	ranges *extent.Set // nil: all of the destination
	wrote  bool
	before int64 // the destination's counter of written sectors, before it wrote
}

// copyBlocks copies the image in the snapshot to the destination.
func (c *Conversion) copyBlocks(ctx context.Context, s *snapshot, d *Disk) (blocksPass, error) {
	src, err := diskimg.OpenSource(s.image(d), d.Format)
	if err != nil {
		return blocksPass{}, err
	}
	defer src.Close()
	dst, err := blkdev.OpenExclusive(d.Dest.Path, os.O_RDWR)
	if err != nil {
		return blocksPass{}, err
	}
	defer dst.Close()
	before, err := c.before(ctx, d, dst, src.Size())
	if err != nil {
		return blocksPass{}, err
	}
	counter, err := counted(d)
	if err != nil {
		return blocksPass{}, err
	}
	phase := c.rep.Phase("copy " + d.VDev)
	done := s.done
	stats, sums, err := blockcopy.Copy(ctx, dst, src, blockcopy.Options{
		Before: before, BytesPerSecond: c.o.Rate,
		Progress: func(p blockcopy.Progress) {
			s.done = done + p.Read
			phase.Update(p.Read, p.Total)
		},
	})
	phase.Done()
	if err == nil {
		err = src.Unchanged()
	}
	if err != nil {
		return blocksPass{}, err
	}
	d.Result.BytesRead, d.Result.BytesWritten, d.Result.BytesZeroed = stats.BytesRead, stats.BytesWritten, stats.BytesZeroed
	d.Result.Delta, d.Result.Size = before != nil, stats.Size
	pass := blocksPass{sums: sums, wrote: stats.BytesWritten+stats.BytesZeroed > 0, before: counter}
	if before != nil && !c.o.VerifyAll {
		pass.ranges = &stats.Written
	}
	return pass, nil
}

// before are the digests of what the destination holds already: those of the
// last copy, or, where that cannot be trusted, of what is read from it now.
func (c *Conversion) before(ctx context.Context, d *Disk, dst *os.File, size int64) (*blockcopy.Digests, error) {
	if d.last == nil {
		return nil, nil
	}
	// Now that nobody else can write: still so?
	if sums := c.loadDigests(d); sums != nil && d.unwritten(d.last.Written) {
		return sums, nil
	}
	c.rep.Infof("%s: somebody may have written to %s since its last copy: reading all of it", d.VDev, d.Dest.LV.Spec())
	phase := c.rep.Phase("read " + d.Dest.LV.Spec())
	defer phase.Done()
	return blockcopy.Scan(ctx, dst, size, blockcopy.Options{Progress: func(p blockcopy.Progress) { phase.Update(p.Read, p.Total) }})
}

// verify reads back what was written, from the device, and keeps the digests for
// the next pass.
func (c *Conversion) verify(ctx context.Context, d *Disk, pass blocksPass) error {
	dst, err := blkdev.OpenExclusive(d.Dest.Path, os.O_RDWR)
	if err != nil {
		return err
	}
	defer dst.Close()
	phase := c.rep.Phase("verify " + d.VDev)
	err = blockcopy.Verify(ctx, dst, pass.sums, pass.ranges, blockcopy.Options{Progress: func(p blockcopy.Progress) { phase.Update(p.Read, p.Total) }})
	phase.Done()
	var m *blockcopy.MismatchError
	if errors.As(err, &m) {
		return fault.Hint(fault.With(fault.Mismatch, fmt.Errorf("cannot trust %s: %w", d.Dest.Path, err)),
			"the volume or the disk below it does not keep what is written to it: check its hardware before anything else")
	}
	if err != nil {
		return err
	}
	// Before dst is closed, and others can write again.
	if d.Result.written, err = counted(d); err != nil {
		return err
	}
	if pass.wrote && d.Result.written == pass.before {
		d.Result.written = -1 // our own writes were not counted: nor will others' be
	}
	return c.saveDigests(d, pass.sums)
}

// counted is the counter of sectors written to d's destination, -1 when the
// kernel does not count.
func counted(d *Disk) (int64, error) {
	dev, err := blkdev.Stat(d.Dest.Path)
	if err != nil {
		return 0, fault.With(fault.Failed, err)
	}
	n, err := dev.Written()
	if errors.Is(err, blkdev.ErrNotCounted) {
		return -1, nil
	}
	return n, err
}

// watched does work that reads a snapshot, while the snapshot, and all thin pools
// that are written to, are looked at every second; the work ends as soon as the
// snapshot is lost, or a pool nearly full: all that live in it matter more than the
// copy. It ends, too, when nobody can look: what was read is not known to be good.
// While the domain runs, work is done at the lowest priority; while it is stopped,
// somebody waits.
func (c *Conversion) watched(ctx context.Context, s *snapshot, work func(context.Context) error) error {
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
	watch(func() error {
		return snap.Watch(ctx, c.r, s.lv, c.o.Extend, func(u lvm.Usage, trouble error) {
			s.lv.COW = u.Size
			if trouble != nil {
				c.rep.Infof("%v", trouble)
			}
		})
	})
	for _, pool := range c.pools {
		watch(func() error { return snap.WatchPool(ctx, pool) })
	}
	err := work(ctx)
	cancel(errWorked)
	watching.Wait()
	// Work that ended before it noticed is good if a pool only was nearly full.
	if cause := context.Cause(ctx); err == nil && cause != errWorked && !errors.Is(cause, lvm.ErrPoolFull) {
		err = cause
	}
	// The last word on the snapshot comes after the last byte was read.
	if _, lost := snap.Usage(s.lv); lost != nil && !errors.Is(lost, lvm.ErrPoolFull) {
		err = errors.Join(lost, err)
	}
	if errors.Is(err, lvm.ErrLost) {
		return c.tooSmall(s)
	}
	return err
}

// errWorked is why nobody needs to watch any more.
var errWorked = errors.New("the work is done")

// tooSmall says what size the snapshot should have had: it filled up while the
// part done was read, so the whole needs so much more. A quarter is added.
func (c *Conversion) tooSmall(s *snapshot) error {
	if s.lv.Thin() {
		return fault.Hint(fmt.Errorf("cannot go on: the thin snapshot %s failed", s.lv.Spec()), "lvs -a %s; its pool may be full", s.lv.VG)
	}
	cow := s.lv.COW
	need := s.lv.Size
	if s.done > 0 && s.work > s.done {
		need = min(need, units.Bytes(float64(cow)*float64(s.work)/float64(s.done)*1.25))
	} else if s.done > 0 {
		need = min(need, cow*5/4)
	}
	err := fmt.Errorf("cannot go on: %w: its %s of COW space were full after %s of %s", lvm.ErrLost, cow, units.Bytes(s.done), units.Bytes(s.work))
	return fault.Hint(err, "--snapshot-size %db would have been enough at this rate of writes; or let it grow in time with --snapshot-extend", int64(need))
}
