package blkdev

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

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
