package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"xenlvm/lib/blkdev"
	"xenlvm/lib/cli"
	"xenlvm/lib/fault"
	"xenlvm/lib/loopdev"
	"xenlvm/lib/xl"
)

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 || os.Getenv("XENLVM_ROOT_TESTS") != "1" {
		t.Skip("attaches loop devices and mounts: needs root and XENLVM_ROOT_TESTS=1")
	}
}

// imageFile is a file of 16 MiB.
func imageFile(t *testing.T, path string) string {
	t.Helper()
	must(t, os.WriteFile(path, []byte("data"), 0o600))
	must(t, os.Truncate(path, 16<<20))
	return path
}

func attach(t *testing.T, file string, o loopdev.Options) string {
	t.Helper()
	d, err := loopdev.Attach(t.Context(), file, o)
	must(t, err)
	t.Cleanup(func() {
		if err := d.Detach(t.Context()); err != nil && t.Context().Err() == nil {
			t.Error(err)
		}
	})
	return d.Path
}

func mount(t *testing.T, device, fstype, data string) string {
	t.Helper()
	point := t.TempDir()
	must(t, unix.Mount(device, point, fstype, 0, data))
	t.Cleanup(func() {
		if err := unix.Unmount(point, 0); err != nil {
			t.Error(err)
		}
	})
	return point
}

// imgconv runs the program and returns its status and what it said.
func imgconv(t *testing.T, args ...string) (fault.Status, string) {
	t.Helper()
	work := t.TempDir() // of the fake xl, which TestMain put before the real one
	t.Setenv("WORK", work)
	must(t, os.WriteFile(work+"/host.json", []byte("{}"), 0o600))
	var stdout, stderr bytes.Buffer
	s := tool().Exec(t.Context(), &cli.Env{Tool: "imgconv", Stdout: &stdout, Stderr: &stderr}, args)
	return s, stderr.String()
}

// What is built on what: an image with a file system, in it a second image.
func TestRootBuiltOnEachOther(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	outer := imageFile(t, dir+"/outer.img")
	if out, err := exec.Command("mke2fs", "-q", "-F", "-t", "ext4", outer).CombinedOutput(); err != nil {
		t.Fatalf("mke2fs: %v: %s", err, out)
	}
	outerLoop := attach(t, outer, loopdev.Options{})
	point := mount(t, outerLoop, "ext4", "")
	inner := imageFile(t, point+"/inner.img")
	must(t, os.Truncate(inner, 1<<20))
	innerLoop := attach(t, inner, loopdev.Options{ReadOnly: true})
	free := imageFile(t, dir+"/free.img")
	freeLoop := attach(t, imageFile(t, dir+"/behind.img"), loopdev.Options{})

	for _, c := range []struct{ source, destination, want string }{
		{outer, dir + "/new.img", "it is attached to " + outerLoop},
		{free, outer, "it is attached to " + outerLoop},
		{outerLoop, outer, "it is attached to " + outerLoop},
		{innerLoop, inner, "it is attached to " + innerLoop},
		{inner, innerLoop, "that holds the source"},
		{inner, outerLoop, "that holds the source"},
		{innerLoop, outerLoop, "that holds the source is built on it"},
		{outerLoop, innerLoop, "that holds the source"},
		{outerLoop, point + "/new.img", "its file system lies on the source"},
	} {
		for _, flags := range [][]string{{"--dry-run"}, {"--overwrite"}} {
			if s, said := imgconv(t, append(flags, c.source, c.destination)...); s != fault.Refused || !strings.Contains(said, c.want) {
				t.Errorf("%s to %s: status %d: %s; want %q", c.source, c.destination, s, said, c.want)
			}
		}
	}
	// A read-only loop device does nobody harm, and neither does a stranger.
	for source, destination := range map[string]string{inner: dir + "/new.img", innerLoop: freeLoop} {
		if s, said := imgconv(t, "--overwrite", source, destination); s != fault.Done {
			t.Errorf("%s to %s: status %d: %s", source, destination, s, said)
		}
	}
}

// A full file system is named, with what to do; a new file is removed again.
func TestRootNoSpace(t *testing.T) {
	needRoot(t)
	image := filepath.Join(t.TempDir(), "a.img")
	must(t, os.WriteFile(image, bytes.Repeat([]byte("x"), 4<<20), 0o600))
	path := mount(t, "tmpfs", "tmpfs", "size=1m") + "/b.img"
	must(t, os.WriteFile(path, nil, 0o600))
	s, said := imgconv(t, image, path)
	for _, want := range []string{path + " is half overwritten", "no space left on device", "hint: make room for " + path} {
		if s != fault.Left || !strings.Contains(said, want) || strings.Contains(said, "/proc/") {
			t.Errorf("status %d: %s; want %q", s, said, want)
		}
	}
	must(t, os.Remove(path))
	if s, said := imgconv(t, image, path); s != fault.Refused || !strings.Contains(said, "are free") {
		t.Errorf("no room for a new file: status %d: %s", s, said)
	}
	// The room that a killed run's file takes is free for the next run.
	must(t, os.WriteFile(partial(path), bytes.Repeat([]byte("x"), 900<<10), 0o600))
	must(t, os.Truncate(image, 512<<10))
	if s, said := imgconv(t, image, path); s != fault.Done {
		t.Errorf("over a killed run's file: status %d: %s", s, said)
	}
}

func TestDiskOnDevice(t *testing.T) {
	d := xl.Disk{HasDevice: true, Major: 7, Minor: 3, Path: "/etc/hostname"}
	for dev, want := range map[uint64]bool{unix.Mkdev(7, 3): true, unix.Mkdev(7, 4): false} {
		if got := isDisk(d, &unix.Stat_t{Mode: unix.S_IFBLK, Rdev: dev}); got != want {
			t.Errorf("device %s: %v", fmt.Sprint(blkdev.NumberOf(dev)), got)
		}
	}
}
