package loopdev

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The kernel keeps 64 bytes of a name, and the whole path in sysfs: a device is known
// by the inode behind it, whatever its name looks like.
func TestRootLongPath(t *testing.T) {
	needRoot(t)
	dir := filepath.Join(t.TempDir(), strings.Repeat("a directory with a long name ", 6))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	var devices []*Device
	for _, name := range []string{"disk 1.img", "disk 2.img"} { // alike in their first 64 bytes
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
			t.Fatal(err)
		}
		d := attachTest(t, path, Options{ReadOnly: true})
		if d.File != path || !d.IsOf(path) {
			t.Errorf("attached %s; want %s", d.File, path)
		}
		devices = append(devices, d)
	}
	for i, d := range devices {
		found, err := List(d.sameFile)
		if err != nil || len(found) != 1 || found[0].Path != d.Path || found[0].IsOf(devices[1-i].File) {
			t.Errorf("List = %v, %v; want %s alone", found, err, d.Path)
		}
	}
	if err := devices[0].Detach(t.Context()); err != nil {
		t.Error(err)
	}
	if !devices[1].IsOf(devices[1].File) {
		t.Error("the other one is gone, too")
	}
	if now, err := status(devices[1].Path); err != nil || !devices[1].sameFile(*now) {
		t.Errorf("the other one is %v, %v", now, err)
	}
}

// sameFile says whether the same file is behind both.
func (d *Device) sameFile(other Device) bool { return other.Ino == d.Ino && other.Dev == d.Dev }
