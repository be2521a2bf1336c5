package main

import (
	"encoding/json"
	"testing"
	"time"

	"xenlvm/lib/journal"
)

// The downtime of a start is that since the shutdown before it in the same boot.
func TestDowntime(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 1, 0, 0, time.UTC)
	at := func(seconds int, boot, kind string, data any) journal.Record {
		raw, err := json.Marshal(data)
		if err != nil {
			t.Fatal(err)
		}
		return journal.Record{Time: now.Add(time.Duration(seconds-60) * time.Second), Boot: boot, Kind: kind, Data: raw}
	}
	stopped := at(40, "b", journal.KindStopped, journal.Stopped{Seconds: 5})
	expected := at(30, "b", journal.KindExpected, journal.Expected{Stop: 1, Pass: 2, Start: 3})
	started := at(50, "b", journal.KindStarted, journal.Started{Seconds: 1})
	for _, tt := range []struct {
		what           string
		records        []journal.Record
		down, expected float64
	}{
		{"nothing is known", nil, 0, 0},
		{"it was stopped", []journal.Record{stopped}, 25, 0},
		{"as was expected", []journal.Record{expected, stopped}, 25, 6},
		{"and started since", []journal.Record{expected, stopped, started}, 0, 0},
		{"another time", []journal.Record{at(10, "b", journal.KindStopped, journal.Stopped{Seconds: 1}), stopped}, 25, 0},
		{"before the host booted", []journal.Record{at(40, "a", journal.KindStopped, journal.Stopped{Seconds: 5})}, 0, 0},
	} {
		if down, expected := downtime(tt.records, "b", now); down != tt.down || expected != tt.expected {
			t.Errorf("%s: down for %g s, expected %g s", tt.what, down, expected)
		}
	}
}
