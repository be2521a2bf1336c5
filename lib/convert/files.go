package convert

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"xenlvm/lib/fault"
	"xenlvm/lib/journal"
	"xenlvm/lib/mkfs"
	"xenlvm/lib/mnt"
	"xenlvm/lib/rsync"
	"xenlvm/lib/run"
	"xenlvm/lib/snap"
	"xenlvm/lib/step"
	"xenlvm/lib/treesum"
	"xenlvm/lib/units"
)

// clockMargin is how far a guest's clock may be behind ours: files that it
// changed since the last pass are told by its own time stamps.
const clockMargin = time.Hour

// planFiles makes the destination's file system if there is none, mounts both
// sides, and copies file by file.
func (c *Conversion) planFiles(ctx context.Context, s *source, d *Disk) (step.Plan, error) {
	source := filepath.Join(c.dir(), "source-"+d.VDev)
	dest := mnt.Mount{Device: d.Dest.Path, Point: filepath.Join(c.dir(), "destination-"+d.VDev), Type: fsType(d.Dest.Info), RW: true}
	var plan step.Plan
	if !d.keepFS {
		make, err := c.planMake(ctx, d)
		if err != nil {
			return nil, err
		}
		plan = append(plan, make...)
		dest.Type = fsType(d.Info)
	}
	if err := c.compareFileSystems(ctx, d); err != nil {
		return nil, err
	}
	dest.Data = mnt.ReadWrite(dest.Type)
	plan = append(plan, step.Step{
		What: "write down that " + d.Dest.Path + " has its file system",
		Do:   func(context.Context) error { return c.journal.Append(journal.KindMade, c.chosen(d)) },
	})
	// A guest that runs has its journal open, and a later pass gets what is in
	// it. Of one that is stopped this may be the last pass: a journal that was
	// not written back then is an error of the mount.
	data := mnt.ReadOnly(fsType(d.Info))
	if !c.Running {
		data = mnt.Clean(fsType(d.Info))
	}
	mounts := snap.ImageMounting(s.image(d), fsType(d.Info), data, source, "loop_"+d.VDev)
	if !c.Running {
		mount := &mounts[len(mounts)-1]
		do := mount.Do
		mount.Do = func(ctx context.Context) error {
			return fault.Hint(do(ctx), "if the guest did not shut down cleanly: start and stop it, or use --method blocks")
		}
	}
	mounts = append(mounts, step.Step{
		What: "mount " + dest.Device + " on " + dest.Point,
		Line: dest.Line(""), UndoLine: dest.UndoLine(),
		Do:   func(context.Context) error { return dest.Do() },
		Undo: func(context.Context) error { return dest.Undo() },
	})
	for _, m := range mounts {
		m.Temporary = true
		plan = append(plan, m)
	}
	return append(plan, step.Step{
		What: "copy the files of " + d.Image + " to " + d.Dest.Path,
		Line: rsync.Command(source, dest.Point, c.rsyncOptions(d)).Line(),
		Do: func(ctx context.Context) error {
			return c.watched(ctx, s, func(ctx context.Context) error { return c.copyFiles(ctx, d, source, dest) })
		},
	}), nil
}

// planMake makes a file system like the image's: same type, label, UUID, and
// only features that it has.
func (c *Conversion) planMake(ctx context.Context, d *Disk) (step.Plan, error) {
	desc, err := mkfs.Describe(ctx, c.r, d.Image)
	if err != nil {
		return nil, fault.Hint(err, "--method blocks")
	}
	size := d.Dest.LV.Size
	if !d.Dest.Exists {
		size = units.Bytes(d.Info.Size)
	}
	commands, err := mkfs.Make(ctx, c.r, desc, d.Dest.Path, size)
	if err != nil {
		return nil, fault.Hint(err, "--method blocks")
	}
	var plan step.Plan
	for _, cmd := range commands {
		plan = append(plan, step.Command(c.r, "make the file system on "+d.Dest.Path+" ("+cmd.Name+")", cmd, run.Cmd{}))
	}
	return append(plan, step.Step{
		What: "check that it is like the one in " + d.Image,
		Do:   func(ctx context.Context) error { return mkfs.Check(ctx, c.r, desc, d.Dest.Path) },
	}), nil
}

