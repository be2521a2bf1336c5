package mnt

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"xenlvm/lib/blkdev"
	"xenlvm/lib/loopdev"
)

func TestLine(t *testing.T) {
	m := Mount{Device: "/dev/vg0/s", Point: "/run/it's", Type: "ext4", Data: ReadOnly("ext4")}
	want := `mkdir -p '/run/it'\''s' && mount -t ext4 -o ro,nodev,nosuid,noexec,nosymfollow,noload,errors=remount-ro /dev/vg0/s '/run/it'\''s'`
	if got := m.Line(""); got != want {
		t.Errorf("Line = %s\nwant   %s", got, want)
	}
	if got := m.Line(`"$loop"`); !strings.Contains(got, ` "$loop" `) {
		t.Errorf("Line with a variable = %s", got)
	}
	m.RW, m.Data = true, ""
	if got := m.Line(""); !strings.Contains(got, "-o rw,nodev,nosuid,noexec,nosymfollow /dev") {
		t.Errorf("Line read-write = %s", got)
	}
}

func TestUnescape(t *testing.T) {
	if got, want := unescape(`/srv/a\040b\134c\012d`), "/srv/a b\\c\nd"; got != want {
		t.Errorf("unescape = %q; want %q", got, want)
	}
}

func TestOfRoot(t *testing.T) {
	m, inside, err := Of("/")
	if err != nil || m.Point != "/" || inside == "" {
		t.Errorf("Of(/) = %+v, %q, %v", m, inside, err)
	}
	m, inside, err = Of("/proc/self")
	if err != nil || m.Type != "proc" || inside != "/self" {
		t.Errorf("Of(/proc/self) = %+v, %q, %v", m, inside, err)
	}
}

// TestRootMount mounts an image of each type as a source and as a destination.
// A source's bytes must not change, whatever state its journal is in.
func TestRootMount(t *testing.T) {
	if os.Geteuid() != 0 || os.Getenv("XENLVM_ROOT_TESTS") != "1" {
		t.Skip("mounts: needs root and XENLVM_ROOT_TESTS=1")
	}
	for _, fsType := range []string{"ext2", "ext3", "ext4", "xfs", "btrfs"} {
		t.Run(fsType, func(t *testing.T) {
			dir := t.TempDir()
			image := filepath.Join(dir, "disk.img")
			command(t, "truncate", "-s", "400M", image)
			command(t, "mkfs."+fsType, "-q", image)
			loop, err := loopdev.Attach(t.Context(), image, loopdev.Options{})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = loop.Detach(context.Background()) }) // where the test did not
			rw := Mount{Device: loop.Path, Point: filepath.Join(dir, "with blank"), Type: fsType, RW: true}
			do(t, rw)
			if err := os.WriteFile(filepath.Join(rw.Point, "file"), []byte("data"), 0o600); err != nil {
				t.Fatal(err)
			}
			m, inside, err := Of(filepath.Join(rw.Point, "file"))
			if err != nil || m.Point != rw.Point || m.Type != fsType || !strings.HasSuffix(inside, "/file") {
				t.Errorf("Of = %+v, %q, %v", m, inside, err)
			}
			d, err := blkdev.Stat(loop.Path)
			if err != nil {
				t.Fatal(err)
			}
			if err := d.Idle(); err == nil {
				t.Error("a mounted device is idle")
			}
			command(t, "sync", "-f", rw.Point)
			crashed := filepath.Join(dir, "crashed.img")
			command(t, "cp", "--sparse=always", image, crashed)
			undo(t, rw)
			if err := d.Idle(); err != nil {
				t.Errorf("an unmounted device: %v", err)
			}
			if err := loop.Detach(t.Context()); err != nil {
				t.Fatal(err)
			}

			before := command(t, "sha256sum", crashed)
			source, err := loopdev.Attach(t.Context(), crashed, loopdev.Options{ReadOnly: true})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = source.Detach(context.Background()) })
			ro := Mount{Device: source.Path, Point: filepath.Join(dir, "source"), Type: fsType, Data: ReadOnly(fsType)}
			do(t, ro)
			if err := os.WriteFile(filepath.Join(ro.Point, "x"), nil, 0o600); err == nil {
				t.Error("the source was written to")
			}
			undo(t, ro)
			undo(t, ro) // somebody else was faster
			if _, err := os.Stat(ro.Point); !os.IsNotExist(err) {
				t.Errorf("the mount point is still there: %v", err)
			}
			if err := source.Detach(t.Context()); err != nil {
				t.Fatal(err)
			}
			if after := command(t, "sha256sum", crashed); after != before {
				t.Error("mounting the source changed it")
			}
		})
	}
}

func do(t *testing.T, m Mount) {
	t.Helper()
	if err := m.Do(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Undo() })
}

func undo(t *testing.T, m Mount) {
	t.Helper()
	if err := m.Undo(); err != nil {
		t.Fatal(err)
	}
}

func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v: %s", name, args, err, out)
	}
	return string(out)
}
