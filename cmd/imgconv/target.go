package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"xenlvm/lib/blkdev"
	"xenlvm/lib/diskimg"
	"xenlvm/lib/fault"
	"xenlvm/lib/lvm"
	"xenlvm/lib/run"
)

// target is an opened destination.
type target struct {
	f       *os.File // nil where a dry run would make a file
	path    string
	made    bool    // a new file, which has its name only when it is complete
	device  bool    // a block device
	empty   bool    // nothing that could be lost
	short   bool    // a file that is smaller than the source
	behind  int64   // by how many bytes a file is larger
	written bool    // the copy has begun
	lv      *lvm.LV // nil if it is none

	progress *progress // nil if a copy to it cannot be continued
}

// partial is the name of a new file until it is complete. Nobody else makes such
// names: a file that has one was left by a run that did not end.
func partial(path string) string { return path + ".xenlvm-partial" }

// openTarget opens, or creates, the destination for us alone. A dry run opens
// what is there, to be refused what the real one would be, and changes nothing.
func openTarget(path string, src diskimg.Source, dry bool) (*target, error) {
	t := &target{path: path}
	if err := t.open(src, dry); err != nil {
		return nil, errors.Join(err, t.close())
	}
	return t, nil
}

func (t *target) open(src diskimg.Source, dry bool) error {
	info, err := os.Stat(t.path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		t.made, t.empty = true, true
		return t.create(src, dry)
	case err != nil:
		return fault.Refuse("cannot open %s: %w", t.path, fault.Reason(err))
	case info.Mode().IsRegular():
		if t.f, err = os.OpenFile(t.path, os.O_RDWR, 0); err != nil {
			return fault.Refuse("cannot open %s: %w", t.path, fault.Reason(err))
		}
		t.empty = info.Size() == 0
		if err := t.raw(info.Size()); err != nil {
			return err
		}
		return t.lock()
	}
	flag := os.O_RDWR
	if dry {
		flag = os.O_RDONLY // udev looks at what was open for writing
	}
	t.device = true
	t.f, err = blkdev.OpenExclusive(t.path, flag)
	return err
}

// raw refuses a file that has a format of its own: raw bytes would end that image.
func (t *target) raw(size int64) error {
	format, err := diskimg.Magic(t.f, size)
	if err != nil || format == diskimg.Raw {
		return err
	}
	return fault.Hint(fault.Refuse("cannot copy to %s: it is a %s image, and what imgconv writes is raw", t.path, format),
		"give a new name; qemu-img convert -f raw -O %s makes such an image of that", format)
}

// misnamed says that what has the name of another format will be raw.
func (t *target) misnamed() string {
	for _, f := range []diskimg.Format{diskimg.Qcow2, diskimg.Qcow, diskimg.QED, diskimg.VMDK, diskimg.VHD, diskimg.VHDX, diskimg.VDI} {
		if strings.EqualFold(filepath.Ext(t.path), "."+string(f)) {
			return fmt.Sprintf("what is written is raw, whatever the name says: %s will be no %s image", t.path, f)
		}
	}
	return ""
}

// create opens the file that becomes path, perhaps one that a killed run left.
func (t *target) create(src diskimg.Source, dry bool) error {
	flag := os.O_RDWR | unix.O_NOFOLLOW
	if !dry {
		flag |= os.O_CREATE
	}
	var err error
	t.f, err = os.OpenFile(partial(t.path), flag, 0o600)
	switch {
	case dry && errors.Is(err, os.ErrNotExist):
		t.f = nil
		return nil
	case err != nil:
		return leftover(t.path, fmt.Errorf("cannot create %s: %w", partial(t.path), fault.Reason(err)))
	case src.Is(t.f):
		return isPartial(t.path)
	}
	if err := t.lock(); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(t.f.Fd()), &st); err != nil || !t.named() || st.Nlink != 1 || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return leftover(t.path, fmt.Errorf("cannot use %s: it is not what a killed run left", t.f.Name()))
	}
	return nil
}

// isPartial refuses a source that is what the destination is written as.
func isPartial(path string) error {
	return fault.Hint(fault.Refuse("cannot copy %s to %s: it has the name that a copy to there has until it is complete", partial(path), path),
		"if it is worth something, give it another name: %s", run.Quote("mv", "--no-clobber", "--", partial(path), path+".saved"))
}

// leftover refuses what has the name of a new file that is not complete.
func leftover(path string, err error) error {
	err = fault.With(fault.Refused, err)
	if _, missing := os.Lstat(partial(path)); missing != nil {
		return err
	}
	return fault.Hint(err, "if nobody needs it: %s; else give it another name", run.Quote("rm", "--", partial(path)))
}

// named says whether the name still leads to the file that is open: until the
// lock was ours, another run may have given it its own.
func (t *target) named() bool {
	var opened, now unix.Stat_t
	return unix.Fstat(int(t.f.Fd()), &opened) == nil && unix.Lstat(t.f.Name(), &now) == nil && sameFile(&opened, &now)
}

func (t *target) close() error {
	if t.f == nil {
		return nil
	}
	return t.f.Close()
}

// beside is what a killed run left of another copy to this name, "" for nothing: it is
// not in the way, but takes room.
func (t *target) beside() string {
	if _, err := os.Lstat(partial(t.path)); err != nil || t.made || t.device {
		return ""
	}
	return partial(t.path)
}

// lock takes a file for one run, when no other program has it open.
func (t *target) lock() error {
	if unix.Flock(int(t.f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		return whoHas(fault.Refuse("cannot copy to %s: another run has it", t.path), t.f)
	}
	return t.checkOpen()
}

func (t *target) checkOpen() error {
	return checkOpen(t.f, unix.F_WRLCK, "cannot copy to "+t.path+": another program has it open")
}

// checkOpen refuses, with what, a file that another program has open: for writing
// if lease is F_RDLCK and f open for reading, in any way if it is F_WRLCK. Then the
// kernel grants no such lease. We do not keep it, or our own next open would wait
// for us to give it back. A file system without leases, such as NFS, and the kernel
// to somebody who does not own the file, cannot tell.
func checkOpen(f *os.File, lease int, what string) error {
	_, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, lease)
	if errors.Is(err, unix.EAGAIN) {
		return whoHas(fault.Refuse("%s", what), f)
	}
	if err == nil {
		_, err = unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_UNLCK)
		return err
	}
	return nil
}

// whoHas hints at how to find out who has a file open.
func whoHas(err error, f *os.File) error {
	return fault.Hint(err, "%s shows it (Debian package lsof); wait until it has ended, or end it", run.Quote("lsof", "--", f.Name()))
}

// checkAgain looks right before the first write whether somebody took the
// destination meanwhile: to compare it takes hours.
func (t *target) checkAgain(ctx context.Context, r run.Runner) error {
	if err := checkUsers(ctx, r, t.f.Name(), 1); err != nil {
		return err
	}
	return t.checkOpen()
}

// begin is what comes right before the first write.
func (t *target) begin(ctx context.Context, r run.Runner, src filled, has content) error {
	if t.made {
		size := int64(0)
		if has.resumed {
			size = src.Size()
		}
		t.written = true
		return t.f.Truncate(size)
	}
	if err := t.tag(ctx, r); err != nil {
		return err
	}
	t.written = true
	return nil
}
