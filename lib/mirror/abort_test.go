package mirror

import (
	"errors"
	"slices"
	"testing"

	"xenlvm/lib/fault"
	"xenlvm/lib/xlcfg"
)

func TestNamesLost(t *testing.T) {
	k := Known{Disk: Disk{Domain: "my vm", VDev: "xvda", Source: "/srv/a b.img", Destination: "/dev/vg0/a"}}
	for _, tt := range []struct {
		name        string
		used, alone bool
		want        string
	}{
		{"the domain runs on the mirror", true, true, "its configuration names /dev/vg0/a already: domuswitch revert --yes 'my vm' && mdmirror abort 'my vm'"},
		{"it may have run past it", false, true, "its configuration names /dev/vg0/a already: domuswitch revert 'my vm' && mdmirror abort 'my vm'"},
		{"another disk was switched", true, false, "other disks may be on their volumes for good, so give back this one only: " +
			"name /srv/a b.img as xvda in the configuration of my vm, then: mdmirror abort '/srv/a b.img'"},
	} {
		if got := fault.Hints(namesLost(errors.New("it failed"), k, tt.used, tt.alone)); !slices.Equal(got, []string{tt.want}) {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

// A guest that reboots after one of its mirrors was aborted comes back on the others.
func TestOnMirrors(t *testing.T) {
	const before = "name = 'vm3'\ndisk = [ 'file:/srv/a.img,xvda,w', 'file:/srv/b.img,xvdb,w', 'file:/srv/c.img,xvdc,r' ]\n"
	config, err := xlcfg.Parse("vm3.cfg", []byte(before))
	if err != nil {
		t.Fatal(err)
	}
	stay := []Known{{Disk: Disk{Domain: "vm3", VDev: "xvdb"}}, {Disk: Disk{Domain: "vm3", VDev: "xvdc"}}}
	after, err := onMirrors(config, stay)
	if err != nil {
		t.Fatal(err)
	}
	want := "name = 'vm3'\ndisk = [ 'file:/srv/a.img,xvda,w', 'phy:/dev/mapper/xenlvm-vm3-xvdb,xvdb,w', 'phy:/dev/mapper/xenlvm-vm3-xvdc,xvdc,r' ]\n"
	if got := string(after.Bytes()); got != want {
		t.Errorf("got %s want %s", got, want)
	}
	if _, err := onMirrors(config, []Known{{Disk: Disk{Domain: "vm3", VDev: "xvdz"}}}); fault.StatusOf(err) != fault.Refused {
		t.Errorf("a disk that the configuration has not: %v; want a refusal", err)
	}
}
