// Package mirror mirrors a disk of a domain onto a logical volume while the
// domain writes to it.
//
//	the domain's disk ── NAME ─────────── the only device that the domain sees
//	                       │              (linear; switched to the volume at the end)
//	                     array            RAID1 without superblock
//	                    ╱     ╲
//	          NAME-source     NAME-destination
//	               │               │
//	    loop of the image,     logical volume
//	    or a volume
//
// All three named devices are device-mapper's, because device-mapper lets several
// of its devices lie on one: the uppermost can be switched to the volume, or back
// to the image, while the array still holds both.
//
// What exists is asked of the kernel each time, by names and UUIDs that follow
// from domain and disk; the journal has what the kernel forgets at a crash.
package mirror

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"xenlvm/lib/blkdev"
	"xenlvm/lib/dm"
	"xenlvm/lib/fault"
	"xenlvm/lib/loopdev"
	"xenlvm/lib/lvm"
	"xenlvm/lib/md"
	"xenlvm/lib/run"
	"xenlvm/lib/udev"
	"xenlvm/lib/units"
)

// Disk is a disk of a domain that is mirrored, or will be.
type Disk struct {
	Domain, VDev string
	Source       string // image file or block device, absolute, without links
	Size         units.Bytes
	Destination  string // /dev/VG/LV; "" while none is chosen
}

// String names the disk in messages.
func (d Disk) String() string { return fmt.Sprintf("disk %s of %s", d.VDev, d.Domain) }

// Name is the name of the device that the domain sees, below /dev/mapper. The
// volume's name would be the same without the prefix.
func (d Disk) Name() string { return "xenlvm-" + lvm.NameFor(d.Domain, d.VDev) }

// Path is that device.
func (d Disk) Path() string { return "/dev/mapper/" + d.Name() }

// The legs of a mirror: what follows its name.
const (
	top         = ""
	source      = "-source"
	destination = "-destination"
)

// uuid tells the devices of two disks apart whose names are spelled the same.
func (d Disk) uuid(part string) string {
	sum := sha256.Sum256([]byte(d.Domain + "\x00" + d.VDev))
	return udev.UUIDPrefix + hex.EncodeToString(sum[:8]) + part
}

// Device is the device with a number if it is one of ours, of any disk.
func Device(n blkdev.Number) (dm.Device, bool, error) {
	dir := "/sys/dev/block/" + n.String() + "/dm/"
	uuid, err := os.ReadFile(dir + "uuid")
	if err != nil || !strings.HasPrefix(string(uuid), udev.UUIDPrefix) {
		return dm.Device{}, false, nil
	}
	name, err := os.ReadFile(dir + "name")
	if err != nil {
		return dm.Device{}, false, err
	}
	return dm.Find(strings.TrimSpace(string(name)))
}

// Phase is how far a mirror is.
type Phase string

// The phases.
const (
	Absent     Phase = "absent"     // there is nothing
	Partly     Phase = "partly"     // what an interrupted build or end left
	Built      Phase = "built"      // the source alone
	Recovering Phase = "recovering" // the destination is being filled
	Synced     Phase = "synced"     // both are equal, and stay so
	Degraded   Phase = "degraded"   // a member failed, the other one has everything
	Failed     Phase = "failed"     // no member has everything
	Switched   Phase = "switched"   // the domain's device is the destination
	Returned   Phase = "returned"   // the domain's device is the source, past the array
)

// State is what the kernel has of a mirror.
type State struct {
	Phase                    Phase
	Top, Source, Destination dm.Device // without a name where there is none
	Loop                     *loopdev.Device
	Array                    *md.Array
	MD                       md.Status // of the array
}

// Look asks the kernel. A device that has one of our names but is not ours is
// refused.
func (d Disk) Look() (State, error) {
	var s State
	for part, dev := range map[string]*dm.Device{top: &s.Top, source: &s.Source, destination: &s.Destination} {
		found, there, err := dm.Find(d.Name() + part)
		if err != nil {
			return s, err
		}
		if there && found.UUID != d.uuid(part) {
			return s, fault.Hint(fault.Refuse("cannot use %s: it was not made for %s (its UUID is %q)", found.Path(), d, found.UUID),
				"dmsetup table %s; if nobody needs it: dmsetup remove %[1]s", run.Quote(found.Name))
		}
		*dev = found
	}
	var err error
	if s.Loop, err = d.loop(); err != nil {
		return s, err
	}
	if s.Source.Name != "" {
		array, found, err := md.Over(filepath.Base(s.Source.Node()))
		if err != nil {
			return s, err
		}
		if found {
			s.Array = &array
			if s.MD, err = array.Status(); err != nil {
				return s, err
			}
		}
	}
	s.Phase = d.phase(s)
	return s, nil
}

// loop is our loop device of the image, whatever the image's path leads to by now.
// Others may have theirs, such as Xen's backend.
func (d Disk) loop() (*loopdev.Device, error) {
	loops, err := loopdev.List(func(l loopdev.Device) bool { return l.Label == d.uuid(top) })
	if err != nil || len(loops) == 0 {
		return nil, err
	}
	return loops[0], nil
}

// phase says how far the mirror is.
func (d Disk) phase(s State) Phase {
	if s.Top.Name != "" && d.Destination != "" && over(s.Top, d.Destination) {
		return Switched
	}
	switch {
	case s.Top.Name == "" && s.Source.Name == "" && s.Destination.Name == "" && s.Loop == nil:
		return Absent
	case s.Top.Name != "" && d.backOnSource(s):
		return Returned
	case s.Array == nil || s.Top.Name == "":
		return Partly
	}
	from, _ := s.member(s.Source)
	to, added := s.member(s.Destination)
	switch {
	case from.InSync() && to.InSync():
		return Synced
	case from.InSync() && !added:
		return Built
	case from.InSync() && added && !to.Faulty():
		return Recovering
	case from.InSync() || to.InSync():
		return Degraded
	}
	return Failed
}

// backOnSource says whether the domain's device is the source itself.
func (d Disk) backOnSource(s State) bool { return over(s.Top, d.sourceDevice(s)) }

// sourceDevice is the path of the block device that the source is.
func (d Disk) sourceDevice(s State) string {
	if s.Loop != nil {
		return s.Loop.Path
	}
	return d.Source
}

// over says whether one of our devices is all of the block device at path.
func over(leg dm.Device, path string) bool {
	dev, err := blkdev.Stat(path)
	return err == nil && leg.LinearOver(dev.Number)
}

// member is the array's member on a leg; the boolean is false when there is none.
func (s State) member(leg dm.Device) (md.Member, bool) {
	for _, m := range s.MD.Members {
		if leg.Name != "" && m.Node == leg.Node() {
			return m, true
		}
	}
	return md.Member{}, false
}

// Complete says whether the destination has everything that the domain wrote.
func (s State) Complete() bool {
	m, ok := s.member(s.Destination)
	return s.Phase != Returned && ok && m.InSync()
}

// Intact says the same of the source.
func (s State) Intact() bool {
	m, ok := s.member(s.Source)
	return ok && m.InSync()
}

// StateOf is what md says of the member on a leg.
func (s State) StateOf(leg dm.Device) string {
	m, ok := s.member(leg)
	if !ok {
		return "missing"
	}
	return m.State
}
