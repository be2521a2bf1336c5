package mirror

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"xenlvm/lib/fault"
	"xenlvm/lib/loopdev"
	"xenlvm/lib/md"
)

// The loop device of a mirror stays its own when a file is renamed over its image, and
// nobody takes that file for the image.
func TestRootReplacedImage(t *testing.T) {
	if os.Geteuid() != 0 || os.Getenv("XENLVM_ROOT_TESTS") != "1" {
		t.Skip("attaches loop devices: needs root and XENLVM_ROOT_TESTS=1")
	}
	dir := t.TempDir()
	d := Disk{Domain: "test " + dir, VDev: "xvda", Source: filepath.Join(dir, "vm3.img"), Destination: "/dev/vg0/vm3"}
	write := func(path string) {
		t.Helper()
		if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	rename := func(from, to string) {
		t.Helper()
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	write(d.Source)
	attached, err := loopdev.Attach(t.Context(), d.Source, loopdev.Options{Label: d.uuid(top)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := attached.DetachLater(); err != nil {
			t.Error(err)
		}
	})
	look := func() State {
		t.Helper()
		loop, err := d.loop()
		if err != nil || loop == nil || loop.Path != attached.Path {
			t.Fatalf("the loop device is %v, %v; want %s", loop, err, attached.Path)
		}
		// One of our devices of which the kernel cannot say that nobody wrote to it.
		return State{Loop: loop, Top: device("x", 1<<19, "")}
	}
	if err := d.Original(look()); err != nil {
		t.Errorf("the image itself: %v", err)
	}
	kept := filepath.Join(dir, "kept.img")
	rename(d.Source, kept)
	refused := func(what, hint string, s State) {
		t.Helper()
		err := d.Original(s)
		if fault.StatusOf(err) != fault.Refused || !slices.ContainsFunc(fault.Hints(err), func(h string) bool { return strings.Contains(h, hint) }) {
			t.Errorf("%s: %v, hints %q; want a refusal with %q", what, err, fault.Hints(err), hint)
		}
	}
	refused("moved away", "mv --no-clobber "+kept+" "+d.Source, look())
	write(d.Source)
	refused("replaced", "mv --no-clobber "+kept+" "+d.Source, look())
	unused := look()
	unused.Top.Name = ""
	refused("replaced before it was used", "mdmirror abort", unused)
	rename(kept, d.Source)
	if err := d.Original(look()); err != nil {
		t.Errorf("moved back: %v", err)
	}
	write(kept)
	rename(kept, d.Source)
	refused("deleted", "if="+attached.Path, look())
}

// A volume that is mirrored is known by its number.
func TestReplacedVolume(t *testing.T) {
	d := Disk{Domain: "vm3", VDev: "xvda", Source: "/dev/null"}
	s := State{Source: device("x-source", 2, "0 8 linear 253:3 0"), Array: &md.Array{}}
	if err := d.Original(s); fault.StatusOf(err) != fault.Refused {
		t.Errorf("%v; want a refusal", err)
	}
	if err := d.Original(State{}); err != nil {
		t.Errorf("nothing was built: %v", err)
	}
}
