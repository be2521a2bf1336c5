package main

import (
	"encoding/json"
	"fmt"
	"time"

	"xenlvm/lib/journal"
	"xenlvm/lib/units"
	"xenlvm/lib/xl"
)

// pausedFor is what the journal says of a pause.
type pausedFor struct {
	Domain  xl.Domain `json:"domain"`
	Method  string    `json:"method"`
	Seconds float64   `json:"seconds"`
}

// What is assumed of a pause that was never seen.
const (
	attach    = 2 * time.Second // disks, and the guest's own part
	memRate   = 400 << 20       // bytes a second through xl, in memory
	diskRate  = 100 << 20       // and on a disk
	lastRound = 20              // a migration's last round is this part of the memory
)

// expect tells how long the guest will pause, and how that is known.
func (m *moving) expect() {
	size := m.now.Memory
	took := func(n units.Bytes, rate float64) time.Duration {
		return attach + time.Duration(float64(n)/rate*float64(time.Second))
	}
	var was pausedFor
	_, seen := journal.Last(m.d.records, journal.KindPaused, func(data json.RawMessage) bool {
		was = pausedFor{}
		return json.Unmarshal(data, &was) == nil && was.Method == m.method && was.Seconds > 0 && was.Domain.Memory > 0
	})
	var why string
	switch {
	case seen:
		m.expected = time.Duration(was.Seconds * float64(size) / float64(was.Domain.Memory) * float64(time.Second))
		why = fmt.Sprintf("measured when it was moved before, with %s of memory", was.Domain.Memory)
	case m.method == byMigrate:
		m.expected = took(size/lastRound, memRate)
		why = fmt.Sprintf("assumed: 2 s, and 5 %% of its %s of memory at 400 MiB/s", size)
	case m.dir == m.c.tmpfs:
		m.expected = took(2*size, memRate)
		why = fmt.Sprintf("assumed: 2 s, and its %s of memory written and read in memory at 400 MiB/s", size)
	default:
		m.expected = took(2*size, diskRate)
		why = fmt.Sprintf("assumed: 2 s, and its %s of memory written and read in %s at 100 MiB/s", size, m.dir)
	}
	if m.half == nil {
		m.e.Infof("%s will pause for about %s by xl %s (%s)", m.d.name, shortly(m.expected), m.method, why)
	}
}

func shortly(d time.Duration) string { return d.Round(100 * time.Millisecond).String() }
