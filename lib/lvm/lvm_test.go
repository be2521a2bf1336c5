package lvm

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"xenlvm/lib/fault"
	"xenlvm/lib/units"
)

func TestSplitSpec(t *testing.T) {
	for _, in := range []string{"vg0/vm3-xvda", "/dev/vg0/vm3-xvda"} {
		if vg, name, err := SplitSpec(in); err != nil || vg != "vg0" || name != "vm3-xvda" {
			t.Errorf("SplitSpec(%q) = %q, %q, %v", in, vg, name, err)
		}
	}
	for _, in := range []string{"", "vg0", "vg0/", "/lv", "vg0/-x", "-x/lv", "vg0/a/b", "vg0/a b", "vg0/a\n", "vg0/..", "vg0/a'", "vg0/ä", "vg0/" + strings.Repeat("x", 128)} {
		if vg, name, err := SplitSpec(in); err == nil {
			t.Errorf("SplitSpec(%q) = %q, %q; want an error", in, vg, name)
		}
	}
}

func TestNames(t *testing.T) {
	for in, want := range map[string]string{
		"snapshot": "lv-snapshot-xvda", "pvmove1": "lv-pvmove1-xvda", "web_cdata": "lv-web-cdata-xvda", "vm3": "vm3-xvda", "vm 3": "vm_3-xvda", "-vm": "vm-xvda", "größe": "gr__e-xvda", "a.b+c": "a.b+c-xvda"} {
		got := NameFor(in, "xvda")
		if got != want {
			t.Errorf("NameFor(%q) = %q; want %q", in, got, want)
		}
		if err := CheckName(got); err != nil {
			t.Errorf("NameFor(%q): %v", in, err)
		}
	}
	if got, want := TagDomain("vm 3/ä"), "xenlvm.domain.vm=203=2F=C3=A4"; got != want {
		t.Errorf("TagDomain = %q; want %q", got, want)
	}
	v := LV{Tags: []string{TagIncomplete, TagDomain("vm 3/ä"), "xenlvm.domain", TagDomain("a+b_c.-d"), "xenlvm.domain.=ZZ"}}
	if got, want := v.Domains(), []string{"vm 3/ä", "a+b_c.-d"}; !slices.Equal(got, want) {
		t.Errorf("Domains = %q; want %q", got, want)
	}
}

// Long names stay names, and apart from each other.
func TestLongNames(t *testing.T) {
	at := strings.Repeat("x", longest-len("-xvda"))
	if got := NameFor(at, "xvda"); got != at+"-xvda" {
		t.Errorf("NameFor of %d bytes = %q", len(at), got)
	}
	seen := map[string]bool{}
	for _, domain := range []string{at + "x", at + "y", strings.Repeat("x", 4000), strings.Repeat("_cdata", 100)} {
		for _, vdev := range []string{"xvda", "xvdb"} {
			name := NameFor(domain, vdev)
			if len(name) != longest || seen[name] || CheckName(name) != nil || name != NameFor(domain, vdev) {
				t.Errorf("NameFor(%.20q…, %s) = %q", domain, vdev, name)
			}
			seen[name] = true
		}
	}
	for _, c := range []struct {
		vg, name string
		fits     bool
	}{
		{"vg0", strings.Repeat("x", 118), true}, {"vg0", strings.Repeat("x", 119), false},
		{"v-0", strings.Repeat("x", 117), true}, {"v-0", strings.Repeat("x", 118), false},
		{"vg0", strings.Repeat("-", 59), true}, {"vg0", strings.Repeat("-", 60), false},
	} {
		if err := CheckLength(c.vg, c.name); (err == nil) != c.fits || err != nil && fault.StatusOf(err) != fault.Refused {
			t.Errorf("%s/%s: %v", c.vg, c.name, err)
		}
	}
}

func TestParseStatus(t *testing.T) {
	for in, want := range map[string]Usage{
		"0 2097152 snapshot 16/204800 16\n":         {8192, 204800 * 512},
		"0 2097152 snapshot 204800/204800 800":      {204800 * 512, 204800 * 512},
		"0 2097152 thin 524288 1048575":             {},
		"0 8192 snapshot 0/8192 0":                  {0, 8192 * 512},
		"0 2097152 thin - -":                        {},
		"0 2097152 snapshot 9007199254740/99999999": {9007199254740 * 512, 99999999 * 512},
	} {
		if got, err := parseStatus(in); err != nil || got != want {
			t.Errorf("parseStatus(%q) = %+v, %v; want %+v", in, got, err, want)
		}
	}
	for _, in := range []string{"0 2097152 snapshot Invalid", "0 2097152 snapshot Overflow", "0 2097152 snapshot Merge failed", "0 2097152 thin Fail", "0 2097152 thin Error"} {
		if _, err := parseStatus(in); !errors.Is(err, ErrLost) {
			t.Errorf("parseStatus(%q) = %v; want ErrLost", in, err)
		}
	}
	if _, err := parseStatus("0 1 linear 252:3 0"); !errors.Is(err, ErrNoSnapshot) {
		t.Errorf("a linear device: %v", err)
	}
	for _, in := range []string{"", "0 1 linear", "0 1 snapshot", "0 1 snapshot a/b 1", "0 1 snapshot -1/8 1", "0 1 snapshot 1/0 1"} {
		if u, err := parseStatus(in); err == nil || errors.Is(err, ErrLost) {
			t.Errorf("parseStatus(%q) = %+v, %v; want an error that is not ErrLost", in, u, err)
		}
	}
}

