package main

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"xenlvm/internal/fakehost"
	"xenlvm/internal/sweep"
)

// TestFaults has each command and each kind of system call fail that imgconv needs to
// copy one image onto another.
func TestFaults(t *testing.T) {
	calls := map[string][]string{
		"fsync": nil, "fdatasync": nil, "pwrite64": nil, "ftruncate": nil, "fallocate": nil, "renameat": {"srv/b.img"}, "linkat": {"srv/b.img"},
		"openat": {"srv/a.img", "srv/b.img", "srv"}, "pread64": {"srv/a.img"}, "lseek": {"srv/a.img"},
	}
	env := map[string]string{"IMGCONV_STATE_DIR": "state", "TMPDIR": "tmp"}
	plain := []string{"imgconv", "$WORK/srv/a.img", "$WORK/srv/b.img"}
	sweep.Run(t, slices.Concat(slices.Collect(maps.Keys(fakehost.Commands())), []string{"imgconv"}), []sweep.Plan{
		{Name: "new file", Make: twoImages, Run: plain, Env: env, State: files, Calls: calls, Lies: true},
		{Name: "over another", Make: func(w sweep.World) {
			twoImages(w)
			w.Write("srv/b.img", strings.Repeat("old ", 1<<20))
		}, Run: slices.Concat(plain, []string{"--overwrite"}), Env: env, State: files, Calls: calls, Lies: true},
	})
}

// twoImages is a host with an image.
func twoImages(w sweep.World) {
	w.Write("host.json", "{}")
	w.Write("tmp/.keep", "")
	image := make([]byte, 4<<20)
	for i := range image {
		if i>>16%3 != 0 { // with holes
			image[i] = byte(i>>8) | 1
		}
	}
	w.Write("srv/a.img", string(image))
}

// files are the images, by their digests.
func files(w sweep.World) string {
	found, err := filepath.Glob(filepath.Join(w.Dir, "srv", "*"))
	if err != nil {
		w.Fatal(err)
	}
	var b strings.Builder
	for _, f := range found {
		content, err := os.ReadFile(f)
		if err != nil {
			w.Fatal(err)
		}
		fmt.Fprintf(&b, "%s %d %x\n", filepath.Base(f), len(content), sha256.Sum256(content))
	}
	return b.String()
}
