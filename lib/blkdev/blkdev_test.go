package blkdev

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"xenlvm/lib/fault"
)

func TestRefusesWhatIsNoBlockDevice(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		dir + "/missing": "no such file", file: "not a block device", dir: "not a block device", "/dev/null": "not a block device",
	} {
		if d, err := Stat(path); fault.StatusOf(err) != fault.Refused || !strings.Contains(err.Error(), want) {
			t.Errorf("Stat(%s) = %+v, %v; want %q, refused", path, d, err, want)
		}
		if f, err := OpenExclusive(path, os.O_RDONLY); err == nil {
			f.Close()
			t.Errorf("OpenExclusive(%s) opened it", path)
		}
	}
}

func TestDependsOnItself(t *testing.T) {
	n := Number{7, 0}
	if d := (Device{Number: n}); !d.DependsOn(n) || d.DependsOn(Number{8, 0}) {
		t.Error("a device is built on itself, and not on a stranger")
	}
}

func TestNumber(t *testing.T) {
	if got := parseNumber("252:17\n"); got != (Number{252, 17}) || got.String() != "252:17" {
		t.Errorf("parseNumber = %v", got)
	}
}

// A file has many names, and a block device many nodes.
func TestRootSameFile(t *testing.T) {
	if os.Geteuid() != 0 || os.Getenv("XENLVM_ROOT_TESTS") != "1" {
		t.Skip("makes nodes of devices: needs root and XENLVM_ROOT_TESTS=1")
	}
	t.Chdir(t.TempDir())
	node := func(name string, minor uint32) error {
		return unix.Mknod(name, unix.S_IFBLK|0o600, int(unix.Mkdev(7, minor)))
	}
	err := errors.Join(os.WriteFile("a", nil, 0o600), os.WriteFile("b", nil, 0o600), os.Link("a", "hard"), os.Symlink("a", "soft"),
		node("loop", 1), node("again", 1), node("other", 2))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		a, b string
		want bool
	}{{"a", "a", true}, {"a", "hard", true}, {"soft", "a", true}, {"a", "b", false}, {"none", "none", false}, {"loop", "again", true}, {"loop", "other", false}, {"loop", "a", false}} {
		if got := SameFile(tt.a, tt.b); got != tt.want {
			t.Errorf("SameFile(%s, %s) = %v", tt.a, tt.b, got)
		}
	}
}
