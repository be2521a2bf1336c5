package main

import (
	"encoding/json"

	"xenlvm/lib/journal"
	"xenlvm/lib/mapping"
)

// The kinds of records that domuswitch writes. An intent stands before each
// change; whether it was carried out is told by the sum of the configuration.
const (
	kindApplied  = "applied"      // a configuration is about to be replaced by one with other disks
	kindReverted = "reverted"     // or by a previous one
	kindDone     = "-done"        // + one of these: it was
	kindUndone   = "-undone"      // + one of these: it was taken back in the same run
	kindStarting = "starting"     // the domain is about to run
	kindNoStart  = "start-undone" // it was destroyed before it could write
	kindCopied   = "copied"       // by imgconv: a disk was copied
)

// replaced is the data of applied and reverted.
type replaced struct {
	Config   string         `json:"config"` // as it was named
	Real     string         `json:"real_path"`
	Backup   string         `json:"backup"` // the name beside the journal
	Before   string         `json:"sha256_before"`
	After    string         `json:"sha256_after"`
	Mappings []mapping.Line `json:"mappings"`
	Running  bool           `json:"running"` // the domain ran on the new disks already
}

// copied is what domuswitch reads of imgconv's record.
type copied struct {
	VDev        string `json:"vdev"`
	Source      string `json:"source"`
	Destination string `json:"destination"`
	SourceSize  int64  `json:"source_size"`
	SourceMtime int64  `json:"source_mtime_ns"`
	Method      string `json:"method"`
}

// history is what the journal says of the configuration.
type history struct {
	applied    replaced // the newest change to other disks
	found      bool
	reverted   bool // and it was taken back
	ran        bool // the domain was started since, so its new disks hold more than the old ones
	reversible bool // the file still is what the change made of it
	undone     bool // the file still is what it was before the change
}

// historyOf reads the journal for the configuration as it is now.
func (d *domain) historyOf() history {
	var h history
	for _, r := range d.records {
		switch r.Kind {
		case kindApplied:
			var a replaced
			if json.Unmarshal(r.Data, &a) == nil && a.Real == d.file.Real {
				h = history{applied: a, found: true, ran: a.Running}
			}
		case kindReverted + kindDone:
			h.reverted = true
		case kindStarting:
			h.ran = true
		case kindNoStart:
			h.ran = false
		}
	}
	now := sum(d.file.Content)
	h.reversible = h.found && now == h.applied.After
	h.undone = h.found && now == h.applied.Before
	return h
}

// copyOf is imgconv's newest record of a copy of the disk vdev to one of the
// destinations for which same says true.
func (d *domain) copyOf(vdev string, same func(destination string) bool) (copied, bool) {
	var c copied
	_, ok := journal.Last(d.records, kindCopied, func(data json.RawMessage) bool {
		c = copied{}
		return json.Unmarshal(data, &c) == nil && c.VDev == vdev && same(c.Destination)
	})
	return c, ok
}
