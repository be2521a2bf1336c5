package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"xenlvm/lib/blkdev"
	"xenlvm/lib/cli"
	"xenlvm/lib/diskimg"
	"xenlvm/lib/fault"
	"xenlvm/lib/loopdev"
	"xenlvm/lib/run"
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

// fakeHost is what the fakes, which TestMain put before the real programs, play.
func fakeHost(t *testing.T, state string) {
	t.Helper()
	work := t.TempDir()
	t.Setenv("WORK", work)
	t.Setenv("IMGCONV_STATE_DIR", work+"/state")
	must(t, os.WriteFile(work+"/host.json", []byte(state), 0o600))
}

// imgconv runs the program on a host without domains and returns its status and
// what it said.
func imgconv(t *testing.T, args ...string) (fault.Status, string) {
	t.Helper()
	return imgconvOn(t, "{}", args...)
}

func imgconvOn(t *testing.T, state string, args ...string) (fault.Status, string) {
	t.Helper()
	fakeHost(t, state)
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
	must(t, unix.Mount("", point, "", unix.MS_REMOUNT|unix.MS_RDONLY, "")) // or it were no source
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
	must(t, os.WriteFile(path, []byte("old"), 0o600))
	src := openImage(t, image)
	to, err := openTarget(path, src, false)
	must(t, err)
	_, err = copyPlain(t, options{overwrite: true}, src, to) // which does not look for room
	err = to.failed(err)
	must(t, to.close())
	said := fmt.Sprintln(err, fault.Hints(err))
	for _, want := range []string{path + " is half overwritten", "no space left on device", "make room for " + path} {
		if fault.StatusOf(err) != fault.Left || !strings.Contains(said, want) || strings.Contains(said, "/proc/") {
			t.Errorf("%s; want %q", said, want)
		}
	}
	if s, said := imgconv(t, "--overwrite", image, path); s != fault.Refused || !strings.Contains(said, "are free") {
		t.Errorf("no room beside what it has: status %d: %s", s, said)
	}
	must(t, os.Truncate(path, 0))
	if s, said := imgconv(t, image, path); s != fault.Refused || !strings.Contains(said, "are free") {
		t.Errorf("no room for an empty file: status %d: %s", s, said)
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

// A device that somebody may write to is no source; a mount that is read-only does
// no harm.
func TestRootSourceDevice(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	image := imageFile(t, dir+"/a.img")
	if out, err := exec.Command("mke2fs", "-q", "-F", "-t", "ext4", image).CombinedOutput(); err != nil {
		t.Fatalf("mke2fs: %v: %s", err, out)
	}
	loop := attach(t, image, loopdev.Options{})
	point := mount(t, loop, "ext4", "")
	try := func(name string, want string) {
		t.Helper()
		path := filepath.Join(dir, name)
		s, said := imgconv(t, loop, path)
		_, err := os.Stat(path)
		if want == "" && (s != fault.Done || err != nil) || want != "" && (s != fault.Refused || !strings.Contains(said, want) || err == nil) {
			t.Errorf("%s: status %d: %s; want %q", name, s, said, want)
		}
	}
	try("rw.img", "cannot copy "+loop+": it is mounted on "+point+", and may be written to")
	must(t, unix.Mount("", point, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	try("ro.img", "")
	must(t, unix.Unmount(point, 0))
	claim, err := blkdev.OpenExclusive(loop, os.O_RDONLY)
	must(t, err)
	try("claimed.img", "cannot copy "+loop+": it is in use")
	must(t, claim.Close())
	try("idle.img", "")
	must(t, unix.Mount(loop, point, "ext4", 0, "")) // for the cleanup
}

// What a program wrote to a device without claiming it is counted.
func TestRootSourceDeviceIsWrittenTo(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	loop := attach(t, imageFile(t, dir+"/a.img"), loopdev.Options{})
	src := openImage(t, loop)
	target, err := openTarget(dir+"/b.img", src, false)
	must(t, err)
	defer target.close()
	guest, err := os.OpenFile(loop, os.O_WRONLY, 0)
	must(t, err)
	defer guest.Close()
	disturb(src, func() { _, _ = guest.WriteAt([]byte("y"), 8<<20) })
	_, err = copyPlain(t, options{}, src, target)
	if err == nil || !strings.Contains(err.Error(), "written to while it was read") {
		t.Errorf("%v; want an error: the source was written to", err)
	}
}

// A destination that only looks blank is not overwritten: one byte is data.
func TestRootAlmostBlank(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	image := attach(t, imageFile(t, dir+"/a.img"), loopdev.Options{ReadOnly: true})
	behind := dir + "/b.img"
	f, err := os.Create(behind)
	must(t, err)
	const size, at = 256 << 20, 100<<20 + 300<<10 // between two samples of 64 KiB
	must(t, f.Truncate(size))
	_, err = f.WriteAt([]byte("precious"), at)
	must(t, errors.Join(err, f.Close()))
	loop := attach(t, behind, loopdev.Options{})
	if info, err := diskimg.Probe(loop); err != nil || info.Kind != diskimg.Blank {
		t.Fatalf("the samples see it: %v, %v", info.Kind, err)
	}
	for _, flags := range [][]string{{"--dry-run"}, {}} {
		if s, said := imgconv(t, append(flags, image, loop)...); s != fault.Refused || !strings.Contains(said, "it holds other data") {
			t.Errorf("%v: status %d: %s", flags, s, said)
		}
	}
	f, err = os.OpenFile(loop, os.O_RDWR|unix.O_SYNC, 0)
	must(t, err)
	_, err = f.WriteAt(make([]byte, 8), at)
	must(t, errors.Join(err, f.Close()))
	if s, said := imgconv(t, image, loop); s != fault.Done || !strings.Contains(said, "wrote 4.00 KiB") {
		t.Errorf("a blank device: status %d: %s", s, said)
	}
}

// A volume has the tag while it is not what a domain could start from.
func TestRootTag(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	image := attach(t, imageFile(t, dir+"/a.img"), loopdev.Options{ReadOnly: true})
	loop := attach(t, imageFile(t, dir+"/b.img"), loopdev.Options{})
	must(t, os.WriteFile(dir+"/c.img", bytes.Repeat([]byte("x"), 4096), 0o600))
	other := attach(t, dir+"/c.img", loopdev.Options{ReadOnly: true})
	dev, err := blkdev.Stat(loop)
	must(t, err)
	state := func(tags string) string {
		return fmt.Sprintf(`{"devices": {%q: {"lv": "vg0/b", "uuid": "u", "major": %d, "minor": %d, "tags": [%s]}}}`, loop, dev.Number.Major, dev.Number.Minor, tags)
	}
	calls := func() string {
		b, err := os.ReadFile(os.Getenv("WORK") + "/calls")
		must(t, err)
		var changes []string
		for line := range strings.Lines(string(b)) {
			if strings.HasPrefix(line, "lvchange ") {
				changes = append(changes, strings.TrimSpace(line))
			}
		}
		return strings.Join(changes, "; ")
	}
	const on, off = "lvchange --addtag xenlvm.incomplete vg0/b", "lvchange --deltag xenlvm.incomplete vg0/b"
	for _, c := range []struct {
		what, source, tags, flags string
		status                    fault.Status
		want                      string
	}{
		{"equal", image, "", "", fault.Done, ""},
		{"equal, of a run that was killed", image, `"xenlvm.incomplete"`, "", fault.Done, off},
		{"a dry run", other, "", "--dry-run --overwrite", fault.Done, ""},
		{"other data", other, "", "", fault.Refused, ""},
		{"overwritten", other, "", "--overwrite", fault.Done, on + "; " + off},
		{"over what a killed run left", image, `"xenlvm.incomplete"`, "--overwrite", fault.Done, off},
	} {
		s, said := imgconvOn(t, state(c.tags), append(strings.Fields(c.flags), c.source, loop)...)
		if got := calls(); s != c.status || got != c.want {
			t.Errorf("%s: status %d: %s: %q; want %q", c.what, s, said, got, c.want)
		}
	}

	// A copy that fails in the middle leaves the tag.
	src := openImage(t, dir+"/c.img")
	fakeHost(t, state(""))
	target, err := openTarget(loop, src, false)
	must(t, err)
	defer target.close()
	must(t, target.findVolume(t.Context(), run.Host{}))
	disturb(src, func() { _ = os.Chtimes(dir+"/c.img", time.Time{}, time.Unix(1, 0)) })
	_, err = copyPlain(t, options{overwrite: true}, src, target)
	if err = target.failed(err); fault.StatusOf(err) != fault.Left || calls() != on {
		t.Errorf("%v: %q; want the tag", err, calls())
	}
}
