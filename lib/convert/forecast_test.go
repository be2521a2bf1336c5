package convert

import (
	"testing"
	"time"

	"xenlvm/lib/journal"
)

// What was written in ten seconds before a pass is expected again, for as long as that
// pass has taken.
func TestForecast(t *testing.T) {
	seen := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	disk := func(change func(*Disk)) *Disk {
		d := &Disk{Method: Blocks, Format: "raw", last: &journal.Copied{Seen: seen.Add(-10 * time.Second)}}
		d.Result = Result{Delta: byExceptions, BytesRead: 1200, BytesWritten: 700, BytesZeroed: 300, Size: 1 << 20, Seconds: 6, seen: seen}
		change(d)
		return d
	}
	for _, tt := range []struct {
		name    string
		disks   []*Disk
		bytes   int64
		seconds float64
	}{
		{"a delta", []*Disk{disk(func(*Disk) {})}, 500, 2.5},
		{"a first copy", []*Disk{disk(func(d *Disk) { d.Result.Delta, d.last = "", nil })}, 1200, 6},
		{"one that went on", []*Disk{disk(func(d *Disk) { d.Result.Delta, d.last = byCheckpoint, nil })}, 1200, 6},
		{"by files", []*Disk{disk(func(d *Disk) { d.Method, d.Result.Seconds = Files, 0 })}, 1200, 0},
		{"all of it, and more", []*Disk{disk(func(d *Disk) { d.Result.Size = 400 })}, 400, 2},
		{"a clock that went back", []*Disk{disk(func(d *Disk) { d.last.Seen = seen.Add(time.Hour) })}, 1000, 5},
		{"two disks", []*Disk{disk(func(*Disk) {}), disk(func(*Disk) {})}, 1000, 5},
		{"nothing was read", []*Disk{disk(func(d *Disk) { d.Result.BytesRead, d.Result.BytesWritten, d.Result.BytesZeroed = 0, 0, 0 })}, 0, 0},
	} {
		c := &Conversion{Disks: tt.disks}
		if f := c.Forecast(seen.Add(5 * time.Second)); f.Bytes != tt.bytes || f.Seconds != tt.seconds {
			t.Errorf("%s: %+v; want %d bytes in %g s", tt.name, f, tt.bytes, tt.seconds)
		}
	}
}

// A final pass takes what the last one took, less its copying, and its own copying; the
// rest is as it was seen, or assumed.
func TestExpect(t *testing.T) {
	c := &Conversion{Disks: []*Disk{{Result: Result{Seconds: 3}}, {Result: Result{Seconds: 4}}}}
	x := c.Expect(Forecast{Bytes: 9, Seconds: 1.5}, 10*time.Second)
	if x.Pass != 4.5 || x.Bytes != 9 || x.Seen || x.Seconds() != 4.5+stopAssumed+startAssumed {
		t.Errorf("%+v", x)
	}
	c.records = records(t, journal.KindStopped, journal.Stopped{Seconds: 7}, journal.KindStopped, journal.Stopped{Seconds: 8})
	if c.Expect(Forecast{}, 0).Seen {
		t.Error("a start was never seen")
	}
	c.records = append(c.records, records(t, journal.KindStarted, journal.Started{Seconds: 2})...)
	if x = c.Expect(Forecast{Seconds: 7}, 7*time.Second); !x.Seen || x.Seconds() != 8+7+2 {
		t.Errorf("%+v", x)
	}
}
