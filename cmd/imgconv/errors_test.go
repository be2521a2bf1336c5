package main

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"xenlvm/lib/atomicfile"
	"xenlvm/lib/blkdev"
	"xenlvm/lib/diskimg"
	"xenlvm/lib/journal"
	"xenlvm/lib/loopdev"
	"xenlvm/lib/snap"
	"xenlvm/lib/xl"
)

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
