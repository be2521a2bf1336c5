package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"xenlvm/lib/cli"
	"xenlvm/lib/diskimg"
	"xenlvm/lib/extent"
	"xenlvm/lib/fault"
	"xenlvm/lib/run"
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

// disturb does something whenever src is read.
func disturb(src *source, do func()) { src.Source = disturbed{src.Source, do} }

type disturbed struct {
	diskimg.Source
	do func()
}

func (d disturbed) ReadAt(b []byte, off int64) (int, error) {
	d.do()
	return d.Source.ReadAt(b, off)
}

// openImage opens a source on a host without domains.
func openImage(t *testing.T, path string) *source {
	t.Helper()
	fakeHost(t, "{}")
	var o options
	src, err := o.openSource(t.Context(), run.Host{}, path)
	must(t, err)
	t.Cleanup(func() { src.Close() })
	return src
}

// some is a source that has nothing to do with the destination.
func some(t *testing.T) *source {
	t.Helper()
	path := filepath.Join(t.TempDir(), "some.img")
	must(t, os.WriteFile(path, make([]byte, 512), 0o600))
	return openImage(t, path)
}

// copyPlain is the copying itself, onto an opened target.
func copyPlain(t *testing.T, o options, src *source, to *target) (outcome, error) {
	t.Helper()
	e := &cli.Env{Tool: "imgconv", Stderr: io.Discard, Runner: run.Host{}}
	o.stateDir = t.TempDir()
	return o.copyPlain(t.Context(), e, src, to, 0)
}

func TestSourceIsWrittenTo(t *testing.T) {
	dir := t.TempDir()
	image, copied := filepath.Join(dir, "a.img"), filepath.Join(dir, "b.img")
	must(t, os.WriteFile(image, bytes.Repeat([]byte("x"), 1<<20), 0o600))
	must(t, os.Chtimes(image, time.Time{}, time.Unix(1, 0)))
	src := openImage(t, image)
	target, err := openTarget(copied, src, false)
	must(t, err)
	defer target.close()
	guest, err := os.OpenFile(image, os.O_WRONLY, 0)
	must(t, err)
	defer guest.Close()
	disturb(src, func() { _, _ = guest.WriteAt([]byte("y"), 700000) })
	_, err = copyPlain(t, options{}, src, target)
	if err == nil || !strings.Contains(err.Error(), "written to while it was read") {
		t.Errorf("%v; want an error: the source was written to", err)
	}
	if _, err := os.Stat(copied); err == nil {
		t.Error("it got its name")
	}
}

// That both were equal is worth nothing when the source was written to meanwhile.
func TestSourceOfAnEqualCopyIsWrittenTo(t *testing.T) {
	dir := t.TempDir()
	image, copied := filepath.Join(dir, "a.img"), filepath.Join(dir, "b.img")
	for _, path := range []string{image, copied} {
		must(t, os.WriteFile(path, bytes.Repeat([]byte("x"), 1<<20), 0o600))
		must(t, os.Chtimes(path, time.Time{}, time.Unix(1, 0)))
	}
	src := openImage(t, image)
	target, err := openTarget(copied, src, false)
	must(t, err)
	defer target.close()
	guest, err := os.OpenFile(image, os.O_WRONLY, 0)
	must(t, err)
	defer guest.Close()
	disturb(src, func() { _, _ = guest.WriteAt([]byte("x"), 0) })
	_, err = copyPlain(t, options{}, src, target)
	if err == nil || !strings.Contains(err.Error(), "written to while it was read") {
		t.Errorf("%v; want an error: the source was written to", err)
	}
}

