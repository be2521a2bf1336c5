package mirror

import (
	"context"
	"encoding/json"
	"slices"
	"testing"

	"xenlvm/lib/fault"
	"xenlvm/lib/lvm"
	"xenlvm/lib/run"
	"xenlvm/lib/step"
)

// volumes answers lvs with one volume, and notes what else is run.
type volumes struct {
	uuid, tags string
	ran        []string
}

func (v *volumes) Run(_ context.Context, c run.Cmd) (run.Result, error) {
	if c.Name != "lvs" {
		v.ran = append(v.ran, c.Name)
		return run.Result{}, nil
	}
	lv := []map[string]string{{"vg_name": "vg0", "lv_name": "a", "lv_uuid": v.uuid, "lv_tags": v.tags}}
	out, err := json.Marshal(map[string]any{"report": []any{map[string]any{"lv": lv}}})
	return run.Result{Stdout: out}, err
}

// A volume that took the name of the one that was mirrored is left alone.
func TestVolumeOfTheSameName(t *testing.T) {
	k := Known{Disk: Disk{Domain: "vm3", VDev: "xvda", Destination: "/dev/vg0/a"}, LVUUID: "ours"}
	for _, tt := range []struct {
		uuid, tags string
		unmarked   bool
		status     fault.Status // of marking it, either way
	}{
		{"ours", "", true, fault.Done},
		{"ours", lvm.TagIncomplete, false, fault.Done},
		{"another", "", false, fault.Refused},
	} {
		r := &volumes{uuid: tt.uuid, tags: tt.tags}
		if got, err := k.Unmarked(t.Context(), r); got != tt.unmarked || err != nil {
			t.Errorf("%s %q: unmarked %v, %v", tt.uuid, tt.tags, got, err)
		}
		for _, s := range []step.Step{Host{Run: r}.Unmark(k), Host{Run: r}.Mark(k)} {
			r.ran = nil
			err := s.Do(t.Context())
			if fault.StatusOf(err) != tt.status || slices.Contains(r.ran, "lvchange") != (tt.status == fault.Done) {
				t.Errorf("%s: %s: %v, ran %q", tt.uuid, s.What, err, r.ran)
			}
		}
	}
}

// The path of a destination, or of a source, may have become another device's.
func TestHoldsRefusesAnotherDevice(t *testing.T) {
	d := Disk{Domain: "vm3", VDev: "xvda"}
	if err := d.holds(device("x-destination", 3, "0 8 linear 253:3 0"), "/dev/null"); fault.StatusOf(err) != fault.Refused {
		t.Error(err)
	}
}
