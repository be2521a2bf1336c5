package main

import (
	"encoding/json"
	"slices"
	"time"

	"xenlvm/lib/journal"
	"xenlvm/lib/mapping"
	"xenlvm/lib/xlcfg"
)

// moved is one disk in a change of the configuration that was made, and counts.
type moved struct {
	mapping.Line
	change journal.Replaced
	at     time.Time
	boot   string
	index  int // of the record
}

// movesMade are the moves by which the disks came to where the configuration has them,
// oldest first. They are followed back from there: an intent that was not carried out,
// or was undone, leads nowhere.
func (d *domain) movesMade() []moved {
	var all []moved
	for _, k := range d.disks {
		target := k.Target
		for i := len(d.records) - 1; i >= 0; i-- {
			r := d.records[i]
			var change journal.Replaced
			if r.Kind != journal.KindApplied || json.Unmarshal(r.Data, &change) != nil {
				continue
			}
			for _, l := range change.Mappings {
				if xlcfg.SameDevice(l.VDev, k.VDev) && l.Source != l.Destination && sameFile(l.Destination, target) {
					all = append(all, moved{l, change, r.Time, r.Boot, i})
					target = l.Source
					break
				}
			}
		}
	}
	slices.SortStableFunc(all, func(a, b moved) int { return a.index - b.index })
	return all
}

// newestMove is the one that brought the disk to where it is, nil if none did.
func (d *domain) newestMove(vdev string) *moved {
	all := d.movesMade()
	for i := len(all) - 1; i >= 0; i-- {
		if xlcfg.SameDevice(all[i].VDev, vdev) {
			return &all[i]
		}
	}
	return nil
}

// revertedSince says whether the newest change of the configuration behind a record put
// a previous one back.
func (d *domain) revertedSince(index int) bool {
	back := false
	for _, r := range d.records[index+1:] {
		switch r.Kind {
		case journal.KindApplied:
			back = false
		case journal.KindReverted:
			back = true
		}
	}
	return back
}