// compareFileSystems finds out whether one of the two file systems stores no
// fractions of a second (an ext with inodes of 128 bytes), and warns when the
// guest could miss the UUID or label that it knows.
func (c *Conversion) compareFileSystems(ctx context.Context, d *Disk) error {
	devices := []string{d.Image}
	var source mkfs.Description
	if d.keepFS {
		devices = append(devices, d.Dest.Path)
	}
	for _, dev := range devices {
		desc, err := mkfs.Describe(ctx, c.r, dev)
		if err != nil {
			return err
		}
		d.wholeSeconds = d.wholeSeconds || desc.InodeSize == 128
		if dev == d.Dest.Path && (desc.UUID != source.UUID || desc.Label != source.Label) {
			c.rep.Infof("%s: the file system on %s has another UUID or label than the image's (%s, %q): a guest that asks for them will not boot; tune2fs or xfs_admin sets them",
				d.VDev, dev, source.UUID, source.Label)
		}
		source = desc
	}
	return nil
}

// rsyncOptions: the priority is that of this process, which rsync inherits.
func (c *Conversion) rsyncOptions(d *Disk) rsync.Options {
	return rsync.Options{BytesPerSecond: c.o.Rate, WholeSeconds: d.wholeSeconds}
}

func (c *Conversion) copyFiles(ctx context.Context, d *Disk, source string, dest mnt.Mount) error {
	if err := c.checkFits(source, dest.Point); err != nil {
		return err
	}
	phase := c.rep.Phase("copy " + d.VDev)
	stats, err := rsync.Copy(ctx, c.r, source, dest.Point, c.rsyncOptions(d), func(p rsync.Progress) { phase.Update(p.Checked, p.Found) })
	phase.Done()
	unread := errors.Is(err, rsync.ErrPartial) && c.Running
	if err != nil && !unread {
		return err
	}
	d.Result.BytesRead, d.Result.BytesWritten = stats.TransferredBytes, stats.LiteralBytes
	d.Result.Size = d.Info.Size
	if d.last != nil {
		d.Result.Delta = byFiles
	}
	// What a running guest has only in its journal yet is in no mount that leaves
	// the journal alone: a copy of its files is never whole.
	d.Result.Partial = c.Running
	if unread {
		c.rep.Infof("%s: some files of the running guest could not be read; a pass over the stopped guest gets them", d.VDev)
		d.Result.seen = time.Time{} // nothing of this pass is known to be equal
		return nil
	}
	if c.o.Verify == VerifyNone {
		d.Result.Verified = VerifiedNone
		return nil
	}
	// Unmounted and mounted again, what is read comes from the volume.
	if err := dest.Undo(); err != nil {
		return err
	}
	if err := dest.Do(); err != nil {
		return err
	}
	return c.compareTrees(ctx, d, source, dest.Point)
}

func (c *Conversion) checkFits(source, dest string) error {
	from, err := mkfs.SpaceOf(source)
	if err != nil {
		return err
	}
	to, err := mkfs.SpaceOf(dest)
	if err != nil {
		return err
	}
	return mkfs.Fits(from, to)
}

// compareTrees compares everything but contents of every entry, and the contents
// of all files at the first copy, or of those changed since the last.
func (c *Conversion) compareTrees(ctx context.Context, d *Disk, source, dest string) error {
	o := treesum.Options{WholeSeconds: d.wholeSeconds}
	d.Result.Verified = VerifiedFull
	if d.trusted && d.verified() && !d.last.Seen.IsZero() && c.o.Verify != VerifyFull {
		o.ContentsSince = d.last.Seen.Add(-clockMargin)
		d.Result.Verified = VerifiedWritten
	}
	phase := c.rep.Phase("verify " + d.VDev)
	o.Progress = func(_, bytes int64) { phase.Update(bytes, max(bytes, 2*d.Result.BytesRead)) }
	report, err := treesum.Compare(ctx, source, dest, o)
	phase.Done()
	if err != nil {
		return err
	}
	d.Result.Entries, d.Result.Digest = report.Source.Entries(), report.Destination.Digest.String()
	if report.Source.Flagged > 0 {
		c.rep.Infof("%s: %d files have inode flags (chattr) that a copy by files cannot keep", d.VDev, report.Source.Flagged)
	}
	if report.Equal() {
		return nil
	}
	var lines []string
	for _, one := range report.Differences {
		lines = append(lines, one.String())
	}
	return fault.With(fault.Mismatch, fmt.Errorf("cannot trust %s: %d entries differ from %s:\n%s", d.Dest.Path, report.Different, d.Image, strings.Join(lines, "\n")))
}
