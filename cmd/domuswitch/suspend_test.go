package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"xenlvm/lib/journal"
	"xenlvm/lib/xl"
)

// A memory image that an xl still writes is not for us.
func TestMemoryInUse(t *testing.T) {
	p := suspension{Dir: t.TempDir()}
	if p.saved() || p.busy() {
		t.Error("a file that is not there is saved, or busy")
	}
	f, err := os.Create(filepath.Join(p.Dir, "memory"))
	if err != nil {
		t.Fatal(err)
	}
	if !p.saved() || !p.busy() {
		t.Errorf("open: saved %v, busy %v; want both", p.saved(), p.busy())
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if p.busy() {
		t.Error("it is busy when nobody has it open")
	}
}

func TestSuspension(t *testing.T) {
	const begun, started, undone = journal.KindSuspending, journal.KindStarting, journal.KindStartUndone
	for name, tt := range map[string]struct {
		boot        string
		kinds       []string
		found, over bool
	}{
		"none":                           {"b", []string{started}, false, true},
		"saved":                          {"b", []string{started, begun}, true, false},
		"let run":                        {"b", []string{begun, started}, true, true},
		"destroyed before it wrote":      {"b", []string{begun, started, undone}, true, false},
		"restored on its old disks":      {"b", []string{begun, started, undone, started}, true, true},
		"before the host booted":         {"c", []string{begun}, false, false},
		"in a boot that nobody can name": {"", []string{begun}, false, false},
	} {
		d := &domain{boot: tt.boot}
		for _, k := range tt.kinds {
			d.records = append(d.records, journal.Record{Boot: "b", Kind: k, Data: json.RawMessage(`{"dir": "/x"}`)})
		}
		p, over := d.suspension()
		if (p != nil) != tt.found || over != tt.over {
			t.Errorf("%s: %+v, %v; want %v, %v", name, p, over, tt.found, tt.over)
		}
	}
}

// Only the domain that a run made, and did not let run, is taken up.
func TestMade(t *testing.T) {
	saved := t.TempDir()
	if err := os.WriteFile(filepath.Join(saved, "memory"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		dir   string
		id    int
		state xl.State
		over  bool
		want  bool
	}{
		"migrated":                         {"", 5, xl.Paused, false, true},
		"restored":                         {saved, 5, xl.Paused, false, true},
		"its memory is gone":               {t.TempDir(), 5, xl.Paused, false, false},
		"about to be let run":              {"", 5, xl.Paused, true, true},
		"another one, after it was":        {"", 6, xl.Paused, true, false},
		"the one that was to be suspended": {"", 4, xl.Paused, false, false},
		"it runs":                          {"", 5, xl.Running, false, false},
	} {
		d := &domain{boot: "b", records: []journal.Record{
			{Boot: "b", Kind: journal.KindSuspending, Data: json.RawMessage(`{"domain": {"id": 4}, "dir": "` + tt.dir + `"}`)},
		}}
		if tt.over {
			d.records = append(d.records, journal.Record{Boot: "b", Kind: journal.KindStarting, Data: json.RawMessage(`{"id": 5}`)})
		}
		p, over := d.suspension()
		if got := p.made(xl.Domain{ID: tt.id, State: tt.state}, over); over != tt.over || got != tt.want {
			t.Errorf("%s: %v, over %v; want %v", name, got, over, tt.want)
		}
	}
}
