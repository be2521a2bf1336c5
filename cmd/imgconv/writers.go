package main

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"xenlvm/lib/blkdev"
	"xenlvm/lib/convert"
	"xenlvm/lib/dm"
	"xenlvm/lib/fault"
	"xenlvm/lib/loopdev"
	"xenlvm/lib/run"
	"xenlvm/lib/xl"
)

// checkSource refuses a source that a domain, a mount, the holder of a loop device
// or any other program may write to. It returns the files whose bytes a device has,
// each checked in the same way.
func checkSource(ctx context.Context, r run.Runner, path string) ([]file, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return nil, fault.Refuse("cannot open %s: %w", path, err)
	}
	if !isBlock(&st) {
		uses, err := domainDisks(ctx, r)
		if err == nil {
			err = checkWriters(uses, path, path, nil)
		}
		if err == nil {
			err = checkFile(path, path)
		}
		return nil, err
	}
	dev, err := blkdev.Stat(path)
	if err != nil {
		return nil, err
	}
	var mounted bool
	if !dev.ReadOnly() {
		if mounted, err = dev.Quiet(); err != nil {
			return nil, err
		}
	}
	uses, err := domainDisks(ctx, r)
	if err != nil {
		return nil, err
	}
	if err := checkWriters(uses, path, path, nil); err != nil {
		return nil, err
	}
	files, err := checkBehind(uses, dev)
	switch {
	case err != nil:
		return nil, err
	case dev.ReadOnly():
		return files, nil
	case mounted:
		return files, dm.Unopened(dev, "copy", 1)
	}
	return files, dm.Unopened(dev, "copy", 0)
}

// checkWriters refuses what a domain, or a loop device other than its own, may write
// to; name is how it is called.
func checkWriters(uses []xl.Use, path, name string, own *loopdev.Device) error {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return fault.Refuse("cannot open %s: %w", path, err)
	}
	for _, u := range uses {
		if !u.Disk.CDROM && convert.HasDisk(u.Disk, path) {
			return fault.Hint(fault.Refuse("cannot copy %s: domain %s has it as its disk %s, and may write to it", name, u.Domain.Name, u.Disk.VDev),
				"domuswitch stop %[1]s; or, while it runs: imgconv --snapshot %[1]s", run.Quote(u.Domain.Name))
		}
	}
	loops, err := attached(&st)
	if err != nil {
		return err
	}
	for _, l := range loops {
		if !l.ReadOnly && (own == nil || l.Path != own.Path) {
			return detach(fault.Refuse("cannot copy %s: it is attached to %s, through which somebody may write to it", name, l.Path), l)
		}
	}
	return nil
}

// file is a file as it was when it was looked at.
type file struct {
	path string
	stat unix.Stat_t
}

// checkBehind checks the files of the loop devices that dev is, or is built on: that
// nobody can write to a device says nothing of its file. Whether a program has a file
// open for writing that its own loop device has, too, cannot be told: see unchanged.
func checkBehind(uses []xl.Use, dev blkdev.Device) ([]file, error) {
	loops, err := loopdev.Below(dev)
	if err != nil {
		return nil, err
	}
	var files []file
	for _, l := range loops {
		name := fmt.Sprintf("%s (%s)", dev.Path, l.File)
		if !l.IsOf(l.File) {
			return nil, fault.Refuse("cannot copy %s: its file is not at that path, and nobody can tell who writes to it", name)
		}
		if err := checkWriters(uses, l.File, name, l); err != nil {
			return nil, err
		}
		if l.ReadOnly {
			if err := checkFile(l.File, name); err != nil {
				return nil, err
			}
		}
		f := file{path: l.File}
		if err := unix.Stat(f.path, &f.stat); err != nil {
			return nil, fault.Refuse("cannot open %s: %w", f.path, err)
		}
		files = append(files, f)
	}
	return files, nil
}

// unchanged says whether nobody wrote to the file since.
func (f file) unchanged() error {
	var now unix.Stat_t
	if err := unix.Stat(f.path, &now); err != nil {
		return fmt.Errorf("cannot rely on the copy of %s: %w", f.path, err)
	}
	if !sameFile(&f.stat, &now) || now.Size != f.stat.Size || now.Mtim != f.stat.Mtim || now.Ctim != f.stat.Ctim {
		return fmt.Errorf("cannot rely on the copy of %s: it was written to while it was read", f.path)
	}
	return nil
}

// checkFile refuses a source file, called name, that a program has open for writing.
func checkFile(path, name string) error {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0) // whatever it is, we do not wait for it
	if err != nil {
		return fault.Refuse("cannot open %s: %w", path, fault.Reason(err))
	}
	defer f.Close()
	return checkOpen(f, unix.F_RDLCK, "cannot copy "+name+": another program has it open for writing")
}
