package mirror

import (
	"strings"
	"testing"

	"xenlvm/lib/fault"
	"xenlvm/lib/md"
	"xenlvm/lib/units"
)

func TestPace(t *testing.T) {
	const kib, gib = units.Bytes(1 << 10), units.Bytes(1 << 30)
	d := Disk{Domain: "vm3", VDev: "xvda"}
	busy := md.Status{Action: "recover", Total: 100 * gib, Speed: 1100 * kib, Least: 1000 * kib, Most: 100 << 30}
	with := func(change func(*md.Status)) md.Status {
		s := busy
		change(&s)
		return s
	}
	for _, tt := range []struct {
		name  string
		phase Phase
		md    md.Status
		says  string // "" for nothing
		hint  string
	}{
		{"giving way", Recovering, busy, "needs 26h28m45s more, at 1.07 MiB a second", "echo 102400 >/sys/block/md127/md/sync_speed_min"},
		{"a check, too", Synced, with(func(s *md.Status) { s.Action = "check" }), "needs 26h", "sync_speed_min"},
		{"below its minimum", Recovering, with(func(s *md.Status) { s.Speed = 200 * kib }), "needs 145h", "have the domain write less"},
		{"with a raised minimum", Recovering, with(func(s *md.Status) { s.Least = minimum }), "needs 26h", "have the domain write less"},
		{"a new minimum is within its bound", Recovering, with(func(s *md.Status) { s.Most = 20 << 20 }), "needs 26h", "echo 20480 >"},
		{"nearly done", Recovering, with(func(s *md.Status) { s.Done = s.Total - gib/2 }), "", ""},
		{"fast", Recovering, with(func(s *md.Status) { s.Speed = 12 << 20 }), "", ""},
		{"as slow as it was told to be", Recovering, with(func(s *md.Status) { s.Most = 1024 * kib; s.Speed = 1000 * kib }), "", ""},
		{"frozen", Recovering, md.Status{Action: "frozen"}, "stands still (frozen)", "echo idle >/sys/block/md127/md/sync_action"},
		{"read-only", Recovering, md.Status{Action: "idle", ReadOnly: true}, "stands still", "mdadm --readwrite /dev/md127"},
		{"stuck", Recovering, with(func(s *md.Status) { s.Speed = 0 }), "stands still (recover)", "dmesg"},
		{"done", Synced, md.Status{Action: "idle"}, "", ""},
	} {
		var p Pace
		said := 0
		for look := range 3 * patience {
			err := p.Look(d, State{Phase: tt.phase, Array: &md.Array{Path: "/dev/md127"}, MD: tt.md})
			if err == nil {
				continue
			}
			said++
			if look != patience-1 || !strings.Contains(err.Error(), tt.says) || len(fault.Hints(err)) != 1 || !strings.Contains(fault.Hints(err)[0], tt.hint) {
				t.Errorf("%s: look %d: %v; %s", tt.name, look, err, fault.Hints(err))
			}
		}
		if want := map[bool]int{true: 1}[tt.says != ""]; said != want {
			t.Errorf("%s: said %d times, want %d", tt.name, said, want)
		}
	}
}

// A pause of the domain now and then is enough.
func TestPaceForgives(t *testing.T) {
	var p Pace
	busy := State{Phase: Recovering, Array: &md.Array{Path: "/dev/md127"}, MD: md.Status{Action: "recover", Total: 1 << 40, Speed: 1 << 20, Least: 1000 << 10, Most: 1 << 30}}
	free := busy
	free.MD.Speed = 100 << 20
	for look := range 10 * patience {
		s := busy
		if look%patience == patience-1 {
			s = free
		}
		if err := p.Look(Disk{}, s); err != nil {
			t.Fatalf("look %d: %v", look, err)
		}
	}
}
