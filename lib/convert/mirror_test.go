package convert

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"xenlvm/lib/fault"
)

// configured is a conversion of vm3 whose configuration has the disks.
func configured(t *testing.T, disks string) *Conversion {
	t.Helper()
	config := filepath.Join(t.TempDir(), "vm3.cfg")
	if err := os.WriteFile(config, []byte("name = 'vm3'\ndisk = ["+disks+"]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return &Conversion{o: Options{Domain: "vm3", Config: config}}
}

// What cannot be worked on is refused before anything is asked of the host.
func TestImagesThatAreRefused(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	image := filepath.Join(dir, "vm3.img")
	err := errors.Join(os.WriteFile(image, make([]byte, 1<<20), 0o600), os.Link(image, filepath.Join(dir, "hard.img")),
		os.Symlink("vm3.img", filepath.Join(dir, "soft.img")), os.Symlink("vm3.img", filepath.Join(dir, "\xff.img")),
		os.WriteFile(filepath.Join(dir, "b\xff.img"), make([]byte, 1<<20), 0o600), os.Symlink("b\xff.img", filepath.Join(dir, "b.img")),
		os.WriteFile(filepath.Join(dir, "other.img"), make([]byte, 1<<20), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ disks, err string }{
		{"'file:D/vm3.img,xvda,w', 'file:D/other.img,xvdb,w'", ""},
		{"'file:D/vm3.img,xvda,w', 'file:D/vm3.img,xvdc,r,cdrom'", ""}, // which nobody writes to
		{"'file:D/vm3.img,xvda,w', 'file:D/vm3.img,xvdb,w'", "cannot convert disks xvda and xvdb of vm3: both are " + image},
		{"'file:D/vm3.img,xvda,w', 'file:D/soft.img,xvdb,w'", "both are " + image},
		{"'file:D/hard.img,xvda,w', 'file:D/other.img,xvdb,w', 'file:D/vm3.img,xvdc,r'", "cannot convert disks xvda and xvdc of vm3"},
		{"'file:vm3.img,xvda,w'", "cannot use the image vm3.img of disk xvda: its path is relative"},
		{"'file:D/\xff.img,xvda,w'", `\xff.img" of disk xvda: its path is not UTF-8`},
		{"'file:D/b.img,xvda,w'", "of disk xvda: its path is not UTF-8"},
	} {
		err := configured(t, strings.ReplaceAll(tt.disks, "D/", dir+"/")).findDisks(t.Context())
		switch {
		case tt.err == "" && err != nil:
			t.Errorf("%s: %v", tt.disks, err)
		case tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err) || fault.StatusOf(err) != fault.Refused || len(fault.Hints(err)) != 1):
			t.Errorf("%s: %v (hints %q); want %q, refused, with a hint", tt.disks, err, fault.Hints(err), tt.err)
		}
	}
}

// What --to says of a disk that is mirrored already is no mistake, and one that
// does not exist stays one.
func TestOnlyWhatIsWanted(t *testing.T) {
	to := []string{"vg0", "xvda=vg1/a", "xvdb=vg1/b", "xvdz=vg1/z"}
	c := &Conversion{o: Options{To: to}, Disks: []*Disk{{VDev: "xvda"}, {VDev: "xvdb"}}}
	c.only(func(vdev string) bool { return vdev == "xvdb" })
	if want := []string{"vg0", "xvdb=vg1/b", "xvdz=vg1/z"}; !slices.Equal(c.o.To, want) || len(c.Disks) != 1 || c.Disks[0].VDev != "xvdb" {
		t.Errorf("disks %v, --to %q; want xvdb, %q", c.Disks, c.o.To, want)
	}
	if to[1] != "xvda=vg1/a" {
		t.Error("the caller's flags were changed")
	}
}
