package lvm

import (
	"os"
	"testing"
)

// FuzzReport holds of whatever lvs and vgs may print: it is refused, or no size is
// negative, and a pool has no more room than it is large.
func FuzzReport(f *testing.F) {
	out, err := os.ReadFile("testdata/lvs-2.03.16.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(out))
	f.Fuzz(func(t *testing.T, out string) {
		lvs, _ := LVs(t.Context(), answer(out), "")
		for _, v := range lvs {
			if v.Size < 0 || v.COW < 0 {
				t.Errorf("%s has %d bytes, its COW space %d", v.Spec(), v.Size, v.COW)
			}
		}
		if g, _, _ := FindVG(t.Context(), answer(out), "vg0"); g.Size < 0 || g.Free < 0 || g.Extent < 0 {
			t.Errorf("%+v", g)
		}
		if p, err := FindPool(t.Context(), answer(out), "vg0", "pool"); err == nil {
			checkPool(t, p)
		}
	})
}

// FuzzParsePool holds the same of a pool's status.
func FuzzParsePool(f *testing.F) {
	f.Add("0 2097152 thin-pool 1 128/1024 10/16384 - rw discard_passdown queue_if_no_space - 1024")
	f.Fuzz(func(t *testing.T, line string) {
		if p, err := ParsePool(line); err == nil {
			checkPool(t, p)
		}
	})
}

func checkPool(t *testing.T, p Pool) {
	t.Helper()
	for _, u := range []Usage{p.Data, p.Metadata} {
		if u.Used < 0 || u.Size <= 0 || u.Used > u.Size {
			t.Errorf("%d of %d bytes in use", u.Used, u.Size)
		}
	}
	if room := p.Room(); room < 0 || room > p.Data.Size-p.Data.Used {
		t.Errorf("room for %d bytes with %+v", room, p)
	}
}
