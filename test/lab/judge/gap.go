package main

import (
	"maps"
	"time"
)

// gap is a time without a heartbeat.
type gap struct {
	Seconds    float64           `json:"seconds"`
	Start      int64             `json:"start_ns"`
	End        int64             `json:"end_ns"`
	BootBefore int               `json:"boot_before"`
	BootAfter  int               `json:"boot_after"`
	Acked      map[string]uint64 `json:"acked_before"`
}

// takeBeat measures the time since the last heartbeat. A clock that was set back gives no gap.
func (d *domain) takeBeat(at int64) {
	d.Beats++
	prev, boot := d.beat, d.boot
	d.beat, d.boot = at, d.Boots
	if prev == 0 {
		return
	}
	if at < prev {
		d.ClockBack = max(d.ClockBack, seconds(prev-at))
		return
	}
	g := gap{Seconds: seconds(at - prev), Start: prev, End: at, BootBefore: boot, BootAfter: d.Boots, Acked: map[string]uint64{}}
	if g.BootBefore == g.BootAfter {
		d.MaxPause = max(d.MaxPause, g.Seconds)
	}
	long := time.Duration(at-prev) > d.minGap
	if !long && d.Longest != nil && g.Seconds <= d.MaxGap {
		return
	}
	for name, k := range d.Disks {
		g.Acked[name] = k.now
	}
	if d.Longest == nil || g.Seconds > d.MaxGap {
		d.MaxGap = g.Seconds
		longest := g
		longest.Acked = maps.Clone(g.Acked)
		d.Longest = &longest
	}
	if long {
		d.Gaps = append(d.Gaps, g)
	}
}
