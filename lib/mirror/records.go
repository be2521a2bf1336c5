package mirror

import (
	"encoding/json"

	"xenlvm/lib/blkdev"
	"xenlvm/lib/fault"
	"xenlvm/lib/journal"
	"xenlvm/lib/units"
	"xenlvm/lib/xl"
)

// Known is a mirror that the journal knows.
type Known struct {
	Disk
	LVUUID string // of the destination, "" while none is chosen
	Boot   string // of the host, in which it was built
	// Compared is the ID of the domain that ran on the mirror when both members were
	// found equal, since the destination was added; 0 for none. It holds as long as
	// that domain does: the next one may come from disks beside the mirror.
	Compared int
	Ended    bool // it was taken down
}

// Remember reads the newest mirror of each disk of a domain from its journal, in
// the order in which they were built.
func Remember(domain string, records []journal.Record) []Known {
	var all []Known
	of := func(vdev string) *Known {
		for i := range all {
			if all[i].VDev == vdev {
				return &all[i]
			}
		}
		all = append(all, Known{Disk: Disk{Domain: domain, VDev: vdev}})
		return &all[len(all)-1]
	}
	for _, r := range records {
		switch r.Kind {
		case journal.KindMirror:
			var m journal.Mirror
			if json.Unmarshal(r.Data, &m) == nil {
				k := of(m.VDev)
				if k.Ended || k.Source != m.Source || k.Boot != r.Boot {
					*k = Known{Disk: Disk{Domain: domain, VDev: m.VDev, Source: m.Source, Size: units.Bytes(m.Size)}, Boot: r.Boot}
				}
			}
		case journal.KindMember, journal.KindSynced:
			var m journal.Synced // of which a member has a part
			if json.Unmarshal(r.Data, &m) == nil {
				k := of(m.VDev)
				k.Destination, k.LVUUID, k.Compared = m.Destination.Destination, m.LVUUID, m.DomID
			}
		case journal.KindMirrorEnded:
			var m journal.Mirror
			if json.Unmarshal(r.Data, &m) == nil {
				of(m.VDev).Ended = true
			}
		}
	}
	return all
}

// Configured is what the configuration at path has as the disk, and whether that is
// the destination.
func (k Known) Configured(path string) (target string, destination bool, err error) {
	config, err := xl.ReadConfig(path)
	if err != nil {
		return "", false, err
	}
	disk, err := config.Disk(k.VDev)
	if err != nil || k.Destination == "" {
		return disk.Target, false, fault.With(fault.Refused, err)
	}
	return disk.Target, blkdev.SameFile(disk.Target, k.Destination), nil
}
