package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"xenlvm/lib/atomicfile"
	"xenlvm/lib/fault"
	"xenlvm/lib/run"
)

// finish gives a new file its name, and takes the tag off a volume.
func (t *target) finish(ctx context.Context, r run.Runner) error {
	if !t.made {
		return t.untag(ctx, r)
	}
	if !t.named() {
		return fault.Hint(fmt.Errorf("the copy is lost: %s was removed or replaced before it could be named %s", t.f.Name(), t.path), "run it again, and leave that file alone meanwhile")
	}
	if err := rename(t.f.Name(), t.path); err != nil {
		name := t.path
		if errors.Is(err, unix.EEXIST) {
			name += ".new"
		}
		return fault.Hint(fault.With(fault.Left, fmt.Errorf("the copy is complete and verified, but cannot be named %s: %w", t.path, fault.Reason(err))),
			"it is %s: %s", t.f.Name(), run.Quote("mv", "--no-clobber", "--", t.f.Name(), name))
	}
	dir := filepath.Dir(t.path)
	if err := atomicfile.SyncDir(dir); err != nil {
		return fault.Hint(fault.With(fault.Left, fmt.Errorf("the copy is complete and verified, but its name may not survive a power cut: %w", err)), "%s", run.Quote("sync", dir))
	}
	return nil
}

// unmoved refuses a copy whose destination is not at its path any more, or was cut.
func (t *target) unmoved(src filled) error {
	if t.made || t.device {
		return nil // see named; and a device has its size and number
	}
	now, err := os.Stat(t.path)
	if err != nil {
		return fmt.Errorf("cannot rely on the copy: %w", err)
	}
	was, err := t.f.Stat()
	switch {
	case err != nil:
		return err
	case !os.SameFile(was, now):
		return fmt.Errorf("cannot rely on the copy: %s was replaced while it was written", t.path)
	case now.Size() < src.size:
		return fmt.Errorf("cannot rely on the copy: %s was cut to %d bytes while it was written", t.path, now.Size())
	}
	return nil
}

// cut makes a file that was larger as large as the source.
func (t *target) cut(src *source) error {
	if t.behind == 0 {
		return nil
	}
	t.behind = 0
	return errors.Join(t.f.Truncate(src.Size()), t.f.Sync())
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
// that was there before stays as it is now, and a new file if it can be continued.
func (t *target) failed(err error) error {
	status, known := fault.StatusOf(err), t.progress.files()
	if noRoom(err) {
		err = fault.Hint(err, "make room for %s, then run it again", t.path)
	}
	switch {
	case t.made && t.named() && !t.stays(err):
		if status == fault.Mismatch {
			err = fmt.Errorf("%w; so %s was removed", err, t.f.Name())
		}
		return errors.Join(err, fault.With(fault.Left, os.Remove(t.f.Name())))
	case t.made && t.named() && len(known) > 0 && (t.written || status == fault.Interrupted):
		if status != fault.Interrupted {
			err = fault.With(fault.Left, err)
		}
		return fault.Hint(fmt.Errorf("%w; %s stays, as far as it was copied", err, t.f.Name()),
			"the same command goes on; to give it up: %s", run.Quote(append([]string{"rm", "--", t.f.Name()}, known...)...))
	case !t.made && t.written && status != fault.Mismatch:
		if len(known) > 0 {
			err = fault.Hint(err, "to give it up: %s", run.Quote(append([]string{"rm", "--"}, known...)...))
		}
		return fault.Hint(fault.With(fault.Left, fmt.Errorf("%s is half overwritten: %w", t.path, err)), "run it again; where it refuses, with --overwrite")
	}
	return err
}

// stays says whether a new file is worth keeping after err: it was there before this
// run and is as it was, or the next one can go on with it. On a file system that is
// full it is not: guests may have sparse images there, and theirs are the next writes
// to fail.
func (t *target) stays(err error) bool {
	if !t.written {
		info, serr := t.f.Stat()
		return serr == nil && info.Size() > 0
	}
	return len(t.progress.files()) > 0 && t.goesOn(err)
}

// goesOn says whether what was copied until err is good, and not in the way.
func (t *target) goesOn(err error) bool {
	return fault.StatusOf(err) != fault.Mismatch && !(t.made && noRoom(err))
}

func noRoom(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }
