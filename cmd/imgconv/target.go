package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"xenlvm/lib/blkdev"
	"xenlvm/lib/blockcopy"
	"xenlvm/lib/diskimg"
	"xenlvm/lib/extent"
	"xenlvm/lib/fault"
	"xenlvm/lib/journal"
	"xenlvm/lib/run"
)

// target is an opened destination.
type target struct {
	f     *os.File
	path  string
	made  bool // a new file, which has its name only when it is complete
	empty bool // nothing that could be lost
}

// partial is the name of a new file until it is complete. Nobody else makes such
// names: a file that has one was left by a run that was killed.
func partial(path string) string { return path + ".xenlvm-partial" }

// openTarget opens, or creates, the destination for us alone.
func openTarget(path string) (*target, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return create(path)
	case err != nil:
		return nil, fault.Refuse("cannot open %s: %w", path, err)
	case info.Mode().IsRegular():
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return nil, fault.Refuse("cannot open %s: %w", path, err)
		}
		if err := lock(f, path); err != nil {
			return nil, errors.Join(err, f.Close())
		}
		return &target{f: f, path: path, empty: info.Size() == 0}, nil
	}
	f, err := blkdev.OpenExclusive(path, os.O_RDWR)
	if err != nil {
		return nil, err
	}
	content, err := diskimg.ProbeFile(f)
	if err != nil {
		f.Close()
		return nil, fault.With(fault.Refused, err)
	}
	return &target{f: f, path: path, empty: content.Kind == diskimg.Blank}, nil
}

// create opens the file that becomes path, emptied if a killed run left it.
func create(path string) (*target, error) {
	f, err := os.OpenFile(partial(path), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fault.Refuse("cannot create %s: %w", path, err)
	}
	err = lock(f, path)
	if err == nil {
		err = empty(f)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &target{f: f, path: path, made: true, empty: true}, nil
}

// empty empties a locked file that has no other name, and has that one still:
// until the lock was ours, another run may have given it its own.
func empty(f *os.File) error {
	var opened, named unix.Stat_t
	err := errors.Join(unix.Fstat(int(f.Fd()), &opened), unix.Lstat(f.Name(), &named))
	if err != nil || !sameFile(&opened, &named) || opened.Nlink != 1 || opened.Mode&unix.S_IFMT != unix.S_IFREG {
		return fault.Refuse("cannot use %s: it is not what a killed run left", f.Name())
	}
	return f.Truncate(0)
}

// lock takes a file for one run, when no other program has it open.
func lock(f *os.File, path string) error {
	if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		return fault.Refuse("cannot copy to %s: another run has it", path)
	}
	return checkWriters(f, unix.F_WRLCK, "cannot copy to "+path)
}

// checkWriters refuses, with what, a file that another program has open for
// writing: then the kernel grants no lease, of F_RDLCK on a file open for reading
// and F_WRLCK on one open for writing. We do not keep it, or our own next open
// would wait for us to give it back. A file system without leases, such as NFS,
// and the kernel to somebody who does not own the file, cannot tell.
func checkWriters(f *os.File, lease int, what string) error {
	_, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, lease)
	if errors.Is(err, unix.EAGAIN) {
		return fault.Hint(fault.Refuse("%s: another program has it open for writing", what), "%s", run.Quote("fuser", "--verbose", f.Name()))
	}
	if err == nil {
		_, err = unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_UNLCK)
		return err
	}
	return nil
}

// finish gives a new file its name.
func (t *target) finish() error {
	if !t.made {
		return nil
	}
	err := rename(t.f.Name(), t.path)
	if err != nil {
		return fault.Hint(fault.With(fault.Left, fmt.Errorf("the copy is complete and verified, but cannot be named %s: %w", t.path, err)),
			"%s", run.Quote("mv", "--no-clobber", t.f.Name(), t.path))
	}
	return fault.With(fault.Left, journal.SyncDir(filepath.Dir(t.path)))
}

// rename renames a file, and never replaces another one.
func rename(from, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	if !errors.Is(err, unix.EINVAL) {
		return err
	}
	// A file system that cannot promise it, such as NFS.
	if _, err := os.Lstat(to); err == nil {
		return unix.EEXIST
	}
	return os.Rename(from, to)
}

// failed undoes what can be undone after err, and says what to do. A destination
// that was there before stays as it is now.
func (t *target) failed(err error, written bool) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		err = fault.Hint(err, "make room for %s, then run it again", t.path)
	}
	switch {
	case t.made:
		return errors.Join(err, fault.With(fault.Left, os.Remove(t.f.Name())))
	case written && fault.StatusOf(err) != fault.Mismatch:
		return fault.Hint(fault.With(fault.Left, fmt.Errorf("%s is half overwritten: %w", t.path, err)), "run it again: it goes on where the two differ")
	}
	return err
}

// compare reads a destination that holds something, and the source. The digests
// are nil when there is nothing to compare.
func (t *target) compare(ctx context.Context, src diskimg.Source, o blockcopy.Options) (*blockcopy.Digests, bool, error) {
	size, err := t.f.Seek(0, io.SeekEnd)
	if t.empty || err != nil || size < src.Size() {
		return nil, false, err
	}
	sums, err := blockcopy.Scan(ctx, t.f, src.Size(), o)
	if err != nil {
		return nil, false, err
	}
	differ, err := blockcopy.Differ(ctx, src, sums, o)
	if err != nil || !differ.Empty() {
		return sums, false, err
	}
	// Behind the image, a larger destination must be zero.
	err = blockcopy.Verify(ctx, t.f, sums, new(extent.Of(extent.Range{Off: src.Size(), Len: size - src.Size()})), o)
	var m *blockcopy.MismatchError
	if errors.As(err, &m) {
		return sums, false, nil
	}
	return sums, true, err
}
