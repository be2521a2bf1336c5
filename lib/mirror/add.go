package mirror

import (
	"context"
	"errors"
	"os"
	"slices"

	"xenlvm/lib/blkdev"
	"xenlvm/lib/blockcopy"
	"xenlvm/lib/dm"
	"xenlvm/lib/extent"
	"xenlvm/lib/fault"
	"xenlvm/lib/journal"
	"xenlvm/lib/loopdev"
	"xenlvm/lib/md"
	"xenlvm/lib/run"
	"xenlvm/lib/step"
	"xenlvm/lib/units"
	"xenlvm/lib/xl"
)

// bitmapChunk is what one bit of a write-intent bitmap stands for, in bytes: the
// least that is recovered for a write.
const bitmapChunk = 64 << 10

// Adding is how the second member is added.
type Adding struct {
	Rate     units.Bytes // a second, for recovery; 0: as fast as it goes
	Presync  bool        // copy first, and let md recover only what is written meanwhile
	Progress func(done, total int64)
	Fallback func(why error) // called when Presync cannot be had, before md copies everything
	UUID     func() string   // of the destination, for the journal, once it exists
}

// MayAdd refuses to add a second member where somebody writes to the source
// beside the mirror, or where there is no mirror that could take it.
func (h Host) MayAdd(ctx context.Context, d Disk) error {
	s, err := d.Look()
	if err != nil {
		return err
	}
	if s.Phase != Built {
		return d.Unfit(s)
	}
	return h.Alone(ctx, d, s)
}

// Reclaim is the plan that removes what a run left that was killed before it had
// added the destination.
func (h Host) Reclaim(d Disk) (step.Plan, error) {
	s, err := d.Look()
	if err != nil || s.Phase != Built || s.Destination.Name == "" {
		return nil, err
	}
	return step.Plan{step.Command(h.Run, "remove "+s.Destination.Path(), dm.Remove(s.Destination.Name), run.Cmd{})}, nil
}

// Add is the plan that makes d.Destination the second member of a mirror that
// MayAdd allows. It must exist and be as large as the source when the plan runs,
// which ends when recovery has begun.
func (h Host) Add(d Disk, o Adding) step.Plan {
	leg := d.Path() + destination
	plan := step.Plan{
		{What: "write down that " + d.Destination + " mirrors " + d.VDev, Do: func(context.Context) error {
			return h.Journal.Append(journal.KindMember, d.member(o.UUID()))
		}},
		{What: "zero what " + d.Destination + " is larger", Do: d.zeroTail},
		h.linear(d, destination, &d.Destination),
	}
	if o.Presync {
		return append(plan, h.presync(d, leg, o))
	}
	return append(plan, h.fill(d, leg, o.Rate))
}

func (d Disk) member(uuid string) journal.Destination {
	return journal.Destination{VDev: d.VDev, Source: d.Source, Destination: d.Destination, Method: "mirror", LVUUID: uuid}
}

// Alone refuses a source that somebody writes to beside the mirror: the second
// member misses that.
func (h Host) Alone(ctx context.Context, d Disk, s State) error {
	if err := d.Original(s); err != nil {
		return err
	}
	same, err := loopdev.Same(d.Source)
	if err != nil {
		return err
	}
	uses, err := xl.Uses(ctx, h.Run)
	if err != nil {
		return err
	}
	for _, u := range uses {
		if u.Disk.HasDevice && slices.Contains(same, u.Disk.Number()) || u.Disk.Path == d.Source {
			err := fault.Refuse("cannot mirror %s: domain %s runs on it beside the mirror", d.Source, u.Domain.Name)
			if s.Phase != Built {
				return fault.Hint(err, "%s misses what it wrote: mdmirror abort %s", d.Destination, run.Quote(d.Domain))
			}
			return fault.Hint(err, "put it on the mirror first: domuswitch restart %s %s=%s", run.Quote(u.Domain.Name), d.VDev, d.Path())
		}
	}
	return d.unattached(s, nil)
}

// zeroTail zeroes what the destination has behind the disk: a former guest's
// data, or a partition table's copy that would be believed.
func (d Disk) zeroTail(ctx context.Context) error {
	dev, err := blkdev.Stat(d.Destination)
	if err != nil || dev.Size <= d.Size {
		return err
	}
	f, err := blkdev.OpenExclusive(d.Destination, os.O_WRONLY)
	if err != nil {
		return err
	}
	tail := extent.Range{Off: int64(d.Size), Len: int64(dev.Size - d.Size)}
	return errors.Join(blockcopy.Zero(ctx, f, tail), f.Close())
}

// array is the array of a mirror that has one.
func (d Disk) array() (md.Array, error) {
	s, err := d.Look()
	if err == nil && s.Array == nil {
		err = d.Unfit(s)
	}
	if err != nil {
		return md.Array{}, err
	}
	return *s.Array, nil
}

// fill lets md copy everything.
func (h Host) fill(d Disk, leg string, rate units.Bytes) step.Step {
	named := md.Array{Path: "/dev/md/" + d.arrayName()}
	return step.Step{
		What: "add " + leg + " to the array",
		Line: named.Add(leg).Line(),
		Do: func(ctx context.Context) error {
			a, err := d.array()
			if err == nil {
				err = a.Limit(rate)
			}
			if err == nil {
				_, err = h.Run.Run(ctx, a.Add(leg))
			}
			return err
		},
		Undo: func(ctx context.Context) error {
			a, err := d.array()
			if err == nil {
				_, err = h.Run.Run(ctx, a.Drop(leg))
			}
			return err
		},
		UndoLine: named.Drop(leg).Line(),
	}
}

// presync copies the source while a bitmap notes what is written to it, and has
// md recover that. Without bitmap files in the kernel md copies everything.
func (h Host) presync(d Disk, leg string, o Adding) step.Step {
	s := h.fill(d, leg, o.Rate)
	full := s.Do
	s.What = "copy " + d.Source + " to " + d.Destination + ", and " + s.What
	s.Do = func(ctx context.Context) error {
		a, err := d.array()
		if err != nil {
			return err
		}
		file := h.bitmap(d)
		if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		err = a.StartBitmap(file, bitmapChunk)
		if errors.Is(err, md.ErrNoBitmapFile) {
			o.Fallback(err)
			return full(ctx)
		}
		if err != nil {
			return err
		}
		err = d.copyTo(ctx, leg, o)
		if err == nil {
			err = a.Limit(o.Rate)
		}
		if err == nil {
			err = a.AddKnown(leg)
		}
		if err != nil {
			err = errors.Join(err, a.StopBitmap(), os.Remove(file))
		}
		return err
	}
	return s
}

// bitmap is the file of the write-intent bitmap.
func (h Host) bitmap(d Disk) string { return h.Journal.Path(d.VDev + ".bitmap") }

// copyTo copies the source as it is, while the domain writes to it.
func (d Disk) copyTo(ctx context.Context, leg string, o Adding) error {
	src, err := d.openSource()
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := blkdev.OpenExclusive(leg, os.O_RDWR)
	if err != nil {
		return err
	}
	_, _, err = blockcopy.Copy(ctx, dst, src, blockcopy.Options{
		BytesPerSecond: int64(o.Rate),
		Progress:       func(p blockcopy.Progress) { o.Progress(p.Read, p.Total) },
	})
	return errors.Join(err, dst.Close())
}
