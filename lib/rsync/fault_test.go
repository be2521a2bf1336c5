package rsync

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"xenlvm/lib/run"
)

// rsync walks by whole paths, and cannot follow those longer than PATH_MAX, which a
// guest can make: it says so, and what it left out is no success.
func TestDeeperThanRsyncCan(t *testing.T) {
	src, dst := t.TempDir(), t.TempDir()
	must(t, os.WriteFile(src+"/file", []byte("at the top"), 0o600))
	fd, err := unix.Open(src, unix.O_DIRECTORY, 0)
	must(t, err)
	for range 1000 { // of 5 bytes
		must(t, unix.Mkdirat(fd, "deep", 0o755))
		next, err := unix.Openat(fd, "deep", unix.O_DIRECTORY, 0)
		must(t, err)
		must(t, unix.Close(fd))
		fd = next
	}
	must(t, unix.Close(fd))
	if s, err := Copy(t.Context(), run.Host{}, src, dst, Options{}, nil); !errors.Is(err, ErrPartial) {
		t.Errorf("%+v, %v; want that some files were not copied", s, err)
	}
}
