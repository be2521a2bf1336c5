package loopdev

import (
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"xenlvm/lib/blkdev"
)

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 || os.Getenv("XENLVM_ROOT_TESTS") != "1" {
		t.Skip("attaches loop devices: needs root and XENLVM_ROOT_TESTS=1")
	}
}

func image(t *testing.T, name string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func attachTest(t *testing.T, file string, o Options) *Device {
	t.Helper()
	d, err := Attach(t.Context(), file, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Detach(t.Context()); err != nil && t.Context().Err() == nil {
			t.Error(err)
		}
	})
	return d
}

func TestRootAttachAndDetach(t *testing.T) {
	needRoot(t)
	file := image(t, "disk image.img")
	d := attachTest(t, file, Options{ReadOnly: true})
	var st unix.Stat_t
	if err := unix.Stat(file, &st); err != nil {
		t.Fatal(err)
	}
	if d.File != file || d.Ino != st.Ino || d.Dev != blkdev.NumberOf(st.Dev) || !d.ReadOnly {
		t.Errorf("attached %+v; want %s, inode %d on %s", d, file, st.Ino, blkdev.NumberOf(st.Dev))
	}
	ro, err := os.ReadFile("/sys/block/" + filepath.Base(d.Path) + "/ro")
	if err != nil || string(ro) != "1\n" {
		t.Errorf("ro = %q, %v: a source must not be writable", ro, err)
	}
	found, err := List(func(l Device) bool { return l.Ino == st.Ino && l.Dev == blkdev.NumberOf(st.Dev) })
	if err != nil || len(found) != 1 || found[0].Path != d.Path {
		t.Errorf("List = %v, %v; want %s", found, err, d.Path)
	}
	if err := d.Detach(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := status(d.Path); err != unix.ENXIO && !os.IsNotExist(err) {
		t.Errorf("%s is still attached: %v", d.Path, err)
	}
	if err := d.Detach(t.Context()); err != nil {
		t.Errorf("detaching again: %v", err)
	}
}

// A device number that was given to another file in between is not ours.
func TestRootDetachLeavesStrangers(t *testing.T) {
	needRoot(t)
	d := attachTest(t, image(t, "stranger.img"), Options{Label: "ours"})
	if d.ReadOnly || d.Label != "ours" {
		t.Errorf("attached %+v; want it writable, with the label ours", d)
	}
	ours := *d
	ours.Ino++
	if err := ours.Detach(t.Context()); err != nil {
		t.Fatal(err)
	}
	if now, err := status(d.Path); err != nil || now.Ino != d.Ino {
		t.Errorf("the stranger's device was detached: %v", err)
	}
}

// Several programs ask for a free device at once: each gets one of its own.
func TestRootAttachTogether(t *testing.T) {
	needRoot(t)
	const n = 6
	devices := make([]*Device, n)
	files := make([]string, n)
	for i := range files {
		files[i] = image(t, "disk.img")
	}
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			d, err := Attach(t.Context(), files[i], Options{ReadOnly: true})
			if err != nil {
				t.Error(err)
				return
			}
			devices[i] = d
		})
	}
	wg.Wait()
	seen := map[string]bool{}
	for i, d := range devices {
		if d == nil {
			continue
		}
		if seen[d.Path] || d.File != files[i] {
			t.Errorf("%s has %s; wanted %s for itself", d.Path, d.File, files[i])
		}
		seen[d.Path] = true
		if err := d.Detach(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func TestAttachRefusesALink(t *testing.T) {
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(image(t, "disk.img"), link); err != nil {
		t.Fatal(err)
	}
	if d, err := Attach(t.Context(), link, Options{ReadOnly: true}); err == nil {
		_ = d.Detach(t.Context())
		t.Error("a symbolic link was followed")
	}
}

// A device that is in use is detached by the kernel when its last user goes.
func TestRootDetachLater(t *testing.T) {
	needRoot(t)
	d := attachTest(t, image(t, "later.img"), Options{})
	f, err := os.Open(d.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := d.DetachLater(); err != nil {
		t.Fatal(err)
	}
	if now, err := status(d.Path); err != nil || now.Ino != d.Ino {
		t.Errorf("in use: %+v, %v", now, err)
	}
	f.Close()
	for range 100 {
		if now, err := status(d.Path); err != nil || now.Ino != d.Ino {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Error("it stayed attached")
}
