// Package convert turns a domain's image files into logical volumes: it finds
// the disks and the volumes that their images lie on, chooses a method for each,
// checks everything, and makes the plan that copies them from one LVM snapshot, or from
// clones of them where there is no volume.
//
//	image file ──on── file system ──on── origin LV
//	                                        │ snapshot, mounted read-only
//	                                        ▼
//	                               image as it was at one instant
//	                      blocks: read as it is │ files: read-only loop, mounted
//	                                        ▼
//	                                 destination LV
//
// The source is only ever read. A destination carries the tag
// xenlvm.incomplete from before its first write until it is verified.
package convert

import (
	"context"
	"path/filepath"
	"time"

	"xenlvm/lib/blkdev"
	"xenlvm/lib/directio"
	"xenlvm/lib/diskimg"
	"xenlvm/lib/extent"
	"xenlvm/lib/fsmap"
	"xenlvm/lib/journal"
	"xenlvm/lib/lvm"
	"xenlvm/lib/mapping"
	"xenlvm/lib/run"
	"xenlvm/lib/snap"
	"xenlvm/lib/units"
)

// RunDir is where snapshots, images and destinations are mounted meanwhile.
const RunDir = "/run/xenlvm/domain"

// Method is how a disk is copied.
type Method string

// The methods of a snapshot; others have Mirror and QEMU. Auto chooses between the
// others here.
const (
	Auto   Method = "auto"
	Files  Method = "files"
	Blocks Method = "blocks"
)

// Options of a conversion.
type Options struct {
	Domain       string
	Config       string // path of the configuration; empty: found below XenDir
	XenDir       string
	StateDir     string
	To           []string // VG, or VDEV=VG/LV
	Method       Method
	SnapshotSize units.Share
	Extend       snap.Extension
	Overwrite    bool // destroy what a destination holds
	Final        bool // the domain must be stopped, and stay so
	Whole        bool // by blocks: copy the free blocks of the guest's file systems, too
	Clone        bool // copy from clones of the images, not from a snapshot of their volume
	KeepBase     bool // keep what is copied from: the next pass need look only at what changed since
	Verify       Verify
	Direct       directio.Mode // by blocks
	Rate         int64
}

// Reporter shows a conversion to its user.
type Reporter interface {
	Infof(format string, args ...any)
	Phase(what string) Phase
}

// Phase is one long piece of work.
type Phase interface {
	Update(done, total int64)
	Done()
}

// Disk is one file-backed disk of the domain.
type Disk struct {
	VDev   string
	Image  string // absolute, without links
	inode  uint64
	Format string // raw or qcow2
	Info   diskimg.Info
	Origin lvm.LV        // the volume whose file system holds the image, if it is on one
	FSType string        // of that file system
	Inside string        // the image's path on it, from its root
	cloned bool          // the image is copied from a clone of it
	device blkdev.Number // that the file system is mounted from
	Method Method
	Why    string // this method
	Dest   Destination
	Result Result
	InUse  bool // somebody runs on the destination, or may: its creation is not taken back

	wholeSeconds bool // one of the file systems stores no fractions of them
	keepFS       bool // the file system on the destination is copied into, not made anew
	past         past
	last         *journal.Copied // the last copy onto this destination in this way, nil for none
	trusted      bool            // and nobody can have written there since
	changed      *extent.Set     // what of the image may have changed since then, nil: nobody knows
	usedSum      string          // SHA-256 of the file that says which bytes were copied
}

// OriginSpec is the volume that was snapshotted, "" if none was.
func (d *Disk) OriginSpec() string {
	if d.cloned {
		return ""
	}
	return d.Origin.Spec()
}

// Result is what a run did for one disk.
type Result struct {
	BytesRead    int64  `json:"bytes_read"`
	BytesWritten int64  `json:"bytes_written"`
	BytesZeroed  int64  `json:"bytes_zeroed"`
	From         string `json:"copied_from"`     // what kept the image as it was: snapshot or clone
	Delta        string `json:"delta,omitempty"` // how what changed was found, "" for a first copy
	Partial      bool   `json:"partial"`         // files that a running guest was changing were left to a later pass
	Size         int64  `json:"size_bytes"`
	Entries      int64  `json:"entries,omitempty"` // of the tree, by files
	Digest       string `json:"digest,omitempty"`
	// By blocks: was all of the image copied, or what of it was in use?
	Whole    bool           `json:"whole"`
	Regions  []fsmap.Region `json:"regions,omitempty"`
	Seconds  float64        `json:"copy_seconds,omitempty"` // of the copying alone
	Verified Verified       `json:"verified,omitempty"`
	modified time.Time      // of the image, as it was copied
	seen     time.Time      // when it was looked at there
	written  int64          // the destination's counter when it was verified, -1: not counted
}

// Conversion is a checked conversion, ready to be planned.
type Conversion struct {
	Disks   []*Disk
	Skipped []string // disks that are none of our business, each with the reason
	Running bool     // the domain runs
	Dropped bool     // the bases, as there is no disk

	o       Options
	r       run.Runner
	rep     Reporter
	journal *journal.Journal
	records []journal.Record
	pools   []string              // VG/POOL: thin pools that the conversion may write to
	dirs    []string              // whose file systems clones may fill
	bases   []base                // kept by the last pass
	yield   func(context.Context) // lets others have their disks first; nil: nobody else uses the domain's
}

// Lines are the mapping lines in the given state.
func (c *Conversion) Lines(state mapping.State) []mapping.Line {
	var lines []mapping.Line
	for _, d := range c.Disks {
		s := state
		if d.Result.Partial {
			s = mapping.Planned
		}
		lines = append(lines, mapping.Line{Domain: c.o.Domain, VDev: d.VDev, Source: d.Image, Destination: d.Dest.Path, State: s})
	}
	return lines
}

// dir is where this domain's mounts are.
func (c *Conversion) dir() string { return filepath.Join(RunDir, c.o.Domain) }
