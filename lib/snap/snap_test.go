package snap

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"xenlvm/lib/fault"
	"xenlvm/lib/lvm"
	"xenlvm/lib/run"
	"xenlvm/lib/units"
)

// host answers lvs with the volumes it has, and vgs with its free space.
type host struct {
	volumes string // JSON rows
	pool    string // the row of its thin pool
	free    units.Bytes
}

func (h host) Run(_ context.Context, c run.Cmd) (run.Result, error) {
	if c.Effect != run.Query {
		return run.Result{}, fmt.Errorf("a plan ran %s", c.Line())
	}
	switch c.Name {
	case "lvs":
		if slices.Contains(c.Args, `vg_name="vg0" && lv_name="pool"`) {
			h.volumes = h.pool
		}
		return run.Result{Stdout: []byte(`{"report":[{"lv":[` + h.volumes + `]}]}`)}, nil
	case "vgs":
		return run.Result{Stdout: fmt.Appendf(nil, `{"report":[{"vg":[{"vg_name":"vg0","vg_size":"1","vg_free":"%d","vg_extent_size":"4194304"}]}]}`, h.free)}, nil
	}
	return run.Result{}, fmt.Errorf("unknown query %s", c.Line())
}

func TestRequest(t *testing.T) {
	origin := lvm.LV{VG: "vg0", Name: "images", UUID: "u", Size: 1 << 30, Active: true, Type: "linear"}
	with := func(change func(*lvm.LV)) lvm.LV {
		v := origin
		change(&v)
		return v
	}
	thin := with(func(v *lvm.LV) { v.Type, v.Pool = "thin", "pool" })
	pool := func(data, metadata string) string {
		return fmt.Sprintf(`{"lv_size":"1073741824","data_percent":%q,"lv_metadata_size":"4194304","metadata_percent":%q}`, data, metadata)
	}
	row := func(origin, tags string) string {
		return fmt.Sprintf(`{"vg_name":"vg0","lv_name":"s","origin":%q,"lv_tags":%q,"segtype":"linear"}`, origin, tags)
	}
	for _, tt := range []struct {
		name string
		host host
		q    Request
		want string // the line of the plan; "" for nothing to do
		err  string
	}{
		{"thick, a share in whole extents", host{free: 1 << 40}, Request{Origin: origin, Name: "s", COW: units.Share{Percent: 10}},
			"lvcreate --yes --snapshot --permission r --name s --size 109051904b --addtag xenlvm.snapshot vg0/images", ""},
		{"writable", host{free: 1 << 40}, Request{Origin: origin, Name: "s", COW: units.Share{Percent: 10}, Writable: true},
			"lvcreate --yes --snapshot --permission rw --name s --size 109051904b --addtag xenlvm.snapshot vg0/images", ""},
		{"thick, no more than the whole", host{free: 1 << 40}, Request{Origin: origin, Name: "s", COW: units.Share{Size: 1 << 40}},
			"lvcreate --yes --snapshot --permission r --name s --size 1090519040b --addtag xenlvm.snapshot vg0/images", ""},
		{"thick, as much as is free", host{free: 64 << 20}, Request{Origin: origin, Name: "s", COW: units.Share{Size: 64 << 20}},
			"lvcreate --yes --snapshot --permission r --name s --size 67108864b --addtag xenlvm.snapshot vg0/images", ""},
		{"thick, a byte more than is free", host{free: 64 << 20}, Request{Origin: origin, Name: "s", COW: units.Share{Size: 64<<20 + 1}},
			"", "cannot snapshot vg0/images with 68.0 MiB of COW space: volume group vg0 has only 64.0 MiB free"},
		{"thin needs none", host{pool: pool("85.00", "74.00")}, Request{Origin: thin, Name: "s", COW: units.Share{Percent: 9.99}},
			"lvcreate --yes --snapshot --permission r --name s --setactivationskip n --addtag xenlvm.snapshot vg0/images", ""},
		{"thin, a pool without room", host{pool: pool("85.00", "74.00")}, Request{Origin: thin, Name: "s", COW: units.Share{Percent: 10.01}},
			"", "to thin pool vg0/pool: it has room for 102 MiB (data 85.0 %, metadata 74.0 % in use)"},
		{"thin, no more than the whole", host{pool: pool("85.00", "74.00")}, Request{Origin: thin, Name: "s", COW: units.Share{Size: 1 << 40}},
			"", "cannot write up to 1.00 GiB to thin pool vg0/pool"},
		{"thin, a pool that is nearly full", host{pool: pool("95.00", "10.00")}, Request{Origin: thin, Name: "s", COW: units.Share{Size: 1}},
			"", "it has room for 0 B"},
		{"thin, a pool of low metadata", host{pool: pool("10.00", "75.01")}, Request{Origin: thin, Name: "s", COW: units.Share{Size: 1}},
			"", "it has room for 0 B (data 10.0 %, metadata 75.0 % in use)"},
		{"ours exists", host{volumes: row("images", "xenlvm.snapshot")}, Request{Origin: origin, Name: "s", Reuse: true}, "", ""},
		{"an older one of ours", host{volumes: row("images", "xenlvm.snapshot")}, Request{Origin: origin, Name: "s"}, "", "cannot create snapshot vg0/s: it exists"},
		{"one to be replaced", host{free: 1 << 40, volumes: row("images", "xenlvm.snapshot,t")}, Request{Origin: origin, Name: "s", Replace: true, Tags: []string{"t"}, COW: units.Share{Size: 1}},
			"lvremove --yes vg0/s\nlvcreate --yes --snapshot --permission r --name s --size 4194304b --addtag xenlvm.snapshot --addtag t vg0/images", ""},
		{"of another kind, not to be replaced", host{volumes: row("images", "xenlvm.snapshot")}, Request{Origin: origin, Name: "s", Replace: true, Tags: []string{"t"}}, "", "cannot create snapshot vg0/s: it exists"},
		{"a snapshot of another", host{volumes: row("other", "xenlvm.snapshot")}, Request{Origin: origin, Name: "s"}, "", "a volume of that name exists"},
		{"somebody else's", host{volumes: row("images", "")}, Request{Origin: origin, Name: "s"}, "", "a volume of that name exists"},
		{"inactive", host{}, Request{Origin: with(func(v *lvm.LV) { v.Active = false }), Name: "s"}, "", "it is not active"},
		{"a snapshot", host{}, Request{Origin: with(func(v *lvm.LV) { v.Origin = "o" }), Name: "s"}, "", "it is itself a snapshot"},
		{"a pool", host{}, Request{Origin: with(func(v *lvm.LV) { v.Type = "thin-pool" }), Name: "s"}, "", "it is a thin pool"},
		{"a name for an option", host{}, Request{Origin: origin, Name: "-f"}, "", "cannot name a volume"},
		{"too long a name", host{}, Request{Origin: origin, Name: strings.Repeat("x", 119)}, "", "device-mapper would call it by 128 bytes"},
	} {
		plan, v, err := tt.q.Plan(t.Context(), tt.host)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) || fault.StatusOf(err) == fault.Failed {
				t.Errorf("%s: %v; want %q", tt.name, err, tt.err)
			}
			if room := strings.HasPrefix(tt.name, "thin, ") || strings.HasPrefix(tt.name, "thick, "); errors.Is(err, lvm.ErrNoRoom) != room {
				t.Errorf("%s: %v: for want of room: %v", tt.name, err, !room)
			}
			continue
		}
		var lines strings.Builder
		if err == nil {
			err = plan.Print(&lines)
		}
		if got := strings.TrimSpace(lines.String()); err != nil || got != tt.want || v.Spec() != "vg0/s" {
			t.Errorf("%s: %s: %q, %v; want %q", tt.name, v.Spec(), got, err, tt.want)
		}
	}
}

