package convert

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"xenlvm/lib/fault"
	"xenlvm/lib/journal"
	"xenlvm/lib/lvm"
	"xenlvm/lib/run"
)

// volumes plays LVM with one volume, vg0/a. Meanwhile is what others do to it before
// it is looked at next.
type volumes struct {
	uuid      string // "" when it is gone
	tags      []string
	meanwhile func(*volumes)
	calls     []string
}

func (v *volumes) Run(_ context.Context, c run.Cmd) (run.Result, error) {
	switch c.Name {
	case "lvs":
		if v.meanwhile != nil {
			v.meanwhile(v)
		}
		row := ""
		if v.uuid != "" {
			row = fmt.Sprintf(`{"vg_name":"vg0","lv_name":"a","lv_uuid":%q,"lv_tags":%q}`, v.uuid, strings.Join(v.tags, ","))
		}
		return run.Result{Stdout: []byte(`{"report":[{"lv":[` + row + `]}]}`)}, nil
	case "lvchange":
		v.tags = slices.DeleteFunc(v.tags, func(t string) bool { return t == c.Args[1] })
		if c.Args[0] == "--addtag" {
			v.tags = append(v.tags, c.Args[1])
		}
	}
	v.calls = append(v.calls, c.Line())
	return run.Result{}, nil
}

// Two domains onto one volume: of two runs that begin at the same moment, at most one
// goes on, and a later one is refused by what it finds.
func TestOneVolumeForOneDomain(t *testing.T) {
	lv := lvm.LV{VG: "vg0", Name: "a", UUID: "u"}
	for _, tt := range []struct {
		name      string
		meanwhile func(*volumes)
		err       string
		tags      []string
	}{
		{"nobody else", nil, "", []string{"xenlvm.domain.vm3"}},
		{"another run takes it", func(v *volumes) { v.tags = append(v.tags, "xenlvm.domain.vm4") }, "cannot copy to vg0/a: a run for domain vm4 was given it", []string{"xenlvm.domain.vm4"}},
		{"another volume has its name", func(v *volumes) { v.uuid = "w" }, "cannot find volume vg0/a after tagging it", nil},
	} {
		host := &volumes{uuid: "u", meanwhile: tt.meanwhile}
		c := &Conversion{r: host, o: Options{Domain: "vm3"}}
		err := c.claim(&lv).Do(t.Context())
		if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) || !slices.Equal(host.tags, tt.tags) {
			t.Errorf("%s: %v, tags %q; want %q, tags %q", tt.name, err, host.tags, tt.err, tt.tags)
		}
	}
	lv.Tags = []string{"xenlvm.incomplete", "xenlvm.domain.vm4"}
	for domain, want := range map[string]fault.Status{"vm4": fault.Done, "vm3": fault.Refused} {
		c := &Conversion{o: Options{Domain: domain, Method: QEMU, Overwrite: true}}
		d := &Disk{Dest: Destination{LV: lv}}
		d.Dest.LV.Path = "/dev/vg0/a"
		d.Dest.LV.Active = true
		if err := c.checkExisting(d); fault.StatusOf(err) != want || want == fault.Refused && !slices.Equal(fault.Hints(err), []string{"if vm4 does not need it any more: lvchange --deltag xenlvm.domain.vm4 vg0/a"}) {
			t.Errorf("%s: %v (hints %q); want status %d", domain, err, fault.Hints(err), want)
		}
	}
}

func record(t *testing.T, kind string, data any) journal.Record {
	t.Helper()
	raw, err := json.Marshal(data)
	if err != nil {
		t.Fatal(err)
	}
	return journal.Record{Kind: kind, Data: raw}
}

func inBoot(id string, r journal.Record) journal.Record {
	r.Boot = id
	return r
}

func goesTo(uuid string, created bool) journal.Destination {
	return journal.Destination{VDev: "xvda", Source: "/i", Destination: "/dev/vg0/a", Method: "blocks", LVUUID: uuid, Created: created}
}

