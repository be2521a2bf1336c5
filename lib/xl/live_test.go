package xl

import (
	"slices"
	"testing"
)

func TestHost(t *testing.T) {
	const out = "host                   : lab\nxen_major              : 4\nxen_minor              : 17\nvirt_caps              : pv hvm hap shadow\nfree_memory            : 461\n"
	got, err := Host(t.Context(), answers{"xl info": out})
	if err != nil || got.Version != "4.17" || got.Free != 461<<20 || !slices.Equal(got.Caps, []string{"pv", "hvm", "hap", "shadow"}) {
		t.Errorf("Host = %+v, %v", got, err)
	}
	for _, out := range []string{"", "free_memory : lots\n", "!xl: cannot open"} {
		if got, err := Host(t.Context(), answers{"xl info": out}); err == nil {
			t.Errorf("%q gave %+v", out, got)
		}
	}
}

func TestLogDirty(t *testing.T) {
	for _, tt := range []struct {
		caps    string
		pv, hvm bool
	}{
		{"shadow", true, true}, {"hap", false, true}, {"pv", false, false},
	} {
		i := Info{Caps: []string{tt.caps}}
		if i.LogDirty("pv") != tt.pv || i.LogDirty("hvm") != tt.hvm || i.LogDirty("pvh") != tt.hvm {
			t.Errorf("%s: pv %v, hvm %v", tt.caps, i.LogDirty("pv"), i.LogDirty("hvm"))
		}
	}
}

func TestDryParse(t *testing.T) {
	const line = "xl -N create -q /tmp/c"
	got, err := DryParse(t.Context(), answers{line: "Parsing config from /tmp/c\n{\n\"c_info\": {\"type\": \"pv\"}, \"disks\": [{\"pdev_path\": \"/dev/a\", \"vdev\": \"xvda\", \"format\": \"raw\", \"readwrite\": 1}]}\n"}, "/tmp/c")
	if err != nil || got.Create.Type != "pv" || !slices.Equal(got.Disks, []ParsedDisk{{"/dev/a", "xvda", "raw"}}) {
		t.Errorf("DryParse = %v, %v", got, err)
	}
	for _, out := range []string{"", "nothing", "!config parsing error in disk specification"} {
		if got, err := DryParse(t.Context(), answers{line: out}, "/tmp/c"); err == nil {
			t.Errorf("%q gave %v", out, got)
		}
	}
}

func TestStored(t *testing.T) {
	const line = "xl list -l 4"
	stored := func(config string) (Libxl, error) {
		return Stored(t.Context(), answers{line: config}, Domain{ID: 4, Name: "vm3"})
	}
	got, err := stored(`[{"domid": 4, "config": {"c_info": {"type": "hvm"}, "b_info": {"max_vcpus": 2}, "nics": [{"mac": "00:16:3e:00:00:01"}], "pcidevs": [{"func": 0}]}}]`)
	if err != nil || got.Create.Type != "hvm" || got.Build.VCPUs != 2 || !slices.Equal(got.MACs(), []string{"00:16:3e:00:00:01"}) || got.Host() != "a PCI device of the host" {
		t.Errorf("Stored = %+v, %v", got, err)
	}
	if got, err := stored(`[{"domid": 4, "config": {"pcidevs": []}}]`); err != nil || got.Host() != "" || got.MACs() != nil {
		t.Errorf("without devices: %+v, %v", got, err)
	}
	for _, out := range []string{"", "[]", `[{"domid": 5, "config": {}}]`, "!4 is an invalid domain identifier"} {
		if got, err := stored(out); err == nil {
			t.Errorf("%q gave %+v", out, got)
		}
	}
}
