package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"xenlvm/lib/cli"
	"xenlvm/lib/diskimg"
	"xenlvm/lib/fault"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// refused expects a refusal that says want.
func refused(t *testing.T, err error, want string) {
	t.Helper()
	if fault.StatusOf(err) != fault.Refused || !strings.Contains(err.Error(), want) {
		t.Errorf("%v; want %q, refused", err, want)
	}
}

// disturbed is a source that is written to while it is read.
type disturbed struct {
	diskimg.Source
	disturb func()
}

func (d disturbed) ReadAt(b []byte, off int64) (int, error) {
	d.disturb()
	return d.Source.ReadAt(b, off)
}

func TestSourceIsWrittenTo(t *testing.T) {
	dir := t.TempDir()
	image, copied := filepath.Join(dir, "a.img"), filepath.Join(dir, "b.img")
	must(t, os.WriteFile(image, bytes.Repeat([]byte("x"), 1<<20), 0o600))
	must(t, os.Chtimes(image, time.Time{}, time.Unix(1, 0)))
	var o options
	src, err := o.openSource(image)
	must(t, err)
	defer src.Close()
	target, err := openTarget(copied)
	must(t, err)
	defer target.f.Close()
	guest, err := os.OpenFile(image, os.O_WRONLY, 0)
	must(t, err)
	defer guest.Close()
	e := &cli.Env{Tool: "imgconv", Stderr: io.Discard}
	_, changed, err := o.copyPlain(t.Context(), e, disturbed{src, func() { _, _ = guest.WriteAt([]byte("y"), 700000) }}, target, 0)
	if err == nil || !strings.Contains(err.Error(), "written to while it was read") {
		t.Errorf("%v; want an error: the source was written to", err)
	}
	must(t, target.failed(nil, changed))
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
}

func TestOpenElsewhere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "b.img")
	other, err := os.Create(path)
	must(t, err)
	defer other.Close()
	_, err = openTarget(path)
	refused(t, err, "another program has it open for writing")
	var st unix.Stat_t
	must(t, unix.Stat(path, &st))
	refused(t, checkSource(nil, &st, path), "another program has it open for writing")
	must(t, other.Close())
	must(t, checkSource(nil, &st, path))
	target, err := openTarget(path)
	must(t, err)
	_, err = openTarget(path)
	refused(t, err, "another run has it")
	must(t, target.f.Close())
}

// What has the temporary name is taken over only if a killed run left it.
func TestPartial(t *testing.T) {
	path := filepath.Join(t.TempDir(), "b.img")
	other := path + ".other"
	must(t, os.WriteFile(other, []byte("precious"), 0o600))
	for what, make := range map[string]func() error{
		"a link":      func() error { return os.Symlink(other, partial(path)) },
		"a hard link": func() error { return os.Link(other, partial(path)) },
		"a FIFO":      func() error { return unix.Mkfifo(partial(path), 0o600) },
		"a directory": func() error { return os.Mkdir(partial(path), 0o700) },
	} {
		must(t, make())
		if _, err := openTarget(path); fault.StatusOf(err) != fault.Refused {
			t.Errorf("%s: %v; want a refusal", what, err)
		}
		must(t, os.Remove(partial(path)))
	}
	if b, err := os.ReadFile(other); err != nil || string(b) != "precious" {
		t.Fatalf("another file became %q, %v", b, err)
	}

	must(t, os.WriteFile(partial(path), []byte("left"), 0o600))
	target, err := openTarget(path)
	must(t, err)
	defer target.f.Close()
	if st, err := target.f.Stat(); err != nil || st.Size() != 0 {
		t.Errorf("what was left is still there: %d bytes, %v", st.Size(), err)
	}
	_, err = openTarget(path)
	refused(t, err, "another run has it")
	must(t, target.finish())
	if _, err := os.Lstat(partial(path)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the temporary name is still there: %v", err)
	}
	_, err = openTarget(path)
	refused(t, err, "another run has it")
}

// A file that somebody made meanwhile is not replaced, and the copy is kept.
func TestNameIsTaken(t *testing.T) {
	path := filepath.Join(t.TempDir(), "b.img")
	target, err := openTarget(path)
	must(t, err)
	defer target.f.Close()
	must(t, os.WriteFile(path, []byte("precious"), 0o600))
	if err := target.finish(); fault.StatusOf(err) != fault.Left || !errors.Is(err, os.ErrExist) {
		t.Errorf("%v; want file exists, left", err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "precious" {
		t.Errorf("the file became %q, %v", b, err)
	}
	if _, err := os.Stat(partial(path)); err != nil {
		t.Errorf("the copy is gone: %v", err)
	}
}
