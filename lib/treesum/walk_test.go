package treesum

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"xenlvm/lib/fault"
	"xenlvm/lib/treesum/treetest"
)

func TestLostAndFound(t *testing.T) {
	src, dst := t.TempDir(), t.TempDir()
	stamp := func() {
		for _, dir := range []string{src, dst} {
			must(t, os.Chtimes(dir, time.Time{}, time.Unix(1, 0)))
		}
	}
	must(t, os.Mkdir(dst+"/lost+found", 0o700))
	stamp()
	if r := compare(t, src, dst, Options{}); !r.Equal() || r.Source.Digest != r.Destination.Digest {
		t.Errorf("an empty lost+found counts: %v", r.Differences)
	}
	must(t, os.WriteFile(dst+"/lost+found/#12", nil, 0o644))
	stamp()
	if r := compare(t, src, dst, Options{}); r.Different != 2 {
		t.Errorf("what fsck found does not count: %v", r.Differences)
	}
}

func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(fault.ErrInterrupted)
	if _, err := Compare(ctx, t.TempDir(), t.TempDir(), Options{}); !errors.Is(err, fault.ErrInterrupted) {
		t.Errorf("Compare: %v", err)
	}
	if _, err := Compare(t.Context(), t.TempDir()+"/missing", t.TempDir(), Options{}); !errors.Is(err, unix.ENOENT) {
		t.Errorf("a missing root gave %v", err)
	}
}

// before must order paths as a walk yields them.
func TestBeforeIsTheOrderOfAWalk(t *testing.T) {
	root := t.TempDir()
	rng := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		path := root
		for range 1 + rng.IntN(4) {
			path += "/" + string([]byte{"\x01!-.0a\xff"[rng.IntN(7)], "\x01!-.0a\xff"[rng.IntN(7)]}[:1+rng.IntN(2)])
		}
		if filepath.Clean(path) == path {
			must(t, os.MkdirAll(path, 0o755))
		}
	}
	w, err := newWalker(root)
	must(t, err)
	defer w.close()
	var last string
	count := 0
	for {
		e, err := w.next()
		if err != nil {
			break
		}
		if count > 0 && (!before(last, e.path) || before(e.path, last)) {
			t.Fatalf("%q came after %q", e.path, last)
		}
		last = e.path
		count++
	}
	if want := len(strings.Split(treetest.Run(t, "find", root, "-print0"), "\x00")) - 1; count != want {
		t.Errorf("walked %d entries; find says %d", count, want)
	}
}

// Paths longer than PATH_MAX exist: each step is a short one.
func TestDeeperThanPathMax(t *testing.T) {
	root := t.TempDir()
	const depth = 3000
	fd, err := unix.Open(root, unix.O_DIRECTORY, 0)
	must(t, err)
	for range depth {
		must(t, unix.Mkdirat(fd, "deep", 0o755))
		next, err := unix.Openat(fd, "deep", unix.O_DIRECTORY, 0)
		must(t, err)
		must(t, unix.Close(fd))
		fd = next
	}
	must(t, unix.Close(fd))
	s := compare(t, root, root, Options{}).Source
	if s.Directories != depth+1 {
		t.Errorf("%d directories; want %d", s.Directories, depth+1)
	}
}

func TestMountsAreNotEntered(t *testing.T) {
	treetest.Root(t)
	root := t.TempDir()
	must(t, os.MkdirAll(root+"/m", 0o755))
	must(t, unix.Mount("none", root+"/m", "tmpfs", 0, ""))
	t.Cleanup(func() { must(t, unix.Unmount(root+"/m", 0)) })
	must(t, os.WriteFile(root+"/m/inside", nil, 0o644))
	s := compare(t, root, root, Options{}).Source
	if s.Mounts != 1 || s.Files != 0 || s.Directories != 2 {
		t.Errorf("%+v; want the mount counted and not entered", s)
	}
}