// The destination is looked at again after the hours that comparing takes.
func TestTakenMeanwhile(t *testing.T) {
	for what, take := range map[string]func(t *testing.T, path string){
		"domain vm3 has it": func(t *testing.T, path string) {
			fakeHost(t, `{"domains": [{"name": "vm3", "id": 7, "disks": [{"vdev": "xvda", "path": "`+path+`", "format": "qcow2", "state": 4}]}]}`)
		},
		"another program has it open": func(t *testing.T, path string) {
			f, err := os.Open(path)
			must(t, err)
			t.Cleanup(func() { f.Close() })
		},
	} {
		t.Run(what, func(t *testing.T) {
			dir := t.TempDir()
			image, copied := filepath.Join(dir, "a.img"), filepath.Join(dir, "b.img")
			must(t, os.WriteFile(image, bytes.Repeat([]byte("x"), 4096), 0o600))
			old := bytes.Repeat([]byte("y"), 4096)
			must(t, os.WriteFile(copied, old, 0o600))
			src := openImage(t, image)
			target, err := openTarget(copied, src, false)
			must(t, err)
			defer target.close()
			var once sync.Once
			disturb(src, func() { once.Do(func() { take(t, copied) }) })
			_, err = copyPlain(t, options{overwrite: true}, src, target)
			refused(t, target.failed(err), what)
			if b, err := os.ReadFile(copied); err != nil || !bytes.Equal(b, old) {
				t.Errorf("it was written to, %v", err)
			}
		})
	}
}

// What has the name of an unfinished copy may be the source.
func TestSourceIsPartial(t *testing.T) {
	path := filepath.Join(t.TempDir(), "b.img")
	must(t, os.WriteFile(partial(path), bytes.Repeat([]byte("x"), 4096), 0o600))
	link := path + ".link"
	must(t, os.Symlink(partial(path), link))
	const want = "it has the name that a copy to there has until it is complete"
	for _, flags := range [][]string{nil, {"--dry-run"}, {"--overwrite"}} {
		for _, source := range []string{partial(path), link} {
			if s, said := imgconv(t, append(flags, source, path)...); s != fault.Refused || !strings.Contains(said, want) || !strings.Contains(said, "hint: ") {
				t.Errorf("%s: status %d: %s", source, s, said)
			}
		}
	}
	// And so it is seen by what was opened, if it got the name only then.
	src := openImage(t, partial(path))
	must(t, src.Close()) // or the file is refused because it is open
	_, err := openTarget(path, src, false)
	refused(t, err, want)
	if b, err := os.ReadFile(partial(path)); err != nil || len(b) != 4096 {
		t.Errorf("the source has %d bytes, %v", len(b), err)
	}
}

// What got the temporary name meanwhile is not removed.
func TestPartialOfAnother(t *testing.T) {
	path := filepath.Join(t.TempDir(), "b.img")
	target, err := openTarget(path, some(t), false)
	must(t, err)
	defer target.close()
	must(t, os.Rename(partial(path), path+".moved"))
	must(t, os.WriteFile(partial(path), []byte("precious"), 0o600))
	_ = target.failed(io.ErrUnexpectedEOF)
	if b, err := os.ReadFile(partial(path)); err != nil || string(b) != "precious" {
		t.Errorf("another's file became %q, %v", b, err)
	}
}

// A domain's disk may have the temporary name.
func TestPartialIsADisk(t *testing.T) {
	dir := t.TempDir()
	image, path := filepath.Join(dir, "a.img"), filepath.Join(dir, "b.img")
	for _, f := range []string{image, partial(path)} {
		must(t, os.WriteFile(f, make([]byte, 4096), 0o600))
	}
	s, said := imgconvOn(t, `{"domains": [{"name": "vm3", "id": 7, "disks": [{"vdev": "xvda", "path": "`+partial(path)+`", "format": "qcow2", "state": 4}]}]}`, image, path)
	if s != fault.Refused || !strings.Contains(said, "domain vm3 has it as its disk xvda") {
		t.Errorf("status %d: %s", s, said)
	}
	if st, err := os.Stat(partial(path)); err != nil || st.Size() != 4096 {
		t.Errorf("the disk became %v, %v", st, err)
	}
}

