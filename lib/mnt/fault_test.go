package mnt

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"xenlvm/lib/loopdev"
)

// attached is a loop device of a new image.
func attached(t *testing.T, dir, fsType string) *loopdev.Device {
	t.Helper()
	if os.Geteuid() != 0 || os.Getenv("XENLVM_ROOT_TESTS") != "1" {
		t.Skip("mounts: needs root and XENLVM_ROOT_TESTS=1")
	}
	image := filepath.Join(dir, "disk.img")
	command(t, "truncate", "-s", "16M", image)
	command(t, "mkfs."+fsType, "-q", image)
	loop, err := loopdev.Attach(t.Context(), image, loopdev.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := loop.Detach(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return loop
}

// A mount that fails leaves neither a mount point nor a hold on the device.
func TestRootMountFails(t *testing.T) {
	dir := t.TempDir()
	m := Mount{Device: attached(t, dir, "ext4").Path, Point: filepath.Join(dir, "m"), Type: "xfs", Data: ReadOnly("xfs")}
	if err := m.Do(); err == nil {
		t.Error("ext4 was mounted as xfs")
	}
	if _, err := os.Stat(m.Point); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its mount point is left: %v", err)
	}
	// What was there before stays.
	if err := errors.Join(os.Mkdir(m.Point, 0o700), os.WriteFile(m.Point+"/mine", nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := m.Do(); err == nil {
		t.Error("ext4 was mounted as xfs")
	}
	if _, err := os.Stat(m.Point + "/mine"); err != nil {
		t.Error(err)
	}
}

// A mount that is busy is an error, and stays: it is never detached lazily.
func TestRootUnmountBusy(t *testing.T) {
	dir := t.TempDir()
	m := Mount{Device: attached(t, dir, "ext4").Path, Point: filepath.Join(dir, "m"), Type: "ext4", RW: true}
	do(t, m)
	held, err := os.Create(m.Point + "/held")
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	if err := m.Undo(); !errors.Is(err, unix.EBUSY) {
		t.Errorf("busy: %v", err)
	}
	if _, err := held.WriteString("still there"); err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile(m.Point + "/held"); err != nil || string(b) != "still there" {
		t.Errorf("it is not mounted any more: %q, %v", b, err)
	}
	if err := held.Close(); err != nil {
		t.Fatal(err)
	}
	undo(t, m)
}
