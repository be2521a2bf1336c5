package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"xenlvm/lib/blockcopy"
	"xenlvm/lib/cli"
	"xenlvm/lib/diskimg"
	"xenlvm/lib/extent"
	"xenlvm/lib/fault"
	"xenlvm/lib/journal"
	"xenlvm/lib/mapping"
	"xenlvm/lib/run"
	"xenlvm/lib/step"
	"xenlvm/lib/units"
	"xenlvm/lib/xl"
	"xenlvm/lib/xlcfg"
)

// replay brings back into an image what a domain has written to its volume. Until it has
// ended the volume has everything, and the image is good for nothing. Done once more it
// does the same again: what an earlier one wrote is among what was written since.
type replay struct {
	c *command
	e *cli.Env
	d *domain
	doorState
	line    mapping.Line
	changed extent.Set // of the volume, since the domain first ran there
	done    replayed
}

// replayed is what revert reports with --json of each disk.
type replayed struct {
	VDev     string `json:"vdev"`
	From     string `json:"from"`
	Into     string `json:"into"`
	Snapshot string `json:"snapshot"`
	Changed  int64  `json:"bytes_changed"`
	Written  int64  `json:"bytes_written"`
	Zeroed   int64  `json:"bytes_zeroed"`
	Verified string `json:"verified"`
}

// samples is how many places of an image are compared before it is written to, and
// sampleSize how large they are in bytes.
const (
	samples    = 512
	sampleSize = 64 << 10
)

func newReplay(k *checker, s doorState, l mapping.Line) *replay {
	return &replay{c: k.c, e: k.e, d: k.d, doorState: s, line: l, done: replayed{VDev: s.VDev, From: l.Destination, Into: s.Image.Path, Snapshot: s.Snapshot}}
}

// steps are those between the end of the domain and its start.
func (r *replay) steps() step.Plan {
	volume, image := r.line.Destination, r.Image.Path
	return step.Plan{
		{What: "find what " + r.d.name + " wrote to " + volume, Do: r.find},
		{What: "bring that back into " + image, Do: r.bring,
			Line: run.Quote("lvsnap", "changed", r.Snapshot) + " | while read -r at n; do " + run.Quote("dd", "if="+volume, "of="+image, "bs=1M", "iflag=skip_bytes,count_bytes", "oflag=seek_bytes", "conv=notrunc,fsync") +
				` skip="$at" seek="$at" count="$n"; done`},
	}
}

// try finds out what a replay would find, before the domain is interrupted for it.
func (r *replay) try(ctx context.Context) error {
	if others, err := r.c.backDoors.loops(r.Image.Path); err != nil || len(others) > 0 {
		return orRefuse(err, "cannot bring %s back into %s: that is attached to the loop device %v", r.line.Destination, r.Image.Path, others)
	}
	var err error
	if r.changed, err = r.c.backDoors.written(ctx, r.e.Runner, r.snapshot, r.origin); err != nil {
		return err
	}
	if err := r.room(ctx); err != nil || r.half {
		return err
	}
	return r.sample(ctx)
}

func orRefuse(err error, format string, args ...any) error {
	if err != nil {
		return err
	}
	return fault.Refuse(format, args...)
}