// A name that is mistyped makes no file among the devices, however it is written.
func TestNoFileAmongDevices(t *testing.T) {
	var dev, root unix.Stat_t
	must(t, errors.Join(unix.Stat("/dev", &dev), unix.Stat("/", &root)))
	if dev.Dev == root.Dev {
		t.Skip("/dev is on the root file system here")
	}
	image := filepath.Join(t.TempDir(), "a.img")
	must(t, os.WriteFile(image, make([]byte, 4096), 0o600))
	link := filepath.Join(t.TempDir(), "link")
	must(t, os.Symlink("/dev", link))
	const name = "xenlvm-test-no-such-device"
	t.Chdir("/dev")
	for _, path := range []string{name, "./" + name, "/dev/" + name, link + "/" + name} {
		s, said := imgconv(t, image, path)
		if s != fault.Refused || !strings.Contains(said, "cannot find the device") {
			t.Errorf("%s: status %d: %s", path, s, said)
		}
		if os.Remove("/dev/"+name) == nil {
			t.Errorf("%s: a file was made", path)
		}
	}
}

// A dry run is refused what the real one would be, and leaves nothing.
func TestDryRunIsRefused(t *testing.T) {
	dir := t.TempDir()
	image, path := filepath.Join(dir, "a.img"), filepath.Join(dir, "b.img")
	must(t, os.WriteFile(image, bytes.Repeat([]byte("x"), 4096), 0o600))
	must(t, os.WriteFile(path, bytes.Repeat([]byte("y"), 4096), 0o600))
	dry := func(want string, flags ...string) {
		t.Helper()
		s, said := imgconv(t, append(flags, "--dry-run", image, path)...)
		if want == "" && s != fault.Done || want != "" && (s != fault.Refused || !strings.Contains(said, want)) {
			t.Errorf("status %d: %s; want %q", s, said, want)
		}
	}
	dry("it holds other data")
	dry("", "--overwrite")
	other, err := os.Open(path)
	must(t, err)
	dry("another program has it open", "--overwrite")
	must(t, other.Close())
	must(t, os.Remove(path))
	must(t, os.Symlink(image, partial(path)))
	dry("cannot create")
	must(t, os.Remove(partial(path)))
	must(t, os.WriteFile(partial(path), []byte("left"), 0o600))
	dry("")
	if b, err := os.ReadFile(partial(path)); err != nil || string(b) != "left" {
		t.Errorf("a dry run made %q of what was left, %v", b, err)
	}
	must(t, os.Remove(partial(path)))
	dry("")
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("a dry run left %v", left)
	}
}

func TestOpenElsewhere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "b.img")
	other, err := os.Create(path)
	must(t, err)
	defer other.Close()
	src := some(t)
	_, err = openTarget(path, src, false)
	refused(t, err, "another program has it open")
	refused(t, checkFile(path, path), "another program has it open for writing")
	must(t, other.Close())
	must(t, checkFile(path, path))
	// A reader does a source no harm, and has no claim on what a destination was.
	other, err = os.Open(path)
	must(t, err)
	must(t, checkFile(path, path))
	_, err = openTarget(path, src, false)
	refused(t, err, "another program has it open")
	if hints := fault.Hints(err); strings.Contains(err.Error(), "for writing") || len(hints) != 1 || !strings.HasPrefix(hints[0], "lsof ") {
		t.Errorf("%v, hints %q", err, hints)
	}
	must(t, other.Close())
	target, err := openTarget(path, src, false)
	must(t, err)
	_, err = openTarget(path, src, false)
	refused(t, err, "another run has it")
	if len(fault.Hints(err)) == 0 {
		t.Error("a refusal without a next step")
	}
	must(t, target.close())
}

