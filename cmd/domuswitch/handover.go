package main

import (
	"encoding/json"
	"fmt"
	"slices"

	"xenlvm/lib/fault"
	"xenlvm/lib/journal"
	"xenlvm/lib/lvm"
	"xenlvm/lib/run"
	"xenlvm/lib/xlcfg"
)

// handover is written down before QEMU is told to put a guest onto a copy, and
// once more when it is known how that ended. Between the two the configuration
// names the image, and the guest may be on the copy already: were the host to die
// then, the image would lack what it wrote last.
type handover struct {
	copying
	journal.Handover

	boot string // of the host, when it was written down
}

// How a handover ends.
const (
	followed = "switched" // the guest is on the device, and the configuration names it
	stayed   = "stayed"   // the guest is on the image, or it was decided that it is to be
)

func (d *domain) handover(h handover, end string) error {
	h.End = end
	return d.journal.Append(journal.KindHandover, h)
}

// handovers are the newest one of each disk, which are over when QEMU begins to
// copy it anew: then it was seen where the guest is.
func (d *domain) handovers() []handover {
	var newest []handover
	for _, r := range d.records {
		if r.Kind != journal.KindHandover && r.Kind != journal.KindCopying {
			continue
		}
		h := handover{boot: r.Boot}
		if json.Unmarshal(r.Data, &h) != nil {
			continue
		}
		newest = slices.DeleteFunc(newest, func(old handover) bool { return xlcfg.SameDevice(old.Disk.VDev, h.Disk.VDev) })
		if r.Kind == journal.KindHandover {
			newest = append(newest, h)
		}
	}
	return newest
}

// unclear are the handovers of which it is not known how they ended, and whose
// disk the configuration has elsewhere.
func (c *command) unclear(d *domain) []handover {
	return slices.DeleteFunc(d.handovers(), func(h handover) bool {
		disk, err := d.cfg.Disk(h.Disk.VDev)
		return h.End != "" || err != nil || c.same(disk.Target, h.Device)
	})
}

func (h handover) String() string {
	return fmt.Sprintf("QEMU was told to put disk %s onto %s, and it is not known whether it did: what the guest wrote last is there, or in %s",
		h.Disk.VDev, h.Device, h.Disk.File)
}

// underWay says whether the domain is the one whose QEMU was told: that still knows
// where the disk is.
func (h handover) underWay(d *domain, now present) bool {
	return now.up && now.ID == h.Domain.ID && d.boot != "" && h.boot == d.boot
}

// refuse is the error of a verb that would choose between image and device.
func (h handover) refuse(verb string, d *domain, now present) error {
	name := run.Quote(d.name)
	err := fault.Refuse("cannot %s %s: %v", verb, d.name, h)
	if h.underWay(d, now) {
		return fault.Hint(err, "QEMU knows where it is, and this goes on from there: domuswitch live %s", run.Quote(d.name, h.Disk.VDev+"="+h.Device))
	}
	onto := fmt.Sprintf("domuswitch apply %s && domuswitch start %s", run.Quote(d.name, h.Disk.VDev+"="+h.Device), name)
	if h.LV != "" {
		onto = lvm.Untag(h.LV, lvm.TagIncomplete).Line() + " && " + onto
	}
	err = fault.Hint(err, "if it is not: domuswitch start --yes %s", name)
	err = fault.Hint(err, "if %s is the newer one: %s", h.Device, onto)
	if now.up {
		return fault.Hint(err, "first: domuswitch stop %s", name)
	}
	return err
}

// notStale refuses to start a domain on an image that may lack what the guest wrote
// last, unless that was decided.
func (c *command) notStale(verb string, d *domain, now present, decided, dryRun bool) error {
	if err := c.notHalfWritten(verb, d); err != nil {
		return err
	}
	for _, h := range c.unclear(d) {
		if !decided || h.underWay(d, now) {
			return h.refuse(verb, d, now)
		}
		if dryRun {
			continue
		}
		if err := d.handover(h, stayed); err != nil {
			return err
		}
	}
	return nil
}

// complete refuses an LV that a copy has not finished. What QEMU was told to switch
// to must not be copied to again: it may have what nothing else has.
func (d *domain) complete(path string, lv lvm.LV) error {
	if !lv.Tagged(lvm.TagIncomplete) {
		return nil
	}
	for _, h := range d.handovers() {
		disk, err := d.cfg.Disk(h.Disk.VDev)
		switch {
		case err != nil || h.LV != lv.Spec():
		case h.End == "" && disk.Target != path:
			return fault.Hint(fault.Refuse("cannot use %s: %v", path, h), "domuswitch start %s says how to go on", run.Quote(d.name))
		case h.End != stayed && disk.Target == path:
			return fault.Hint(fault.Refuse("cannot use %s: it still has the tag %s, although its copy is complete", path, lvm.TagIncomplete),
				"%s", lvm.Untag(h.LV, lvm.TagIncomplete).Line())
		}
	}
	return fault.Hint(fault.Refuse("cannot use %s: the copy on it is not complete (tag %s)", path, lvm.TagIncomplete),
		"run imgconv again, or mdmirror finish where it is mirrored; they go on where they stopped")
}
