package xlcfg

import (
	"fmt"
	"strconv"
	"strings"
)

// Format is how the bytes of a target are to be read.
type Format string

// The formats xl knows. Xen does not look at the target: a qcow2 image that is
// configured as raw is handed to the guest as it is.
const (
	Raw   Format = "raw"
	QCOW  Format = "qcow"
	QCOW2 Format = "qcow2"
	VHD   Format = "vhd"
	QED   Format = "qed"
	Empty Format = "empty" // no medium in the drive
)

// Backend is what serves the disk to the guest.
type Backend string

// The backends xl knows. A file: or phy: prefix chooses none of them.
const (
	Auto       Backend = "" // libxl tries phy, then qdisk
	Phy        Backend = "phy"
	Tap        Backend = "tap"
	QDisk      Backend = "qdisk"
	Standalone Backend = "standalone"
)

// Disk is one disk of a configuration, as xl hands it to libxl.
type Disk struct {
	VDev          string // as written, see [DevID]
	Target        string // the path, without prefixes; relative ones are possible
	Format        Format
	Backend       Backend
	BackendDomain string // backend=, the domain that serves the disk; empty is dom0
	Script        string // hotplug script, with block- for drbd: and the like; empty is the default
	ReadOnly      bool
	CDROM         bool
	DirectIOSafe  bool
	Spec          string // the disk string, decoded
	Line          int    // where it starts, from 1

	options options
	pos     int // of the literal in the file
}

// options are the parameters that an edit only has to leave alone.
type options struct {
	specification, coloHost, coloExport, activeDisk, hiddenDisk string
	coloPort                                                    string
	discard, colo, trusted, grantUsage                          tristate
}

type tristate int8

const (
	unset tristate = iota
	off
	on
)

// maxSpec bounds a disk string, in bytes. xl's scanner keeps a fixed buffer of
// this size for one match and overruns it with a longer one.
const maxSpec = 16 << 10

// Disks returns the disks the domain would start with, in order. One bad disk
// string refuses them all, as in xl. So do two disks that are one device, and
// what xl passes over in silence: a value that is no list, and a list within
// the list, which hides every disk behind it. A configuration without a disk
// key has no disks and no error. The error is a [*SyntaxError].
func (f *File) Disks() ([]Disk, error) {
	list, ok := f.settings["disk"]
	if !ok {
		return nil, nil
	}
	if !list.isList {
		return nil, f.refuse(list.lit.start, "disk is no list: xl starts the domain without disks", "put it in brackets: disk = [ … ]")
	}
	var disks []Disk
	seen := make(map[devKey]Disk)
	for _, v := range list.list {
		if v.isList {
			return nil, f.refuse(v.lit.start, "list inside the disk list: xl drops it and every disk behind it", "write one flat list of strings")
		}
		if len(v.lit.text) > maxSpec {
			return nil, f.errorAt(v.lit.start, fmt.Sprintf("disk string longer than %d bytes: xl would crash", maxSpec), "")
		}
		d, _, specErr := parseSpec(string(v.lit.text))
		if specErr != nil {
			return nil, f.specErrorAt(v.lit, specErr)
		}
		d.Line, d.pos = v.lit.line, v.lit.start
		if first, dup := seen[identity(d.VDev)]; dup {
			return nil, f.refuse(v.lit.start, fmt.Sprintf("disks %s (line %d) and %s are one device", spell(first.VDev), first.Line, spell(d.VDev)), "give each disk a vdev of its own")
		}
		seen[identity(d.VDev)] = d
		disks = append(disks, d)
	}
	return disks, nil
}

// Disk returns the disk with the given vdev, in any spelling (see [DevID]).
func (f *File) Disk(vdev string) (Disk, error) {
	disks, err := f.Disks()
	if err != nil {
		return Disk{}, err
	}
	i := indexVDev(disks, vdev)
	if i < 0 {
		return Disk{}, fmt.Errorf("cannot find disk %s in %s: %s", spell(vdev), spell(f.name), inventory(disks))
	}
	return disks[i], nil
}

func indexVDev(disks []Disk, vdev string) int {
	for i, d := range disks {
		if SameDevice(d.VDev, vdev) {
			return i
		}
	}
	return -1
}

func inventory(disks []Disk) string {
	if len(disks) == 0 {
		return "it has no disks"
	}
	names := make([]string, len(disks))
	for i, d := range disks {
		names[i] = spell(d.VDev)
	}
	return "it has " + strings.Join(names, ", ")
}

// specErrorAt places the error of a disk string in the file.
func (f *File) specErrorAt(lit literal, e *specError) *SyntaxError {
	pos := lit.start
	if lit.offs != nil {
		pos = lit.offs[e.pos]
	}
	return f.errorAt(pos, "disk "+strconv.Quote(string(lit.text))+": "+e.msg, e.hint)
}
