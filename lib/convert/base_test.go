package convert

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"xenlvm/lib/journal"
	"xenlvm/lib/lvm"
	"xenlvm/lib/run"
	"xenlvm/lib/step"
	"xenlvm/lib/units"
)

// teller is a Reporter that remembers what it was told.
type teller struct {
	quiet
	told *[]string
}

func (t teller) Infof(format string, args ...any) {
	*t.told = append(*t.told, fmt.Sprintf(format, args...))
}

// snapshots answers lvs with snapshots of vm3 by these names, whose UUIDs are "uuid-NAME".
type snapshots []string

func (s snapshots) Run(context.Context, run.Cmd) (run.Result, error) {
	var rows []string
	for _, name := range s {
		rows = append(rows, fmt.Sprintf(`{"vg_name":"vg0","lv_name":%q,"lv_uuid":"uuid-%[1]s","origin":"images","lv_tags":"xenlvm.snapshot,xenlvm.domain.vm3"}`, name))
	}
	rows = append(rows, `{"vg_name":"vg0","lv_name":"other","origin":"images","lv_tags":"xenlvm.snapshot,xenlvm.domain.vm4"}`, `{"vg_name":"vg0","lv_name":"images"}`)
	return run.Result{Stdout: []byte(`{"report":[{"lv":[` + strings.Join(rows, ",") + `]}]}`)}, nil
}

func copied(vdev, base string) journal.Copied {
	return journal.Copied{Destination: journal.Destination{VDev: vdev, Source: "/i"}, Base: base}
}

// A base is live as long as the last copy of a disk names it.
func TestReclaimLeavesTheBase(t *testing.T) {
	for _, tt := range []struct {
		name    string
		records []any
		want    string
	}{
		{"nothing was copied", nil, "lvremove --yes vg0/killed; lvremove --yes vg0/base"},
		{"the last copy names it", []any{journal.KindCopied, copied("xvda", "uuid-base")}, "lvremove --yes vg0/killed"},
		{"that of another disk does", []any{journal.KindCopied, copied("xvda", "uuid-base"), journal.KindCopied, copied("xvdb", "")}, "lvremove --yes vg0/killed"},
		{"an older copy named it", []any{journal.KindCopied, copied("xvda", "uuid-base"), journal.KindCopied, copied("xvda", "")}, "lvremove --yes vg0/killed; lvremove --yes vg0/base"},
		{"the domain was switched since", []any{journal.KindCopied, copied("xvda", "uuid-base"), journal.KindApplied, struct{}{}}, "lvremove --yes vg0/killed; lvremove --yes vg0/base"},
	} {
		plan, err := Reclaim(t.Context(), snapshots{"killed", "base"}, "vm3", records(t, tt.records...))
		if err != nil {
			t.Fatal(err)
		}
		var lines []string
		for _, s := range plan {
			lines = append(lines, s.Line)
		}
		if got := strings.Join(lines, "; "); got != tt.want {
			t.Errorf("%s: %s; want %s", tt.name, got, tt.want)
		}
	}
}

var origin = lvm.LV{VG: "vg0", Name: "images", UUID: "o"}

// based is a disk whose last copy kept the base "b".
func based() *Disk {
	last := copied("xvda", "b")
	return &Disk{VDev: "xvda", Method: Blocks, Format: "raw", Origin: origin, last: &last, trusted: true}
}

func TestWhoCanUseABase(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*Disk, *lvm.LV)
		used   bool
		says   string
	}{
		{"as it was kept", func(*Disk, *lvm.LV) {}, true, ""},
		{"overflowed", func(_ *Disk, b *lvm.LV) { b.Invalid = true }, false, "the snapshot overflowed and is lost"},
		{"the destination is not trusted", func(d *Disk, _ *lvm.LV) { d.trusted = false }, false, "somebody may have written to"},
		{"the image has grown", func(d *Disk, _ *lvm.LV) { d.Info.Size = 1 }, false, "the disk had 0 bytes, and has 1"},
		{"another directory leads to the image", func(d *Disk, _ *lvm.LV) { d.Inside = "other/image" }, false, "is at other/image"},
		{"by files now", func(d *Disk, _ *lvm.LV) { d.Method = Files }, false, "in another way"},
		{"of an older copy", func(d *Disk, _ *lvm.LV) { d.last.Base = "older" }, false, "the base of its last copy is gone"},
		{"never copied", func(d *Disk, _ *lvm.LV) { d.last = nil }, false, ""},
		{"of another volume", func(_ *Disk, b *lvm.LV) { b.Origin = "data" }, false, ""},
	} {
		d, b := based(), lvm.LV{VG: "vg0", Name: "images-base-vm3", UUID: "b", Origin: "images"}
		tt.change(d, &b)
		var told []string
		c := &Conversion{Disks: []*Disk{d}, bases: []base{keptSnapshot{b}}, rep: teller{told: &told}}
		sources := c.sources()
		drop, err := c.planBases(sources)
		if err != nil {
			t.Fatal(err)
		}
		if (len(sources[0].based) == 1) != tt.used || (len(drop) == 0) != tt.used {
			t.Errorf("%s: used by %d disks, removed by %d steps", tt.name, len(sources[0].based), len(drop))
		}
		if said := strings.Join(told, "\n"); !strings.Contains(said, tt.says) || tt.says == "" && said != "" {
			t.Errorf("%s: said %q; want %q", tt.name, said, tt.says)
		}
	}
}