// sample compares places of the image with what was copied from it: a file may be
// changed, and its time put back.
func (r *replay) sample(ctx context.Context) error {
	sums, err := r.d.digestsOf(r.BackDoor)
	if err != nil {
		return err
	}
	sums = sums.Forget(r.changed)
	some := sums.Data().Sample(samples, sampleSize)
	f, err := os.Open(r.Image.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := blockcopy.Verify(ctx, f, sums, &some, blockcopy.Options{}); err != nil {
		return fault.With(fault.Refused, fmt.Errorf("cannot bring %s back into %s: that is not as the domain left it: %w", r.line.Destination, r.Image.Path, err))
	}
	return nil
}

// find asks once more when nobody writes any more.
func (r *replay) find(ctx context.Context) error {
	dev, err := r.c.stat(r.line.Destination)
	if err == nil {
		err = r.c.idle(dev)
	}
	if err == nil {
		err = r.look(ctx, r.c, r.e.Runner, r.d)
	}
	if err == nil {
		r.changed, err = r.c.backDoors.written(ctx, r.e.Runner, r.snapshot, r.origin)
	}
	if err != nil {
		return err
	}
	return r.room(ctx)
}

// room refuses when the image could not take what lies in its holes.
func (r *replay) room(ctx context.Context) error {
	f, err := os.Open(r.Image.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	data, err := diskimg.DataOf(f, info.Size())
	if err != nil {
		return err
	}
	need := units.Bytes(r.changed.Subtract(data).Bytes())
	free, err := r.c.free(ctx, filepath.Dir(r.Image.Path))
	if err == nil && need > free {
		err = fault.Refuse("cannot bring %s back into %s: up to %s of it lie in holes of the image, and its file system has %s free", r.line.Destination, r.Image.Path, need, free)
	}
	return err
}

// bring writes the image.
func (r *replay) bring(ctx context.Context) error {
	sums, err := r.d.digestsOf(r.BackDoor)
	if err != nil {
		return err
	}
	volume, err := r.c.backDoors.open(r.line.Destination)
	if err != nil {
		return err
	}
	defer volume.Close()
	image, err := os.OpenFile(r.Image.Path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer image.Close()
	if err := r.d.journal.Append(journal.KindReplaying, r.BackDoor); err != nil {
		return err
	}
	if err := r.write(ctx, image, volume, sums); err != nil {
		err = fault.With(fault.Left, fmt.Errorf("%w\n%s is half-written, and nothing starts from it; %s has everything", err, r.Image.Path, r.line.Destination))
		err = fault.Hint(err, "or let it run on its volumes: domuswitch start %s", run.Quote(r.d.name))
		return fault.Hint(err, "go on: domuswitch revert %s", run.Quote(r.d.name))
	}
	whole := r.BackDoor
	if whole.Image, err = lookAt(r.Image.Path); err != nil {
		return err
	}
	return r.d.journal.Append(journal.KindReplayed, whole)
}

// part is the first size bytes of a volume.
type part struct {
	diskimg.Source
	size int64
}

func (p part) Size() int64               { return p.size }
func (p part) Data() (extent.Set, error) { return extent.Whole(p.size), nil }

// write copies and verifies. What follows on an interrupted replay is compared as a
// whole: nobody has watched the image meanwhile.
func (r *replay) write(ctx context.Context, image *os.File, volume diskimg.Source, sums *blockcopy.Digests) error {
	src := part{volume, r.Image.Size}
	if r.changed.End() > src.size { // the guest has seen that its disk is larger
		src.size = volume.Size()
	}
	options := func(what string) (blockcopy.Options, *cli.Progress) {
		p := r.e.Progress(what)
		return blockcopy.Options{Progress: func(now blockcopy.Progress) { p.Update(now.Read, now.Total) }}, p
	}
	o, p := options("bring " + r.VDev + " back")
	o.Before, o.Only = sums.Forget(r.changed), &extent.Set{}
	stats, now, err := blockcopy.Copy(ctx, image, src, o)
	p.Done()
	if err != nil {
		return err
	}
	look, verified := r.changed, "written"
	if r.half {
		look, verified = sums.Data().Union(r.changed), "full"
	}
	o, p = options("verify " + r.VDev)
	defer p.Done()
	if err := blockcopy.Verify(ctx, image, now, &look, o); err != nil {
		return fault.With(fault.Mismatch, fmt.Errorf("cannot trust %s: %w", r.Image.Path, err))
	}
	r.done.Changed, r.done.Written, r.done.Zeroed, r.done.Verified = r.changed.Bytes(), stats.BytesWritten, stats.BytesZeroed, verified
	r.e.Infof("%s: %s of %s had changed; wrote %s and made %s zero in %s", r.VDev, units.Bytes(r.changed.Bytes()), r.line.Destination, units.Bytes(stats.BytesWritten), units.Bytes(stats.BytesZeroed), r.Image.Path)
	return nil
}

// bringBack reverts by way of the back doors: the domain stops, its images get what it
// wrote to its volumes, and it goes on from them.
func (k *checker) bringBack(ctx context.Context, back *replacement, all []*replay) error {
	r, err := k.ontoImages(ctx, back, all)
	if err != nil {
		return err
	}
	if !k.now.up { // nor does it run afterwards
		back.ready = k.domainUnchanged
		return k.e.Apply(ctx, back.steps())
	}
	if err := k.e.Apply(ctx, r.plan()); err != nil {
		return r.explain(err)
	}
	return r.up.left
}

// ontoImages is the restart on the images, and all checks that can be made before it.
func (k *checker) ontoImages(ctx context.Context, back *replacement, all []*replay) (*restarting, error) {
	s := &switching{checker: k, file: back, before: k.d.disks, wasCfg: k.d.cfg}
	var err error
	if s.cfg, err = xlcfg.Parse(k.d.file.Path, back.content); err == nil {
		s.next, err = s.cfg.Disks()
	}
	if err != nil {
		return nil, refused(err)
	}
	if k.now.up && k.now.State != xl.Running {
		return nil, s.notRunning("stop")
	}
	if err := k.d.notSuspended(k.now); err != nil {
		return nil, err
	}
	if k.uses, err = xl.Uses(ctx, k.e.Runner); err != nil {
		return nil, err
	}
	for _, r := range all {
		live, ok := k.now.liveDisk(r.VDev)
		if k.now.up && !(ok && k.c.runs(live, r.line.Destination)) {
			return nil, fault.Refuse("cannot revert %s: its disk %s is not %s at the moment", k.d.name, r.VDev, r.line.Destination)
		}
		if err := k.others(ctx, &move{disk: xlcfg.Disk{VDev: r.VDev}, line: mapping.Line{Destination: r.Image.Path}}); err != nil {
			return nil, err
		}
		if !k.e.DryRun {
			if err := r.try(ctx); err != nil {
				return nil, err
			}
		}
		back.first = append(back.first, r.steps()...)
	}
	return &restarting{switching: s}, checkWithXL(ctx, k.e.Runner, k.d, s.cfg)
}