// What has the temporary name is taken over only if a killed run left it.
func TestPartial(t *testing.T) {
	path := filepath.Join(t.TempDir(), "b.img")
	other := path + ".other"
	must(t, os.WriteFile(other, []byte("precious"), 0o600))
	src := some(t)
	for what, make := range map[string]func() error{
		"a link":      func() error { return os.Symlink(other, partial(path)) },
		"a hard link": func() error { return os.Link(other, partial(path)) },
		"a FIFO":      func() error { return unix.Mkfifo(partial(path), 0o600) },
		"a directory": func() error { return os.Mkdir(partial(path), 0o700) },
	} {
		must(t, make())
		if _, err := openTarget(path, src, false); fault.StatusOf(err) != fault.Refused {
			t.Errorf("%s: %v; want a refusal", what, err)
		}
		must(t, os.Remove(partial(path)))
	}
	if b, err := os.ReadFile(other); err != nil || string(b) != "precious" {
		t.Fatalf("another file became %q, %v", b, err)
	}

	must(t, os.WriteFile(partial(path), []byte("left"), 0o600))
	target, err := openTarget(path, src, false)
	must(t, err)
	defer target.close()
	_, err = openTarget(path, src, false)
	refused(t, err, "another run has it")
	must(t, target.finish(t.Context(), nil))
	if _, err := os.Lstat(partial(path)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the temporary name is still there: %v", err)
	}
	_, err = openTarget(path, src, false)
	refused(t, err, "another run has it")
}

// A file that somebody made meanwhile is not replaced, and the copy is kept.
func TestNameIsTaken(t *testing.T) {
	path := filepath.Join(t.TempDir(), "b.img")
	target, err := openTarget(path, some(t), false)
	must(t, err)
	defer target.close()
	must(t, os.WriteFile(path, []byte("precious"), 0o600))
	if err := target.finish(t.Context(), nil); fault.StatusOf(err) != fault.Left || !errors.Is(err, os.ErrExist) {
		t.Errorf("%v; want file exists, left", err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "precious" {
		t.Errorf("the file became %q, %v", b, err)
	}
	if _, err := os.Stat(partial(path)); err != nil {
		t.Errorf("the copy is gone: %v", err)
	}
}

// A file that is not where its copy was to be is no copy.
func TestUnmoved(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(path string) error
		says string
	}{
		{"as it was", func(string) error { return nil }, ""},
		{"removed", os.Remove, "no such file"},
		{"replaced", func(path string) error {
			return errors.Join(os.WriteFile(path+".new", make([]byte, 8192), 0o600), os.Rename(path+".new", path))
		}, "was replaced"},
		{"cut", func(path string) error { return os.Truncate(path, 100) }, "was cut to 100 bytes"},
	} {
		path := filepath.Join(t.TempDir(), "out")
		if err := os.WriteFile(path, make([]byte, 8192), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := c.do(path); err != nil {
			t.Fatal(err)
		}
		err = (&target{f: f, path: path}).unmoved(filled{size: 8192})
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v; want %q", c.name, err, c.says)
		}
	}
}

// liar is an image whose file system says that it is one hole.
type liar struct{ diskimg.Source }

func (liar) Data() (extent.Set, error) { return extent.Set{}, nil }

// A source that lies about its holes is not copied, neither all of it nor what is in use.
func TestHolesThatAreNone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "image")
	must(t, os.WriteFile(path, bytes.Repeat([]byte{1}, 1<<20), 0o600))
	src := openImage(t, path)
	src.Source = liar{src.Source}
	for _, whole := range []bool{false, true} {
		if err := src.findUsed(whole); fault.StatusOf(err) != fault.Refused || !strings.Contains(err.Error(), "a hole at") {
			t.Errorf("whole %v: %v", whole, err)
		}
	}
}

// A source that shrinks is named, with what is left of it.
func TestSourceShrinks(t *testing.T) {
	dir := t.TempDir()
	image := filepath.Join(dir, "a.img")
	noise(t, image, 3<<20)
	src := openImage(t, image)
	to, err := openTarget(dir+"/b.img", src, false)
	must(t, err)
	defer to.close()
	var once sync.Once
	disturb(src, func() { once.Do(func() { must(t, os.Truncate(image, 4096)) }) })
	_, err = copyPlain(t, options{}, src, to)
	if want := image + " became smaller while it was read, 4096 bytes of 3145728 are left"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v; want %q", err, want)
	}
}
