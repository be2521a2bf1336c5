package convert

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"xenlvm/lib/blkdev"
	"xenlvm/lib/diskimg"
	"xenlvm/lib/extent"
	"xenlvm/lib/loopdev"
	"xenlvm/lib/lvm"
)

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 || os.Getenv("XENLVM_ROOT_TESTS") != "1" {
		t.Skip("attaches loop devices and mounts: needs root and XENLVM_ROOT_TESTS=1")
	}
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

const imageSize = 64 << 20

// loop attaches file to a loop device until the test ends.
func loop(t *testing.T, file string) *loopdev.Device {
	t.Helper()
	d, err := loopdev.Attach(t.Context(), file, loopdev.Options{})
	must(t, err)
	return d
}

// inside does something in the file system in the image.
func inside(t *testing.T, image string, do func(dir string)) {
	t.Helper()
	d := loop(t, image)
	mounted(t, d.Path, do)
	must(t, d.Detach(t.Context()))
}

func mounted(t *testing.T, device string, do func(dir string)) {
	t.Helper()
	dir := t.TempDir()
	must(t, unix.Mount(device, dir, "ext4", 0, ""))
	do(dir)
	must(t, unix.Unmount(dir, 0))
}

func program(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
}

// passes is a conversion of one image onto a loop device full of 0xA5, and a pass of it.
func passes(t *testing.T, whole bool) (d *Disk, image, backing string, pass func(changed *extent.Set) []string) {
	t.Helper()
	dir := t.TempDir()
	image, backing = filepath.Join(dir, "image"), filepath.Join(dir, "volume")
	must(t, os.WriteFile(image, nil, 0o600), os.Truncate(image, imageSize))
	program(t, "mkfs.ext4", "-q", image)
	must(t, os.WriteFile(backing, bytes.Repeat([]byte{0xa5}, imageSize+4096), 0o600))
	dest := loop(t, backing)
	t.Cleanup(func() { _ = dest.Detach(t.Context()) })
	node, err := blkdev.Stat(dest.Path)
	must(t, err)
	var told []string
	c := conversion(t, &told)
	c.o.Whole = whole
	d = &Disk{VDev: "xvda", Image: image, Inside: "image", Format: "raw", Method: Blocks, Info: diskimg.Info{Size: imageSize, FileSize: imageSize},
		Dest: Destination{Path: dest.Path, Node: node, LV: lvm.LV{VG: "vg0", Name: "a", UUID: "u"}}}
	s := &source{frozen: &snapshot{point: dir, lv: lvm.LV{UUID: "b"}}, base: keptSnapshot{}, keep: true}
	return d, image, backing, func(changed *extent.Set) []string {
		told = nil
		d.Result, d.changed = Result{}, changed
		p, err := c.copyBlocks(t.Context(), s, d)
		must(t, err)
		must(t, c.verify(t.Context(), s, d, p))
		must(t, c.record(s, d))
		records, err := c.journal.Read()
		must(t, err)
		past := remember(records, "xvda", image)
		d.last, d.trusted = past.copied, true
		return told
	}
}

// differ is where two files differ, in blocks of 4 KiB.
func differ(t *testing.T, a, b []byte) extent.Set {
	t.Helper()
	var set extent.Set
	for off := 0; off < len(a); off += 4096 {
		if !bytes.Equal(a[off:off+4096], b[off:off+4096]) {
			set.Add(int64(off), 4096)
		}
	}
	return set
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	return b
}