// Only what is copied by blocks from a raw image is worth a snapshot that is kept, and
// no snapshot gets the name of another.
func TestWhatIsKept(t *testing.T) {
	qcow2, files := based(), based()
	qcow2.Format, files.Method = "qcow2", Files
	for _, tt := range []struct {
		o    Options
		d    *Disk
		base string
		want string
	}{
		{Options{}, based(), "", "images-snap-vm3"},
		{Options{}, based(), "images-base-vm3", "images-snap-vm3"},
		{Options{KeepBase: true}, based(), "", "images-base-vm3"},
		{Options{KeepBase: true}, based(), "images-base-vm3", "images-base2-vm3"},
		{Options{KeepBase: true}, based(), "images-base2-vm3", "images-base-vm3"},
		{Options{KeepBase: true}, qcow2, "", "images-snap-vm3"},
		{Options{KeepBase: true}, files, "", "images-snap-vm3"},
	} {
		tt.o.Domain = "vm3"
		tt.d.Origin.Active = true
		c := &Conversion{o: tt.o, Disks: []*Disk{tt.d}, r: changes{}}
		s := c.sources()[0]
		s.base = keptSnapshot{lvm.LV{VG: "vg0", Name: tt.base}}
		if _, err := s.plan(t.Context(), c, s); err != nil {
			t.Fatal(err)
		}
		if got := s.kept().name(); got != "vg0/"+tt.want || s.keep != strings.Contains(tt.want, "-base") {
			t.Errorf("%+v beside %q: %s, kept: %v; want %s", tt.o, tt.base, got, s.keep, tt.want)
		}
	}
}

// changes is a Runner on a host with one volume group that remembers the changes.
type changes struct{ made *[]string }

func (c changes) Run(_ context.Context, cmd run.Cmd) (run.Result, error) {
	if cmd.Effect == run.Change {
		*c.made = append(*c.made, cmd.Name)
	}
	return run.Result{Stdout: []byte(`{"report":[{"vg":[{"vg_name":"vg0","vg_size":"1073741824","vg_free":"1073741824","vg_extent_size":"4194304"}]}]}`)}, nil
}

// failing is a step that fails.
var failing = step.Step{What: "fail", Do: func(context.Context) error { return errors.New("no") }}

// A snapshot that is kept outlives a plan that succeeds, and no plan that fails.
func TestKeptOnlyAfterSuccess(t *testing.T) {
	for _, keep := range []bool{false, true} {
		var made []string
		d := based()
		d.last, d.Origin.Active, d.Origin.Size = nil, true, 1<<30
		c := &Conversion{o: Options{Domain: "vm3", KeepBase: keep, SnapshotSize: units.Share{Percent: 10}}, Disks: []*Disk{d}, r: changes{&made}}
		s := c.sources()[0]
		plan, err := c.planSource(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		create := plan[:1]
		if err := create.Run(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		want := []string{"lvcreate", "lvremove"}
		if keep {
			want = want[:1]
		}
		if !slices.Equal(made, want) {
			t.Errorf("keep %v: a success runs %q; want %q", keep, made, want)
		}
		made = nil
		later := append(planKeep(s), failing)
		if err := later.Run(t.Context(), nil); err == nil {
			t.Fatal("no error")
		}
		if removed := slices.Contains(made, "lvremove"); removed != keep {
			t.Errorf("keep %v: when the copies are not written down, it is removed: %v", keep, removed)
		}
		made = nil
		if err := append(create, failing).Run(t.Context(), nil); err == nil || !slices.Equal(made, []string{"lvcreate", "lvremove"}) {
			t.Errorf("keep %v: a failure runs %q", keep, made)
		}
	}
}

func TestBasesAreGivenUp(t *testing.T) {
	c := &Conversion{bases: []base{keptSnapshot{lvm.LV{VG: "vg0", Name: "b"}}}}
	plan, err := c.GiveUpBases()
	if err != nil || len(plan) != 1 || plan[0].Line != "lvremove --yes vg0/b" {
		t.Errorf("%v, %v", plan, err)
	}
	if plan, err := c.GiveUpBases(); err != nil || len(plan) > 0 {
		t.Errorf("again: %v, %v", plan, err)
	}
}

// Where the base cannot be mounted, the image is read.
func TestCompareWithoutABase(t *testing.T) {
	var told []string
	d := based()
	c := &Conversion{o: Options{Domain: "xenlvm-no-such-domain"}, rep: teller{told: &told}}
	s := &source{frozen: &snapshot{}, base: keptSnapshot{lvm.LV{VG: "vg0", Name: "b", Path: "/dev/xenlvm-no-such-vg/b"}}, based: []*Disk{d}, disks: []*Disk{d}}
	if err := s.comparison(c, s).Do(t.Context()); err != nil || d.changed != nil || !strings.Contains(strings.Join(told, ""), "cannot tell what changed") {
		t.Errorf("%v, %q", err, told)
	}
}
