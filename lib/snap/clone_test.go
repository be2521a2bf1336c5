package snap

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"xenlvm/lib/directio"
	"xenlvm/lib/fault"
	"xenlvm/lib/loopdev"
	"xenlvm/lib/mnt"
)

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// fileSystem mounts a new file system of 320 MiB until the test ends.
func fileSystem(t *testing.T, fsType string, mkfs ...string) string {
	t.Helper()
	if os.Geteuid() != 0 || os.Getenv("XENLVM_ROOT_TESTS") != "1" {
		t.Skip("mounts: needs root and XENLVM_ROOT_TESTS=1")
	}
	dir := t.TempDir()
	image := filepath.Join(dir, "device")
	must(t, os.WriteFile(image, nil, 0o600), os.Truncate(image, 320<<20))
	if out, err := exec.Command("mkfs."+fsType, append(mkfs, "-q", image)...).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.%s: %v: %s", fsType, err, out)
	}
	loop, err := loopdev.Attach(t.Context(), image, loopdev.Options{})
	must(t, err)
	m := mnt.Mount{Device: loop.Path, Point: filepath.Join(dir, "m"), Type: fsType, RW: true}
	t.Cleanup(func() { _ = loop.DetachLater() })
	must(t, m.Do())
	t.Cleanup(func() { must(t, m.Undo()) })
	return m.Point
}

func write(t *testing.T, path string, content []byte) string {
	t.Helper()
	must(t, os.WriteFile(path, content, 0o600))
	return path
}

// What can be cloned is found out by cloning.
func TestRootClonable(t *testing.T) {
	xfs, btrfs := fileSystem(t, "xfs"), fileSystem(t, "btrfs")
	sparse := write(t, filepath.Join(xfs, "sparse"), nil)
	must(t, os.Truncate(sparse, 1<<30+1))
	inPlace := write(t, filepath.Join(btrfs, "inplace"), nil)
	if out, err := exec.Command("chattr", "+C", inPlace).CombinedOutput(); err != nil {
		t.Fatalf("chattr: %v: %s", err, out)
	}
	write(t, inPlace, make([]byte, 1<<20))
	must(t, os.Symlink(sparse, filepath.Join(xfs, "link")))
	for path, want := range map[string]string{
		sparse: "",
		write(t, filepath.Join(xfs, "odd"), make([]byte, 5000)):  "",
		write(t, filepath.Join(xfs, "empty"), nil):               "",
		write(t, filepath.Join(btrfs, "a"), make([]byte, 3<<20)): "",
		inPlace:                      "overwritten in place",
		filepath.Join(xfs, "link"):   "cannot be read",
		filepath.Join(xfs, "absent"): "cannot be read",
		write(t, filepath.Join(fileSystem(t, "ext4"), "a"), make([]byte, 1<<20)):                  "neither xfs nor btrfs",
		write(t, filepath.Join(fileSystem(t, "xfs", "-m", "reflink=0"), "a"), make([]byte, 4096)): "does not let files share blocks",
	} {
		err := CheckClonable(path)
		if want == "" && err != nil || want != "" && (fault.StatusOf(err) != fault.Refused || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v; want %q", path, err, want)
		}
	}
	if left, err := os.ReadDir(xfs); err != nil || len(left) != 4 {
		t.Errorf("in xfs there are %v, %v", left, err)
	}
}

// A clone is announced before it has a name, and known by its inode from then on.
func TestRootClone(t *testing.T) {
	for _, fsType := range []string{"xfs", "btrfs"} {
		t.Run(fsType, func(t *testing.T) {
			dir := fileSystem(t, fsType)
			old := bytes.Repeat([]byte("as it was"), 1<<20)
			path, name := write(t, filepath.Join(dir, "disk.img"), old), filepath.Join(dir, ".xenlvm-vm3-xvda-snap")
			image, err := os.Open(path)
			must(t, err)
			defer image.Close()
			refused := errors.New("not written down")
			if _, err := MakeClone(image, name, func(Clone) error { return refused }); !errors.Is(err, refused) {
				t.Fatal(err)
			}
			if _, err := os.Lstat(name); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("what was not announced is there: %v", err)
			}
			var announced Clone
			c, err := MakeClone(image, name, func(one Clone) error {
				announced = one
				if _, err := os.Lstat(name); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("it has its name already: %v", err)
				}
				return nil
			})
			must(t, err, c.Check())
			if announced.Changed = c.Changed; announced != c {
				t.Errorf("announced %+v, made %+v", announced, c)
			}
			if _, err := MakeClone(image, name, func(Clone) error { return nil }); !errors.Is(err, os.ErrExist) {
				t.Errorf("a second one of that name: %v", err)
			}
			write(t, path, []byte("something else"))
			if now, err := os.ReadFile(name); err != nil || !bytes.Equal(now, old) {
				t.Errorf("it changed with the image: %v", err)
			}
			// Reading is no change, and a killed run may have left a loop device.
			loop, err := loopdev.Attach(t.Context(), name, loopdev.Options{ReadOnly: true})
			must(t, err, c.Check())
			plan, err := c.Removal()
			must(t, err)
			if len(plan) != 2 || plan[0].Line != "losetup --detach "+loop.Path || plan[1].Line != "rm --force "+name {
				t.Errorf("removal: %+v", plan)
			}
			must(t, os.Chmod(name, 0o600))
			if c.Check() == nil {
				t.Error("a change is not seen")
			}
			must(t, plan.Run(t.Context(), nil))
			if !c.Gone() || c.Remove() != nil {
				t.Error("it is not gone")
			}
			write(t, name, []byte("another's"))
			if plan, err := c.Removal(); !c.Gone() || c.Remove() != nil || err != nil || plan != nil || c.Check() == nil {
				t.Errorf("another file of its name is taken for it: %v, %v", plan, err)
			}
			if b, err := os.ReadFile(name); err != nil || string(b) != "another's" {
				t.Errorf("%q, %v", b, err)
			}
		})
	}
}

