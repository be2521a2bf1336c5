package main

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"xenlvm/lib/atomicfile"
	"xenlvm/lib/blkdev"
	"xenlvm/lib/diskimg"
	"xenlvm/lib/fault"
	"xenlvm/lib/journal"
	"xenlvm/lib/loopdev"
	"xenlvm/lib/run"
	"xenlvm/lib/snap"
	"xenlvm/lib/xl"
)

// A copy that cannot get its name is not called what it is not, and not lost when it
// is not.
func TestNoName(t *testing.T) {
	dir := t.TempDir()
	path := dir + "/-b.img"
	attempt := func(spoil func()) error {
		t.Helper()
		to, err := openTarget(path, some(t), false)
		must(t, err)
		defer to.close()
		must(t, to.f.Truncate(512))
		spoil()
		return to.finish(t.Context(), run.Host{})
	}
	err := attempt(func() { must(t, os.WriteFile(path, []byte("other"), 0o600)) })
	if hints := fault.Hints(err); fault.StatusOf(err) != fault.Left || len(hints) != 1 || !strings.Contains(hints[0], run.Quote("mv", "--no-clobber", "--", partial(path), path+".new")) {
		t.Errorf("it exists by now: %v, %q", err, fault.Hints(err))
	}
	must(t, os.Remove(path))
	for what, spoil := range map[string]func(){
		"removed": func() { must(t, os.Remove(partial(path))) },
		"replaced": func() {
			must(t, os.Remove(partial(path)))
			must(t, os.WriteFile(partial(path), []byte("other"), 0o600))
		},
	} {
		_ = os.Remove(partial(path))
		err := attempt(spoil)
		if err == nil || fault.StatusOf(err) != fault.Failed || !strings.Contains(err.Error(), "the copy is lost: "+partial(path)) || len(fault.Hints(err)) != 1 {
			t.Errorf("%s: %v", what, err)
		}
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s: something else got the name", what)
		}
	}
}

// Nothing is copied between sectors of different sizes.
func TestRootOtherSectors(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	large := attach(t, imageFile(t, dir+"/b.img"), loopdev.Options{})
	f, err := os.OpenFile(large, os.O_RDWR, 0)
	must(t, err)
	must(t, unix.IoctlSetInt(int(f.Fd()), unix.LOOP_SET_BLOCK_SIZE, 4096))
	must(t, f.Close())
	s, said := imgconv(t, attach(t, imageFile(t, dir+"/a.img"), loopdev.Options{ReadOnly: true}), large)
	if s != fault.Refused || !strings.Contains(said, "its sectors are 4096 bytes, those of the source 512: a partition table would be misread, and Xen's drivers do not agree") {
		t.Errorf("status %d: %s", s, said)
	}
}

// A message names a path once, and no system call.
func TestPathsAreNamedOnce(t *testing.T) {
	dir := t.TempDir()
	missing, file := dir+"/missing.img", dir+"/file.img"
	must(t, os.WriteFile(file, make([]byte, 512), 0o600))
	below := file + "/b.img" // of a file that is no directory
	busy, err := os.Executable()
	must(t, err)
	long := dir + "/" + strings.Repeat("x", 250)
	must(t, os.Mkdir(partial(missing), 0o700))
	src := some(t)
	second := func(_ any, err error) error { return err }
	for what, c := range map[string]struct {
		path string
		err  error
	}{
		"a destination that is being executed":  {busy, second(openTarget(busy, src, false))},
		"a destination below a file":            {below, second(openTarget(below, src, false))},
		"a new file with too long a name":       {partial(long), second(openTarget(long, src, false))},
		"a new file whose temporary is no file": {partial(missing), second(openTarget(missing, src, false))},
		"a source that is not there":            {missing, checkFile(missing, missing)},
		"an image that is not there":            {missing, second(diskimg.Probe(missing))},
		"an image that cannot be opened":        {below, second(diskimg.OpenSource(below, "raw"))},
		"a loop device of nothing":              {missing, second(loopdev.Attach(t.Context(), missing, loopdev.Options{ReadOnly: true}))},
		"no device":                             {missing, second(blkdev.Stat(missing))},
		"no device to open":                     {missing, second(blkdev.OpenExclusive(missing, os.O_RDONLY))},
		"no configuration":                      {missing, second(xl.ReadConfig(missing))},
		"no file system":                        {missing, second(snap.FileSystem(missing))},
		"a directory of journals":               {dir + "/" + strings.Repeat("y", 300), second(journal.Open(dir+"/"+strings.Repeat("y", 300), "vm3", "imgconv"))},
		"a file to replace":                     {missing, second(atomicfile.Read(missing, 1))},
		"a file to create":                      {file, atomicfile.Create(file, nil)},
	} {
		if c.err == nil {
			t.Errorf("%s: no error", what)
		} else if said := c.err.Error(); strings.Count(said, c.path) != 1 || strings.Contains(said, ": open") || strings.Contains(said, "stat ") {
			t.Errorf("%s: %s", what, said)
		}
	}
	if err := unix.Access(missing, unix.F_OK); err == nil {
		t.Error(missing + " was made")
	}
}
