package convert

import (
	"encoding/json"
	"time"

	"xenlvm/lib/journal"
)

// Forecast is what a next pass is expected to read if it began at once.
type Forecast struct {
	Bytes   int64   `json:"bytes"`
	Seconds float64 `json:"seconds"` // of copying, at the speed of this pass
}

// Forecast tells of a next pass, by what this one has seen: what was written since the
// last pass, and goes on being written at that rate. Where nobody knows that rate, the
// next pass is taken to be as large as this one.
func (c *Conversion) Forecast(now time.Time) Forecast {
	var f Forecast
	var read int64
	var seconds float64
	for _, d := range c.Disks {
		r := d.Result
		read, seconds = read+r.BytesRead, seconds+r.Seconds
		f.Bytes += d.forecast(now)
	}
	if read > 0 {
		f.Seconds = seconds * float64(f.Bytes) / float64(read)
	}
	return f
}

// forecast is how many bytes of d a next pass would read.
func (d *Disk) forecast(now time.Time) int64 {
	r := d.Result
	if r.Delta == "" || d.last == nil || d.last.Seen.IsZero() || !d.mappable() {
		return r.BytesRead
	}
	changed := r.BytesWritten + r.BytesZeroed
	since, passed := now.Sub(r.seen), r.seen.Sub(d.last.Seen)
	if passed <= 0 {
		return changed
	}
	return min(int64(float64(changed)*since.Seconds()/passed.Seconds()), r.Size)
}

// What is assumed, in seconds, of a shutdown and a start that were never seen.
const (
	stopAssumed  = 15
	startAssumed = 10
)

// Expect tells how long the domain would be down for a final pass that is made as this
// one was: took is how long it took in all, with its snapshot and its verification.
func (c *Conversion) Expect(f Forecast, took time.Duration) journal.Expected {
	e := journal.Expected{Stop: stopAssumed, Start: startAssumed, Bytes: f.Bytes, Pass: took.Seconds() + f.Seconds}
	for _, d := range c.Disks {
		e.Pass -= d.Result.Seconds
	}
	var down journal.Stopped
	var up journal.Started
	_, stopped := journal.Last(c.records, journal.KindStopped, as(&down))
	_, started := journal.Last(c.records, journal.KindStarted, as(&up))
	if stopped && started {
		e.Stop, e.Start, e.Seen = down.Seconds, up.Seconds, true
	}
	return e
}

// as accepts data that can be read as v is, and fills it.
func as(v any) func(json.RawMessage) bool {
	return func(raw json.RawMessage) bool { return json.Unmarshal(raw, v) == nil }
}
