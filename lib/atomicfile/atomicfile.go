// Package atomicfile replaces the content of a file so that a reader, and a
// machine that loses power, sees the old content or the new one and nothing in
// between. It writes through symbolic links and keeps mode, owner, ACL and the
// other extended attributes.
//
// The new content is written to a temporary file beside the old one, whose name
// begins with a dot: xendomains starts every other file in /etc/xen/auto. A
// process killed at the wrong moment leaves that file behind, and nothing else.
package atomicfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"

	"xenlvm/lib/fault"
	"xenlvm/lib/run"
)

// ErrChanged is the cause when somebody else wrote the file since it was read.
var ErrChanged = errors.New("it was changed by somebody else in the meantime")

// File is a regular file as it was when it was read.
type File struct {
	Path    string // as asked for
	Real    string // absolute, no symbolic links
	Content []byte
	info    os.FileInfo
}

// Read reads a regular file of at most limit bytes, to be replaced later.
func Read(path string, limit int64) (*File, error) {
	f, err := read(path, limit)
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", path, fault.Reason(err))
	}
	return f, nil
}

func read(path string, limit int64) (*File, error) {
	real, err := filepath.EvalSymlinks(path)
	if err == nil {
		real, err = filepath.Abs(real)
	}
	if err != nil {
		return nil, err
	}
	// Opening a FIFO without O_NONBLOCK would wait for a writer.
	fd, err := os.OpenFile(real, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer fd.Close()
	info, err := fd.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fault.Refuse("it is not a regular file")
	}
	content, err := io.ReadAll(io.LimitReader(fd, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(content)) > limit {
		return nil, fault.Refuse("it is larger than %d bytes", limit)
	}
	return &File{Path: path, Real: real, Content: content, info: info}, nil
}

// Replaceable refuses a file with several hard links, which a replacement would
// part from each other. Replace asks it too; a caller asks before other changes.
func (f *File) Replaceable() error {
	if err := f.replaceable(); err != nil {
		return fmt.Errorf("cannot replace %s: %w", f.Path, err)
	}
	return nil
}

func (f *File) replaceable() error {
	if n := links(f.info); n > 1 {
		return fault.Refuse("it has %d hard links, and the others would keep the old content", n)
	}
	return nil
}

// Replace puts content in the file's place and returns when it is on disk. The
// cause is ErrChanged when the file is no longer what Read saw. After any error
// the old file is untouched and no temporary one is left, with one exception:
// when the name of the new file could not be made durable, the error has the
// status fault.Left.
//
// On success f is the new file, so that Replace can be called again.
func (f *File) Replace(content []byte) error {
	if err := f.replace(content); err != nil {
		return fmt.Errorf("cannot write %s: %w", f.Path, fault.Reason(err))
	}
	return nil
}

func (f *File) replace(content []byte) error {
	if err := errors.Join(f.replaceable(), f.Unchanged()); err != nil {
		return err
	}
	dir := filepath.Dir(f.Real)
	t, err := renameio.NewPendingFile(f.Real, renameio.WithTempDir(dir), renameio.WithStaticPermissions(0o600))
	if err != nil {
		return err
	}
	// A no-op once the file is in place.
	defer func() { _ = t.Cleanup() }()
	if _, err := t.Write(content); err != nil {
		return err
	}
	if err := copyAttributes(t.File, f.Real, f.info); err != nil {
		return err
	}
	info, err := t.Stat()
	if err != nil {
		return err
	}
	// Synced before the second comparison, because that takes long.
	if err := t.Sync(); err != nil {
		return err
	}
	if err := f.Unchanged(); err != nil {
		return err
	}
	if err := t.CloseAtomicallyReplace(); err != nil {
		return err
	}
	f.Content, f.info = bytes.Clone(content), info
	if err := SyncDir(dir); err != nil {
		err = fault.With(fault.Left, fmt.Errorf("the new content is in place, but may not survive a power cut: %w", err))
		return fault.Hint(err, "%s", run.Quote("sync", dir))
	}
	return nil
}

// Unchanged says whether the file still is what it was when it was read; the
// error is ErrChanged if it is not.
func (f *File) Unchanged() error {
	now, err := read(f.Path, int64(len(f.Content)))
	if errors.Is(err, os.ErrNotExist) || fault.StatusOf(err) == fault.Refused {
		return ErrChanged
	}
	if err != nil {
		return err
	}
	if now.Real != f.Real || !os.SameFile(now.info, f.info) || !bytes.Equal(now.Content, f.Content) ||
		now.info.Mode() != f.info.Mode() || owner(now.info) != owner(f.info) {
		return ErrChanged
	}
	return nil
}

// Create writes a new file, which must not exist, with mode 0600 and returns
// when it is on disk. After an error there is no file.
func Create(path string, content []byte) error {
	err := create(path, content)
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", path, fault.Reason(err))
	}
	return nil
}

func create(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = SyncDir(filepath.Dir(path))
	}
	if err != nil {
		return errors.Join(fault.Reason(err), os.Remove(path))
	}
	return nil
}