// Only a volume that a run of ours made, and onto which no copy was ever finished, may
// be removed.
func TestVolumes(t *testing.T) {
	incomplete := []string{"xenlvm.incomplete", "xenlvm.domain.vm3"}
	for _, tt := range []struct {
		name    string
		records []journal.Record
		tags    []string
		want    string
	}{
		{"made", []journal.Record{record(t, journal.KindDestination, goesTo("", true))}, incomplete, "unfinished"},
		{"made, and gone on with", []journal.Record{record(t, journal.KindDestination, goesTo("", true)), record(t, journal.KindDestination, goesTo("u", true))}, incomplete, "unfinished"},
		{"made by a run, removed, and given", []journal.Record{record(t, journal.KindDestination, goesTo("", true)), record(t, journal.KindDestination, goesTo("u", false))}, incomplete, "given"},
		{"made once, another one now", []journal.Record{record(t, journal.KindDestination, goesTo("w", true))}, incomplete, "given"},
		{"given", []journal.Record{record(t, journal.KindDestination, goesTo("u", false))}, incomplete, "given"},
		{"without a record", nil, incomplete, "given"},
		{"a copy was finished", []journal.Record{record(t, journal.KindDestination, goesTo("", true)), record(t, journal.KindCopied, journal.Copied{Destination: goesTo("u", true)}),
			record(t, journal.KindDestination, goesTo("u", true))}, incomplete, "given"},
		{"a partial copy is none", []journal.Record{record(t, journal.KindDestination, goesTo("", true)), record(t, journal.KindCopied, journal.Copied{Destination: goesTo("u", true), Partial: true})}, incomplete, "unfinished"},
		{"of a mirror that was taken down", []journal.Record{record(t, journal.KindDestination, goesTo("", true)), record(t, journal.KindMember, goesTo("u", false)),
			record(t, journal.KindMirrorEnded, journal.Mirror{VDev: "xvda"})}, incomplete, "unfinished"},
		{"of a mirror of this boot", []journal.Record{record(t, journal.KindDestination, goesTo("", true)), inBoot(journal.BootID(), record(t, journal.KindMember, goesTo("u", false)))}, incomplete, "unfinished"},
		{"of a mirror of another boot", []journal.Record{record(t, journal.KindDestination, goesTo("", true)), inBoot("1", record(t, journal.KindMember, goesTo("u", false)))}, incomplete, "given"},
		{"of a mirror that the host went down with", []journal.Record{record(t, journal.KindDestination, goesTo("", true)), inBoot("1", record(t, journal.KindMember, goesTo("u", false))),
			inBoot("2", record(t, journal.KindMirrorEnded, journal.Mirror{VDev: "xvda"}))}, incomplete, "given"},
		{"complete", []journal.Record{record(t, journal.KindDestination, goesTo("", true))}, incomplete[1:], "finished"},
		{"of another domain", []journal.Record{record(t, journal.KindDestination, goesTo("", true))}, []string{"xenlvm.incomplete", "xenlvm.domain.vm4"}, ""},
		{"a snapshot", nil, append([]string{"xenlvm.snapshot"}, incomplete...), ""},
	} {
		unfinished, given, finished := Volumes([]lvm.LV{{VG: "vg0", Name: "a", UUID: "u", Tags: tt.tags}}, "vm3", tt.records)
		for what, got := range map[string]int{"unfinished": len(unfinished), "given": len(given), "finished": len(finished)} {
			if (got == 1) != (what == tt.want) {
				t.Errorf("%s: %d %s; want it %s", tt.name, got, what, tt.want)
			}
		}
	}
}

func TestDrop(t *testing.T) {
	for _, tt := range []struct {
		name string
		host volumes
		gone bool
	}{
		{"as it was", volumes{uuid: "u", tags: []string{"xenlvm.incomplete", "xenlvm.domain.vm3"}}, true},
		{"finished meanwhile", volumes{uuid: "u", tags: []string{"xenlvm.domain.vm3"}}, false},
		{"another one meanwhile", volumes{uuid: "w", tags: []string{"xenlvm.incomplete", "xenlvm.domain.vm3"}}, false},
		{"gone", volumes{}, false},
	} {
		j, err := journal.Open(t.TempDir(), "vm3", "test")
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"xvda-u.digests", "xvda-u-4096.partial", "xvda-w.digests", "config.1"} {
			if err := j.WriteFile(name, nil); err != nil {
				t.Fatal(err)
			}
		}
		if err := Drop(&tt.host, j, lvm.LV{VG: "vg0", Name: "a", UUID: "u"}).Run(t.Context(), nil); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if gone := slices.Equal(tt.host.calls, []string{"lvremove --yes vg0/a"}); gone != tt.gone || !gone && len(tt.host.calls) > 0 {
			t.Errorf("%s: ran %q", tt.name, tt.host.calls)
		}
		left, err := os.ReadDir(j.Dir)
		if err != nil || len(left) != 2 || left[0].Name() != "config.1" || left[1].Name() != "xvda-w.digests" {
			t.Errorf("%s: left %v, %v", tt.name, left, err)
		}
	}
}

// What is known of a disk is the newest of it; a copy that was given up is told.
func TestRememberAll(t *testing.T) {
	second := goesTo("", true)
	second.VDev, second.Destination = "xvdb", "/dev/vg0/b"
	records := []journal.Record{record(t, journal.KindDestination, goesTo("", true)), record(t, journal.KindCopied, journal.Copied{Destination: goesTo("u", true)}), record(t, journal.KindAborted, nil),
		record(t, journal.KindDestination, second)}
	all := Remember(records)
	if len(all) != 2 || !all[0].Aborted || all[0].Copied == nil || all[0].Destination != "vg0/a" || all[1].Aborted || all[1].VDev != "xvdb" {
		t.Errorf("%+v", all)
	}
	if all = Remember(append(records, record(t, journal.KindDestination, goesTo("u", true)))); len(all) != 2 || all[0].Aborted {
		t.Errorf("begun again: %+v", all)
	}
}
