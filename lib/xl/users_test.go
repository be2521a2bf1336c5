package xl

import (
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestConfiguredFor(t *testing.T) {
	const (
		uses  = "name = 'vm4'\ndisk = [ 'phy:/dev/vg0/other,xvda,w', 'phy:/dev/vg0/a,xvdb,w' ]\n"
		other = "name = 'vm5'\ndisk = [ 'phy:/dev/vg0/b,xvda,w', ',raw,hdc:cdrom,r' ]\n"
		own   = "name = 'vm3'\ndisk = [ 'phy:/dev/vg0/a,xvda,w' ]\n"
	)
	for name, tt := range map[string]struct {
		files map[string]string // see lay
		want  string
	}{
		"with the suffix":   {map[string]string{"a.cfg": other, "vm4.cfg": uses}, "vm4.cfg"},
		"without a suffix":  {map[string]string{"vm4": uses}, "vm4"},
		"another suffix":    {map[string]string{"vm4.pvlinux": uses}, "vm4.pvlinux"},
		"in auto":           {map[string]string{"auto/10-web": uses}, "auto/10-web"},
		"a link in auto":    {map[string]string{"auto/web": "-> ../kept/web", "kept/web": uses}, "auto/web"},
		"hidden":            {map[string]string{".vm4.cfg": uses, "auto/.vm4": uses}, ""},
		"the domain's own":  {map[string]string{"vm3.cfg": own, "auto/vm3": "-> ../vm3.cfg", "vm3.bak": own}, ""},
		"nobody's":          {map[string]string{"vm5": other}, ""},
		"no configurations": {map[string]string{"xl.conf": "lockfile=\"/var/lock/xl\"\n", "rc": "#!/bin/sh\nif [ /dev/vg0/a ]; then exit; fi\n", "x": "FIFO", "y.cfg": "FIFO", "z": "-> nowhere", "scripts/block": uses}, ""},
	} {
		dir := lay(t, tt.files)
		want := ""
		if tt.want != "" {
			want = filepath.Join(dir, tt.want)
		}
		if got := ConfiguredFor(dir, "vm3", func(target string) bool { return target == "/dev/vg0/a" }); got != want {
			t.Errorf("%s: %q; want %q", name, got, want)
		}
	}
	dir := lay(t, map[string]string{"vm3": own})
	if got := ConfiguredFor(dir, "", func(target string) bool { return target == "/dev/vg0/a" }); got != filepath.Join(dir, "vm3") {
		t.Errorf("no domain left out: %q", got)
	}
}

func TestUses(t *testing.T) {
	const header, dom0 = "Name ID Mem VCPUs State Time(s)\n", "Domain-0 0 1500 1 r----- 21.3\n"
	a := answers{
		"xl list": header + dom0 + "vm3 4 256 1 -b---- 1.2\nvm5 5 256 1 -b---- 1.2\n",
		"xenstore-ls -f /local/domain/4/device/vbd":           front,
		"xenstore-ls -f /local/domain/0/backend/vbd/4/51712":  phy,
		"xenstore-ls -f /local/domain/0/backend/qdisk/4/5632": qdisk,
		"xenstore-ls -f /local/domain/5/device/vbd":           "!xenstore-ls: xs_directory (/local/domain/5/device/vbd): No such file or directory\n",
	}
	uses, err := Uses(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, u := range uses {
		got = append(got, u.Domain.Name+" "+u.Disk.VDev)
	}
	if d := cmp.Diff([]string{"vm3 hdc", "vm3 xvda"}, got); d != "" {
		t.Error(d)
	}
	a["xenstore-ls -f /local/domain/5/device/vbd"] = "!xenstore-ls: could not connect to xenstore\n"
	if _, err := Uses(t.Context(), a); err == nil {
		t.Error("a broken xenstore is no domain without disks")
	}
	if _, err := Uses(t.Context(), answers{"xl list": "!broken"}); err == nil {
		t.Error("a broken toolstack is no host without domains")
	}
}