// What the guest deleted without telling its disk is not copied, nor is what the
// volume held before; with the whole disk asked for, everything is.
func TestFreeBlocksAreLeftOut(t *testing.T) {
	needRoot(t)
	secret := bytes.Repeat([]byte("deleted!"), 8<<20/8)
	for _, whole := range []bool{false, true} {
		d, image, backing, pass := passes(t, whole)
		inside(t, image, func(dir string) {
			must(t, os.WriteFile(filepath.Join(dir, "kept"), bytes.Repeat([]byte("kept"), 1<<20), 0o600), os.WriteFile(filepath.Join(dir, "gone"), secret, 0o600))
			unix.Sync()
			must(t, os.Remove(filepath.Join(dir, "gone")))
		})
		told := pass(nil)
		got := read(t, backing)
		// What shares a block of the digests with data in use is copied.
		if found := 8 * bytes.Count(got, secret[:8]); found < len(secret)/2 != !whole {
			t.Errorf("whole %v: %d bytes of deleted data are on the volume", whole, found)
		}
		if bytes.IndexByte(got[imageSize:], 0xa5) >= 0 {
			t.Errorf("whole %v: old data behind the image", whole)
		}
		if equal := bytes.Equal(got[:imageSize], read(t, image)); equal != whole {
			t.Errorf("whole %v: identical: %v", whole, equal)
		}
		if said := strings.Contains(strings.Join(told, "\n"), "xvda: disk (ext4, 64.0 MiB): "); said == whole || (len(d.Result.Regions) == 1) == whole || d.Result.Whole != whole {
			t.Errorf("whole %v: said %q; result %+v", whole, told, d.Result)
		}
		if d.Result.Delta != "" || d.Result.BytesRead == 0 || d.Result.Verified != "full" {
			t.Errorf("whole %v: result %+v", whole, d.Result)
		}
		program(t, "e2fsck", "-fn", backing)
	}
}

// A pass that is told what changed reads no more than that, and its volume is as good.
func TestPassByChanges(t *testing.T) {
	needRoot(t)
	for _, whole := range []bool{false, true} {
		d, image, backing, pass := passes(t, whole)
		file := func(dir, name string, text string, size int) error {
			return os.WriteFile(filepath.Join(dir, name), bytes.Repeat([]byte(text), size/len(text)), 0o600)
		}
		inside(t, image, func(dir string) {
			must(t, file(dir, "kept", "kept", 8<<20), file(dir, "gone", "gone", 4<<20))
			unix.Sync()
			must(t, os.Remove(filepath.Join(dir, "gone")))
		})
		pass(nil)
		before := read(t, image)
		inside(t, image, func(dir string) {
			must(t, file(dir, "new", "new.", 6<<20), file(dir, "changed", "chan", 1<<20))
		})
		changed := differ(t, before, read(t, image))
		pass(&changed)
		if d.Result.Delta != byExceptions {
			t.Errorf("whole %v: by %s", whole, d.Result.Delta)
		}
		if read, most := d.Result.BytesRead, changed.Align(64<<10).Bytes()+2<<20; read > most {
			t.Errorf("whole %v: read %d bytes where %d changed", whole, read, changed.Bytes())
		}
		program(t, "e2fsck", "-fn", backing)
		if got := read(t, backing)[:imageSize]; whole && !bytes.Equal(got, read(t, image)) {
			t.Error("not identical")
		}
		// Mounting it is a write.
		mounted(t, d.Dest.Path, func(copied string) {
			inside(t, image, func(dir string) { program(t, "diff", "-r", dir, copied) })
		})
		pass(&extent.Set{})
		if d.Result.Delta != byDestination {
			t.Errorf("whole %v: somebody wrote to the volume, and it was not read: by %s", whole, d.Result.Delta)
		}
		program(t, "e2fsck", "-fn", backing)
	}
}

// A delta onto what no earlier pass read back has all of it read back.
func TestDeltaOnAnUnverifiedCopy(t *testing.T) {
	needRoot(t)
	d, _, _, pass := passes(t, true)
	pass(nil)
	pass(&extent.Set{})
	if d.Result.Verified != VerifiedWritten {
		t.Errorf("after a verified copy: %q", string(d.Result.Verified))
	}
	d.last.Verified = string(VerifiedNone)
	pass(&extent.Set{})
	if d.Result.Verified != VerifiedFull {
		t.Errorf("after one that was not: %q", string(d.Result.Verified))
	}
}