func FuzzParseStatus(f *testing.F) {
	f.Add("0 2097152 snapshot 16/204800 16")
	f.Add("0 1 thin 1 -")
	f.Fuzz(func(t *testing.T, line string) {
		if u, err := parseStatus(line); err == nil && (u.Used < 0 || u.Size < 0) {
			t.Errorf("parseStatus(%q) = %+v", line, u)
		}
	})
}

// TestReport reads what lvs of lvm2 2.03.16 printed on a host with a linear
// volume, a thick snapshot of it, one that overflowed, and a thin pool.
func TestReport(t *testing.T) {
	out, err := os.ReadFile("testdata/lvs-2.03.16.json")
	if err != nil {
		t.Fatal(err)
	}
	rows, err := parseReport("lvs", "lv", out)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range rows {
		v := r.lv()
		line := v.Spec() + " " + v.Size.String()
		if v.COW > 0 {
			line += " cow=" + v.COW.String()
		}
		if v.Origin != "" {
			line += " origin=" + v.Origin
		}
		if v.Pool != "" {
			line += " pool=" + v.Pool
		}
		for _, flag := range []struct {
			on   bool
			name string
		}{{v.Active, "active"}, {v.Open, "open"}, {v.Invalid, "INVALID"}, {v.Thin(), "thin"}, {v.Tagged(TagSnapshot), "ours"}} {
			if flag.on {
				line += " " + flag.name
			}
		}
		got = append(got, line)
	}
	want, err := os.ReadFile("testdata/lvs-2.03.16.want")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(strings.Split(strings.TrimSpace(string(want)), "\n"), got); d != "" {
		t.Error(d)
	}
}

// What is no report is not one without volumes: something may be there.
func TestNoReport(t *testing.T) {
	for _, out := range []string{"", "{}", `{"report":[]}`, "Consider pruning vg0.\n" + `{"report":[{"lv":[]}]}`, `{"report":[{"lv":[{"lv_size":1}]}]}`} {
		if lvs, err := LVs(t.Context(), answer(out), ""); err == nil || !strings.HasPrefix(err.Error(), "cannot read the report of lvs: ") {
			t.Errorf("%q: %v, %v", out, lvs, err)
		}
	}
	if lvs, err := LVs(t.Context(), answer(`{"report":[{"lv":[]}],"log":[]}`), ""); err != nil || len(lvs) != 0 {
		t.Errorf("no volumes: %v, %v", lvs, err)
	}
}

func TestCommands(t *testing.T) {
	thick, thin := LV{VG: "vg0", Name: "images", Type: "linear"}, LV{VG: "vg0", Name: "timages", Type: "thin", Pool: "pool"}
	for want, got := range map[string]string{
		"lvcreate --yes --snapshot --permission r --name s --size 67108864b --addtag xenlvm.snapshot vg0/images":        Snapshot(thick, "s", false, 64<<20, TagSnapshot).Line(),
		"lvcreate --yes --snapshot --permission rw --name s --setactivationskip n --addtag xenlvm.snapshot vg0/timages": Snapshot(thin, "s", true, 64<<20, TagSnapshot).Line(),
		"lvcreate --yes --wipesignatures y --name a --size 1048576b --addtag t vg0":                                     Create("vg0", "a", 1<<20, "t").Line(),
		"lvextend --size +1048576b vg0/s": Extend("vg0/s", units.Bytes(1<<20)).Line(),
	} {
		if got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

// A guest may name its volume group as the host does.
func TestFindVGOfTwo(t *testing.T) {
	row := `{"vg_name":"vg0", "vg_size":"8", "vg_free":"4", "vg_extent_size":"4"}`
	report := func(rows string) answer { return answer(`{"report":[{"vg":[` + rows + `]}]}`) }
	if g, found, err := FindVG(t.Context(), report(row), "vg0"); err != nil || !found || g != (VG{Name: "vg0", Size: 8, Free: 4, Extent: 4}) {
		t.Errorf("one: %+v, %v, %v", g, found, err)
	}
	if _, _, err := FindVG(t.Context(), report(row+","+row), "vg0"); fault.StatusOf(err) != fault.Refused {
		t.Errorf("two: %v; want a refusal", err)
	}
}
