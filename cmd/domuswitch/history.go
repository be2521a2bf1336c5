package main

import (
	"encoding/json"
	"maps"

	"xenlvm/lib/blkdev"
	"xenlvm/lib/journal"
	"xenlvm/lib/mapping"
	"xenlvm/lib/xlcfg"
)

// history is what the journal says of the configuration.
type history struct {
	applied    journal.Replaced // the newest change to other disks
	found      bool
	ran        bool // the domain was started since, so its new disks hold more than the old ones
	booted     bool // the host booted since: xendomains may have started it, and nothing recorded that
	reversible bool // the file still is what the change made of it
	undone     bool // the file is what it was before the change
}

// historyOf reads the journal for the configuration as it is now.
func (d *domain) historyOf() history {
	var h history
	now := sum(d.file.Content)
	made := false // by a change: it made the file what it is now
	ran := false  // before the start that comes last
	for _, r := range d.records {
		switch r.Kind {
		case journal.KindApplied, journal.KindReverted:
			var a journal.Replaced
			// An intent that was not carried out hides none that was.
			if json.Unmarshal(r.Data, &a) != nil || a.Real != d.file.Real || made && a.After != now {
				continue
			}
			made = a.After == now
			if r.Kind == journal.KindApplied {
				h = history{applied: a, found: true, reversible: made, undone: a.Before == now, ran: a.Running, booted: d.boot == "" || r.Boot != d.boot}
			} else if made {
				h.reversible, h.undone = false, true
			}
		case journal.KindStarting:
			ran, h.ran = h.ran, true
		case journal.KindStartUndone:
			h.ran = ran
		}
	}
	if h.found && !h.booted && writtenSinceThen(h.applied) {
		h.ran = true // xl create by hand leaves no record, but the guest wrote
	}
	return h
}

// writtenSinceThen says whether anybody may have written to the disks of a change since.
func writtenSinceThen(a journal.Replaced) bool {
	sectors, seqs := written(a.Mappings)
	return !maps.Equal(a.Written, sectors) || len(a.DiskSeq) > 0 && !maps.Equal(a.DiskSeq, seqs)
}

// written are the counters of the disks that lines lead to, and what tells their
// activations apart.
func written(lines []mapping.Line) (sectors map[string]int64, seqs map[string]uint64) {
	sectors, seqs = map[string]int64{}, map[string]uint64{}
	for _, l := range lines {
		dev, err := blkdev.Stat(l.Destination)
		if err != nil {
			continue
		}
		if n, err := dev.Written(); err == nil {
			sectors[l.Destination] = n
		}
		if n := dev.DiskSeq(); n > 0 {
			seqs[l.Destination] = n
		}
	}
	return sectors, seqs
}

// copyOf is imgconv's newest record of a copy of the disk to a destination that
// fits, nil if there is none.
func (d *domain) copyOf(disk xlcfg.Disk, fits func(journal.Copied) bool) *journal.Copied {
	var c journal.Copied
	_, ok := journal.Last(d.records, journal.KindCopied, func(data json.RawMessage) bool {
		c = journal.Copied{}
		return json.Unmarshal(data, &c) == nil && c.VDev == disk.VDev && sameFile(c.Source, disk.Target) && fits(c)
	})
	if !ok {
		return nil
	}
	return &c
}