func TestClearanceOfTheInactive(t *testing.T) {
	plan, err := Removal(host{}, lvm.LV{VG: "vg0", Name: "s"})
	if err != nil || len(plan) != 1 || plan[0].Line != "lvremove --yes vg0/s" {
		t.Errorf("Removal = %v, %v; an inactive volume has nothing on it", plan, err)
	}
}

// What is left of a pool belongs to the guests.
func TestCheckFill(t *testing.T) {
	for _, tt := range []struct {
		pool lvm.Pool
		err  error
		want string // "" for a pool with room
		hint string
	}{
		{pool: lvm.Pool{Data: lvm.Usage{Used: 94, Size: 100}, Metadata: lvm.Usage{Size: 8}}},
		{pool: lvm.Pool{Data: lvm.Usage{Used: 95 << 20, Size: 100 << 20}, Metadata: lvm.Usage{Size: 8}}, want: "data 95.0 %, metadata 0.0 %", hint: "lvextend --size +11534336b vg0/pool"},
		{pool: lvm.Pool{Data: lvm.Usage{Size: 100}, Metadata: lvm.Usage{Used: 7, Size: 8}}, want: "data 0.0 %, metadata 87.5 %", hint: "lvextend --poolmetadatasize +8b vg0/pool"},
		{pool: lvm.Pool{Data: lvm.Usage{Size: 100}, Metadata: lvm.Usage{Size: 8}}, err: fmt.Errorf("%w: it is read-only", lvm.ErrPoolFull), want: "it is read-only", hint: "lvextend"},
	} {
		err := checkFill("vg0/pool", tt.pool, tt.err)
		if tt.want == "" {
			if err != nil {
				t.Errorf("%+v: %v", tt.pool, err)
			}
			continue
		}
		if !errors.Is(err, lvm.ErrPoolFull) || !strings.Contains(err.Error(), tt.want) || !slices.ContainsFunc(fault.Hints(err), func(h string) bool { return strings.HasPrefix(h, tt.hint) }) {
			t.Errorf("%+v, %v: %v, hints %q; want %q, %q", tt.pool, tt.err, err, fault.Hints(err), tt.want, tt.hint)
		}
	}
}
