package mirror

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"xenlvm/lib/blkdev"
	"xenlvm/lib/dm"
	"xenlvm/lib/journal"
	"xenlvm/lib/loopdev"
	"xenlvm/lib/md"
)

// Names may be spelled the same, but nobody takes another one's device for his own.
func TestNames(t *testing.T) {
	a, b := Disk{Domain: "my vm", VDev: "xvda"}, Disk{Domain: "my_vm", VDev: "xvda"}
	if a.Name() != b.Name() || a.Path() != "/dev/mapper/xenlvm-my_vm-xvda" {
		t.Errorf("names %s and %s", a.Name(), b.Path())
	}
	seen := map[string]bool{}
	for _, d := range []Disk{a, b} {
		for _, part := range []string{top, source, destination} {
			if seen[d.uuid(part)] || len(d.uuid(part)) > 63 {
				t.Errorf("UUID %s is not unique, or too long for a loop's label", d.uuid(part))
			}
			seen[d.uuid(part)] = true
		}
	}
}

// device is one of our devices, with the number n.
func device(name string, n uint32, table string) dm.Device {
	return dm.Device{Name: name, Number: blkdev.Number{Major: 252, Minor: n}, Table: table}
}

func TestPhase(t *testing.T) {
	d := Disk{Domain: "vm3", VDev: "xvda", Source: "/none/vm3.img", Destination: "/none/lv"}
	up, from, to := device("x", 1, "0 8 linear 9:127 0"), device("x-source", 2, ""), device("x-destination", 3, "")
	member := func(n, state string) md.Member { return md.Member{Node: "/dev/dm-" + n, State: state} }
	array := &md.Array{Path: "/dev/md127"}
	for _, tt := range []struct {
		name string
		s    State
		want Phase
	}{
		{"nothing", State{}, Absent},
		{"a loop device alone", State{Loop: &loopdev.Device{Path: "/none/loop"}}, Partly},
		{"without the domain's device", State{Source: from, Array: array, MD: md.Status{Members: []md.Member{member("2", "in_sync")}}}, Partly},
		{"without the array", State{Top: up, Source: from}, Partly},
		{"one member", State{Top: up, Source: from, Array: array, MD: md.Status{Members: []md.Member{member("2", "in_sync")}}}, Built},
		{"the second is made, not added", State{Top: up, Source: from, Destination: to, Array: array, MD: md.Status{Members: []md.Member{member("2", "in_sync")}}}, Built},
		{"being filled", State{Top: up, Source: from, Destination: to, Array: array, MD: md.Status{Members: []md.Member{member("2", "in_sync"), member("3", "spare")}}}, Recovering},
		{"equal", State{Top: up, Source: from, Destination: to, Array: array, MD: md.Status{Members: []md.Member{member("2", "in_sync"), member("3", "in_sync,write_mostly")}}}, Synced},
		{"the volume failed", State{Top: up, Source: from, Destination: to, Array: array, MD: md.Status{Members: []md.Member{member("2", "in_sync"), member("3", "faulty")}}}, Degraded},
		{"the image failed", State{Top: up, Source: from, Destination: to, Array: array, MD: md.Status{Members: []md.Member{member("2", "faulty"), member("3", "in_sync")}}}, Degraded},
		{"the image failed before the volume was full", State{Top: up, Source: from, Destination: to, Array: array, MD: md.Status{Members: []md.Member{member("2", "faulty"), member("3", "spare")}}}, Failed},
	} {
		if got := d.phase(tt.s); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

// What a domain writes after abort has put it onto the image again, past an array
// that still stands, is not on the volume.
func TestCompleteAfterReturn(t *testing.T) {
	to := device("x-destination", 3, "")
	s := State{Phase: Synced, Destination: to, MD: md.Status{Members: []md.Member{{Node: to.Node(), State: "in_sync"}}}}
	if !s.Complete() {
		t.Error("a volume in sync is not complete")
	}
	if s.Phase = Returned; s.Complete() {
		t.Error("complete, although the domain writes past it")
	}
}

func TestRemember(t *testing.T) {
	rec := func(boot, kind string, data any) journal.Record {
		raw, err := json.Marshal(data)
		if err != nil {
			t.Fatal(err)
		}
		return journal.Record{Boot: boot, Kind: kind, Data: raw}
	}
	built := journal.Mirror{VDev: "xvda", Source: "/srv/a.img", Size: 1 << 20}
	to := journal.Destination{VDev: "xvda", Source: "/srv/a.img", Destination: "/dev/vg0/a", LVUUID: "u"}
	equal := journal.Synced{Destination: to, DomID: 7}
	disk := Disk{Domain: "vm3", VDev: "xvda", Source: "/srv/a.img", Size: 1 << 20}
	added := disk
	added.Destination = "/dev/vg0/a"
	for _, tt := range []struct {
		name    string
		records []journal.Record
		want    []Known
	}{
		{"nothing", nil, nil},
		{"built", []journal.Record{rec("1", journal.KindMirror, built)}, []Known{{Disk: disk, Boot: "1"}}},
		{"added", []journal.Record{rec("1", journal.KindMirror, built), rec("1", journal.KindMember, to)}, []Known{{Disk: added, LVUUID: "u", Boot: "1"}}},
		{"compared", []journal.Record{rec("1", journal.KindMirror, built), rec("1", journal.KindMember, to), rec("1", journal.KindSynced, equal)},
			[]Known{{Disk: added, LVUUID: "u", Boot: "1", Compared: 7}}},
		{"compared while no domain ran on it, or by an older version", []journal.Record{rec("1", journal.KindMirror, built), rec("1", journal.KindMember, to), rec("1", journal.KindSynced, to)},
			[]Known{{Disk: added, LVUUID: "u", Boot: "1"}}},
		{"completed by a second build", []journal.Record{rec("1", journal.KindMirror, built), rec("1", journal.KindMember, to), rec("1", journal.KindMirror, built)},
			[]Known{{Disk: added, LVUUID: "u", Boot: "1"}}},
		{"added again after it was compared", []journal.Record{rec("1", journal.KindMirror, built), rec("1", journal.KindSynced, equal), rec("1", journal.KindMember, to)},
			[]Known{{Disk: added, LVUUID: "u", Boot: "1"}}},
		{"built again after a boot", []journal.Record{rec("1", journal.KindMirror, built), rec("1", journal.KindSynced, equal), rec("2", journal.KindMirror, built)},
			[]Known{{Disk: disk, Boot: "2"}}},
		{"ended", []journal.Record{rec("1", journal.KindMirror, built), rec("1", journal.KindMirrorEnded, built)}, []Known{{Disk: disk, Boot: "1", Ended: true}}},
		{"built again", []journal.Record{rec("1", journal.KindMirror, built), rec("1", journal.KindSynced, equal), rec("1", journal.KindMirrorEnded, built), rec("1", journal.KindMirror, built)},
			[]Known{{Disk: disk, Boot: "1"}}},
	} {
		if diff := cmp.Diff(tt.want, Remember("vm3", tt.records)); diff != "" {
			t.Errorf("%s: %s", tt.name, diff)
		}
	}
}
