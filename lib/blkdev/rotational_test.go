package blkdev

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// What the kernel says of the disk below a file is what a file on it is said to lie on.
func TestRotational(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	// ROTA of the device, or of the disk of the partition, that df names.
	source, err := exec.Command("findmnt", "-n", "-o", "SOURCE", "-T", f.Name()).Output()
	if err != nil {
		t.Skip("no findmnt")
	}
	device := strings.TrimSpace(string(source))
	rota, err := exec.Command("lsblk", "-n", "-d", "-o", "ROTA", device).Output()
	if err != nil {
		if Rotational(f) {
			t.Errorf("%s is no disk, and turns", device)
		}
		return
	}
	if want := strings.TrimSpace(string(rota)) == "1"; Rotational(f) != want {
		t.Errorf("a file on %s: %v, lsblk says %v", device, !want, want)
	}
	node, err := os.Open(device)
	if err != nil {
		return // not for everybody
	}
	defer node.Close()
	if want := strings.TrimSpace(string(rota)) == "1"; Rotational(node) != want {
		t.Errorf("%s: %v, lsblk says %v", device, !want, want)
	}
}
