package convert

import (
	"context"
	"errors"
	"fmt"
	"os"

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

func errStarted(d *Disk) error {
	return fmt.Errorf("cannot finish: the image %s was written to, or its domain started, during the final pass", d.Image)
}

// copyBlocks copies the image in the snapshot to the destination, reads it back
// and compares.
func (c *Conversion) copyBlocks(ctx context.Context, s *snapshot, d *Disk) error {
	src, err := diskimg.OpenSource(s.image(d), d.Format)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := blkdev.OpenExclusive(d.Dest.Path, os.O_RDWR)
	if err != nil {
		return err
	}
	defer dst.Close()
	before, err := c.before(ctx, d, dst, src.Size())
	if err != nil {
		return err
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
	if err != nil {
		return err
	}
	if err := src.Unchanged(); err != nil {
		return err
	}
	d.Result = Result{BytesRead: stats.BytesRead, BytesWritten: stats.BytesWritten, BytesZeroed: stats.BytesZeroed,
		Delta: before != nil, Elapsed: stats.Elapsed, Size: stats.Size, modified: d.Result.modified}
	var ranges *extent.Set
	if before != nil && !c.o.VerifyAll {
		ranges = &stats.Written
	}
	if err := c.verify(ctx, d, dst, sums, ranges); err != nil {
		return err
	}
	return c.saveDigests(d, sums)
}

// before are the digests of what the destination holds already: those of the
// last copy, or, where that cannot be trusted, of what is read from it now.
func (c *Conversion) before(ctx context.Context, d *Disk, dst *os.File, size int64) (*blockcopy.Digests, error) {
	if d.last == nil {
		return nil, nil
	}
	if sums := c.loadDigests(d); sums != nil && !d.Dest.LV.Tagged(lvm.TagIncomplete) {
		return sums, nil
	}
	c.rep.Infof("%s: the destination may have changed since its last copy: comparing all of it", d.VDev)
	phase := c.rep.Phase("read " + d.Dest.LV.Spec())
	defer phase.Done()
	return blockcopy.Scan(ctx, dst, size, blockcopy.Options{Progress: func(p blockcopy.Progress) { phase.Update(p.Read, p.Total) }})
}

func (c *Conversion) verify(ctx context.Context, d *Disk, dst *os.File, sums *blockcopy.Digests, ranges *extent.Set) error {
	phase := c.rep.Phase("verify " + d.VDev)
	err := blockcopy.Verify(ctx, dst, sums, ranges, blockcopy.Options{Progress: func(p blockcopy.Progress) { phase.Update(p.Read, p.Total) }})
	phase.Done()
	var m *blockcopy.MismatchError
	if errors.As(err, &m) {
		return fault.Hint(fault.With(fault.Mismatch, fmt.Errorf("cannot trust %s: %w", d.Dest.Path, err)),
			"the volume or the disk below it does not keep what is written to it: check its hardware before anything else")
	}
	return err
}

// watched does work that reads a snapshot, while the snapshot is looked at every
// second; the work ends as soon as the snapshot is lost. While the domain runs,
// work is done at the lowest priority; while it is stopped, somebody waits.
func (c *Conversion) watched(ctx context.Context, s *snapshot, work func(context.Context) error) error {
	if c.Running {
		restore, err := host.Idle()
		if err != nil {
			return err
		}
		defer restore()
	}
	ctx, cancel := context.WithCancelCause(ctx)
	watching := make(chan error, 1)
	go func() {
		err := snap.Watch(ctx, c.r, s.lv, c.o.Extend, func(u lvm.Usage) { s.lv.COW = u.Size })
		if errors.Is(err, lvm.ErrLost) {
			cancel(err)
		}
		watching <- err
	}()
	err := work(ctx)
	cancel(nil)
	<-watching
	// The last word on the snapshot comes after the last byte was read.
	if _, lost := snap.Usage(s.lv); lost != nil {
		err = errors.Join(lost, err)
	}
	if errors.Is(err, lvm.ErrLost) {
		return c.tooSmall(s)
	}
	return err
}

// tooSmall says what size the snapshot should have had: it filled up while the
// part done was read, so the whole needs so much more. A quarter is added.
func (c *Conversion) tooSmall(s *snapshot) error {
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