// A guest must never find its file system full because of us.
func TestRootRoom(t *testing.T) {
	dir := fileSystem(t, "xfs")
	room, err := Room(dir)
	must(t, err, CheckRoom(dir, room))
	if err := CheckRoom(dir, room+1); fault.StatusOf(err) != fault.Refused || len(fault.Hints(err)) == 0 {
		t.Errorf("more than there is: %v", err)
	}
	filler, err := os.Create(filepath.Join(dir, "filler"))
	must(t, err)
	defer filler.Close()
	must(t, unix.Fallocate(int(filler.Fd()), 0, 0, int64(room)))
	if err := WatchRoom(t.Context(), dir); !errors.Is(err, ErrNearlyFull) {
		t.Errorf("nearly full: %v", err)
	}
	if err := WatchRoom(t.Context(), filepath.Join(dir, "absent")); err == nil || errors.Is(err, ErrNearlyFull) {
		t.Errorf("nobody can tell: %v", err)
	}
}

func TestReserve(t *testing.T) {
	if got := reserve(100 << 20); got != 5<<20 {
		t.Errorf("of a small one: %s", got)
	}
	if got := reserve(10 << 40); got != 10<<30 {
		t.Errorf("of a large one: %s", got)
	}
}

// A clone of an image that is written to has all writes that had ended before, and of
// later ones none whose predecessor it does not have: what a disk has after a power cut.
func TestRootCloneOfALiveDisk(t *testing.T) {
	const block, blocks = 4096, 256
	for _, fsType := range []string{"xfs", "btrfs"} {
		for _, direct := range []bool{false, true} {
			dir := fileSystem(t, fsType)
			path := write(t, filepath.Join(dir, "disk.img"), make([]byte, block*blocks))
			loop, err := loopdev.Attach(t.Context(), path, loopdev.Options{Direct: direct})
			must(t, err)
			disk, err := os.OpenFile(loop.Path, os.O_RDWR|unix.O_DIRECT, 0)
			must(t, err)
			image, err := os.Open(path)
			must(t, err)
			var ended atomic.Int64 // writes
			stop, stopped := make(chan struct{}), make(chan error, 1)
			go func() {
				b := directio.Buffer(block)
				for n := int64(0); ; n++ {
					select {
					case <-stop:
						stopped <- nil
						return
					default:
					}
					binary.LittleEndian.PutUint64(b, uint64(n+1))
					if _, err := disk.WriteAt(b, n%blocks*block); err != nil {
						stopped <- err
						return
					}
					ended.Store(n + 1)
				}
			}()
			for i := range 12 {
				for at := ended.Load(); ended.Load() < at+20+int64(i); { // the disk is busy
					runtime.Gosched()
				}
				before := ended.Load()
				c, err := MakeClone(image, filepath.Join(dir, "clone"), func(Clone) error { return nil })
				must(t, err)
				content, err := os.ReadFile(c.Path)
				must(t, err, c.Check(), c.Remove())
				var last, sum uint64
				for b := 0; b < blocks; b++ {
					n := binary.LittleEndian.Uint64(content[b*block:])
					last, sum = max(last, n), sum+n
				}
				// The newest writes, one for each block, and nothing else.
				want := uint64(0)
				for n := max(int64(last)-blocks, 0) + 1; n <= int64(last); n++ {
					want += uint64(n)
				}
				if int64(last) < before || sum != want {
					t.Fatalf("%s, direct %v: the clone ends with write %d, and %d had ended; sum %d, want %d", fsType, direct, last, before, sum, want)
				}
			}
			close(stop)
			must(t, <-stopped, disk.Close(), image.Close(), loop.Detach(t.Context()))
		}
	}
}
