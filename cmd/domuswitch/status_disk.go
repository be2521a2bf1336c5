package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"xenlvm/lib/convert"
	"xenlvm/lib/journal"
	"xenlvm/lib/lvm"
	"xenlvm/lib/mirror"
	"xenlvm/lib/units"
	"xenlvm/lib/xlcfg"
)

// stage is how far a disk has come: the states of mapping lines, and what lies between
// them.
type stage string

// The stages, in their order. Those from aborted on are no way to go on from.
const (
	planned  stage = "planned" // it is known where it goes, and perhaps a part is there
	copied   stage = "copied"
	mirrored stage = "mirrored" // see the phase
	synced   stage = "synced"
	unclear  stage = "unclear" // QEMU switched, or did not
	applied  stage = "applied" // the configuration has the destination, and the domain has not run there
	switched stage = "switched"
	aborted  stage = "aborted"
	reverted stage = "reverted"
	gone     stage = "gone" // the destination is
)

// diskStatus is one disk.
type diskStatus struct {
	VDev        string       `json:"vdev"`
	Source      string       `json:"source"`
	Destination string       `json:"destination"`
	Stage       stage        `json:"stage"`
	Method      string       `json:"method,omitempty"`
	Phase       mirror.Phase `json:"phase,omitempty"`
	Copied      *time.Time   `json:"copied,omitempty"` // when
	Verified    string       `json:"verified,omitempty"`
	Partial     bool         `json:"partial,omitempty"`
	Done        units.Bytes  `json:"done_bytes"`
	Total       units.Bytes  `json:"total_bytes"`
	Live        string       `json:"live"` // what the domain has at this moment, "" for nothing

	used bool // the domain writes to the mirror
}

func (d diskStatus) String() string {
	parts := []string{string(d.Stage)}
	if d.Phase != "" && string(d.Phase) != string(d.Stage) {
		parts = append(parts, string(d.Phase))
	}
	if d.Total > 0 {
		parts = append(parts, fmt.Sprintf("%s of %s (%d%%)", d.Done, d.Total, 100*d.Done/d.Total))
	}
	if d.Copied != nil {
		parts = append(parts, "copied "+d.Copied.Local().Format(time.DateTime))
		parts = append(parts, "verified "+cmp.Or(d.Verified, "full"))
	}
	if d.Partial {
		parts = append(parts, "partial")
	}
	return strings.Join(parts, ", ") + ": " + d.Source + " to " + cmp.Or(d.Destination, "-")
}

// disks are those of which anything is known, in the order in which that began.
func (v *view) disks() []diskStatus {
	var all []diskStatus
	var seen []string
	add := func(vdev string) {
		if slices.ContainsFunc(seen, func(s string) bool { return xlcfg.SameDevice(s, vdev) }) {
			return
		}
		seen = append(seen, vdev)
		d := v.disk(vdev)
		if v.now != nil {
			if live, ok := v.now.liveDisk(vdev); ok {
				d.Live = live.Path
			}
		}
		all = append(all, d)
	}
	for _, k := range v.copies {
		add(k.VDev)
	}
	for _, m := range v.mirrors {
		add(m.VDev)
	}
	for _, h := range v.d.handovers() {
		add(h.Disk.VDev)
	}
	for _, m := range v.d.movesMade() {
		add(m.VDev)
	}
	return all
}

// disk is how far one disk is: on its way, or at the end of the newest one.
func (v *view) disk(vdev string) diskStatus {
	made := v.d.newestMove(vdev)
	begun := v.begun(vdev)
	if made != nil && made.index > begun {
		return v.moved(*made)
	}
	for _, h := range v.d.handovers() {
		if xlcfg.SameDevice(h.Disk.VDev, vdev) && h.End == "" {
			return diskStatus{VDev: vdev, Source: h.Disk.File, Destination: h.Device, Stage: unclear, Method: string(convert.QEMU)}
		}
	}
	i := slices.IndexFunc(v.mirrors, func(m mirrorView) bool { return xlcfg.SameDevice(m.VDev, vdev) && !m.Ended })
	if i >= 0 {
		return v.mirrors[i].status()
	}
	i = slices.IndexFunc(v.copies, func(k convert.Known) bool { return xlcfg.SameDevice(k.VDev, vdev) })
	if i < 0 { // an ended mirror without a volume
		return diskStatus{VDev: vdev, Stage: aborted}
	}
	d := v.copy(v.copies[i])
	if v.d.revertedSince(begun) {
		d.Stage = reverted
	}
	return d
}

// begun is the index of the newest record that begins something with the disk, -1 for
// none.
func (v *view) begun(vdev string) int {
	for i := len(v.d.records) - 1; i >= 0; i-- {
		r := v.d.records[i]
		var d journal.Destination // of which the others have a part
		switch r.Kind {
		case journal.KindDestination, journal.KindMirror, journal.KindMember:
			if json.Unmarshal(r.Data, &d) == nil && xlcfg.SameDevice(d.VDev, vdev) {
				return i
			}
		}
	}
	return -1
}

// moved is a disk that the configuration has on its destination.
func (v *view) moved(m moved) diskStatus {
	d := diskStatus{VDev: m.VDev, Source: m.Source, Destination: m.Destination, Stage: applied}
	for _, k := range v.copies {
		if xlcfg.SameDevice(k.VDev, m.VDev) && "/dev/"+k.Destination == m.Destination {
			d.Method = string(k.Method)
			d.setCopied(k)
		}
	}
	h := v.d.historyOf()
	if v.now != nil && v.now.up {
		if live, ok := v.now.liveDisk(m.VDev); ok && v.c.runs(live, m.Destination) || h.ran {
			d.Stage = switched
		}
	} else if h.ran || h.booted {
		d.Stage = switched
	}
	return d
}

func (d *diskStatus) setCopied(k convert.Known) {
	if k.Copied != nil {
		d.Copied, d.Verified, d.Partial = &k.Time, k.Copied.Verified, k.Copied.Partial
	}
}

// status is a disk that is mirrored.
func (m mirrorView) status() diskStatus {
	d := diskStatus{VDev: m.VDev, Source: m.Source, Destination: m.Destination, Stage: mirrored, Method: string(convert.Mirror), Phase: m.now.Phase, used: m.now.Top.Open > 0}
	switch m.now.Phase {
	case mirror.Synced:
		d.Stage = synced
	case mirror.Switched:
		d.Stage = switched
	case mirror.Recovering:
		d.Done, d.Total = m.now.MD.Done, m.now.MD.Total
	}
	return d
}

// copy is a disk that is copied.
func (v *view) copy(k convert.Known) diskStatus {
	d := diskStatus{VDev: k.VDev, Source: k.Source, Destination: "/dev/" + k.Destination, Stage: planned, Method: string(k.Method)}
	d.setCopied(k)
	lv := v.volume(k.Destination)
	switch {
	case k.Aborted:
		d.Stage = aborted
	case lv == nil && v.noVolumes == nil:
		d.Stage = gone
	case k.Copied != nil && !k.Copied.Partial && (lv == nil || lv.UUID == k.Copied.LVUUID && !lv.Tagged(lvm.TagIncomplete)):
		d.Stage = copied
	case lv != nil:
		d.Done, d.Total, _ = k.Done(v.d.journal, *lv)
	}
	return d
}
