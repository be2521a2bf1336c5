package journal

import (
	"time"

	"xenlvm/lib/mapping"
)

// The kinds of records. Intents stand before what they announce.
const (
	KindDestination = "destination" // Destination: where a disk goes, before anything is done
	KindMade        = "made"        // Destination: a file system was made there, and checked
	KindClone       = "clone"       // snap.Clone: an image is about to be cloned; again, when it is
	KindCopied      = "copied"      // Copied: a copy; it says how much was verified

	KindMirror      = "mirror"       // Mirror: a disk is about to be mirrored
	KindMember      = "member"       // Destination: a volume is about to become the second member
	KindSynced      = "synced"       // Synced: both members were compared, and are equal
	KindMirrorEnded = "mirror-ended" // Mirror: what was made for it is gone

	KindAborted = "aborted" // what was begun before the cutover is given up, and gone
	KindPurging = "purging" // Purge: what was kept is about to be deleted
	KindPurged  = "purged"  // Purge: it is

	KindApplied     = "applied"      // Replaced: the configuration is about to get other disks
	KindReverted    = "reverted"     // Replaced: or its previous ones back
	KindExpected    = "expected"     // Expected: how long it will be down for the final pass
	KindStopped     = "stopped"      // Stopped: it shut down
	KindStarting    = "starting"     // the domain is about to run
	KindStartUndone = "start-undone" // it was destroyed before it could write
	KindStarted     = "started"      // Started: its guest has its disks
	KindSuspending  = "suspending"   // a running domain is about to be taken apart, to go on on other disks
	KindPaused      = "paused"       // it runs again, and how long it did not
	KindCopying     = "copying"      // QEMU is about to copy a disk under its guest
	KindHandover    = "handover"     // Handover: and to put the guest onto the copy, or it is known how that ended
	KindStored      = "stored"       // what a reboot from inside the guest leads to was changed

	KindRehearsing = "rehearsing" // Rehearsal: a copy of the domain is about to be made, and booted
	KindRehearsed  = "rehearsed"  // Rehearsal: it is gone
	KindBackDoor   = "back-door"  // BackDoor: its snapshot is about to be made
	KindReplaying  = "replaying"  // BackDoor: the volume is about to be brought back into its image
	KindReplayed   = "replayed"   // BackDoor: it was, and this is the image now
)

// Destination is where a disk goes.
type Destination struct {
	VDev        string `json:"vdev"`
	Source      string `json:"source"`
	Destination string `json:"destination"` // /dev/VG/LV
	Method      string `json:"method"`      // files, blocks, mirror or qmp
	LVUUID      string `json:"lv_uuid,omitempty"`
	// Created says that a run of ours made the volume, or is about to if it has no UUID.
	Created bool `json:"created,omitempty"`
}

// Synced is what was found equal.
type Synced struct {
	Destination
	// DomID is the ID of the domain that ran on the mirror meanwhile, 0 for none.
	DomID int `json:"domid,omitempty"`
}

// Expected is how long a domain is expected to be down, in seconds.
type Expected struct {
	Stop  float64 `json:"stop_seconds"`
	Pass  float64 `json:"pass_seconds"` // the final one
	Start float64 `json:"start_seconds"`
	Bytes int64   `json:"pass_bytes"`      // that it reads
	Seen  bool    `json:"stop_start_seen"` // how long it stops and starts, or that is assumed
}

// Seconds is how long it is down in all.
func (e Expected) Seconds() float64 { return e.Stop + e.Pass + e.Start }

// Stopped is how long a shutdown took.
type Stopped struct {
	Seconds float64 `json:"seconds"`
}

// Started is how long a start took. Down is since when the domain was asked to shut
// down, 0 where nobody knows, and Expected what was expected of that.
type Started struct {
	Seconds  float64 `json:"start_seconds"`
	Down     float64 `json:"down_seconds,omitempty"`
	Expected float64 `json:"expected_down_seconds,omitempty"`
}

// Handover is the part of its record that others read than who wrote it.
type Handover struct {
	LV  string `json:"lv,omitempty"`  // VG/LV that the copy is on, "" if it is none
	End string `json:"end,omitempty"` // "" for not known
}

// Mirror is a disk that is mirrored.
type Mirror struct {
	VDev   string `json:"vdev"`
	Source string `json:"source"`
	Size   int64  `json:"size"` // bytes
}

// Copied is what a destination was equal to.
type Copied struct {
	Destination
	SourceSize int64 `json:"source_size"` // of the image file, bytes
	DiskSize   int64 `json:"disk_size"`   // of the disk in it; the same for raw images
	// SourceModified is the image's modification time in the snapshot, in
	// nanoseconds since 1970. An image that is younger has been written to since.
	SourceModified int64     `json:"source_mtime_ns"`
	Seen           time.Time `json:"seen"` // when the image was looked at in the snapshot
	// Written is how many sectors of the destination were ever written since
	// the host booted: more of them now, or another boot, and somebody else
	// may have written there.
	Written int64 `json:"destination_sectors_written"`
	// DiskSeq is the number that the kernel gave the destination when it was activated,
	// 0 for not known: the count of another activation says nothing.
	DiskSeq uint64 `json:"destination_diskseq,omitempty"`
	Digests string `json:"digests,omitempty"` // file beside the journal, by blocks
	Partial bool   `json:"partial,omitempty"` // files are left to a later pass
	LVSize  int64  `json:"lv_size,omitempty"` // of the destination, bytes
	// Verified is how much of the destination was read back, as imgconv says it; ""
	// in records of versions that always read all of it.
	Verified string `json:"verified,omitempty"`
	// Inside is the path of the image in the file system of its origin.
	Inside string `json:"inside,omitempty"`
	// Base is the LV UUID of the snapshot, or the path of the clone, that was copied
	// from, if it was kept for the next pass. Used is the file beside the journal that says which bytes of the image
	// were copied then, with its SHA-256; "" when all were.
	Base         string `json:"base,omitempty"`
	Used         string `json:"used,omitempty"`
	UsedSum      string `json:"used_sha256,omitempty"`
	BytesRead    int64  `json:"bytes_read"`
	BytesWritten int64  `json:"bytes_written"`
}

// Purge is what is deleted when a move is over for good.
type Purge struct {
	Names []string `json:"names"` // paths, and VG/LV
}

// Unwritten says whether the destination is as it was left, if by now so many sectors
// were written to it since the host booted, and its number is seq.
func (c Copied) Unwritten(sectors int64, seq uint64) bool {
	return c.Written >= 0 && sectors == c.Written && (c.DiskSeq == 0 || seq == c.DiskSeq)
}

// Replaced is a change of a configuration.
type Replaced struct {
	Config   string         `json:"config"` // as it was named
	Real     string         `json:"real_path"`
	Backup   string         `json:"backup"` // the name beside the journal
	Before   string         `json:"sha256_before"`
	After    string         `json:"sha256_after"`
	Mappings []mapping.Line `json:"mappings"`
	Running  bool           `json:"running"` // the domain ran on the new disks already
	// Written is how many sectors of each new disk had been written in that boot
	// when it was switched to, for those of which the kernel counts that.
	Written map[string]int64 `json:"sectors_written,omitempty"`
	// DiskSeq is the number that the kernel gave each of them when it was activated, for
	// those for which it does that.
	DiskSeq map[string]uint64 `json:"diskseq,omitempty"`
	// Images are those that are left, as they were then. One that is mirrored is
	// written to until its mirror ends.
	Images []Image `json:"images,omitempty"`
	// BackDoors are those of the new disks, as they were made.
	BackDoors []BackDoor `json:"back_doors,omitempty"`
}

// Rehearsal is a copy of a domain that boots from snapshots of its volumes.
type Rehearsal struct {
	Name      string   `json:"name"`
	UUID      string   `json:"uuid"`
	Snapshots []string `json:"snapshots"` // VG/LV
	CameUp    bool     `json:"came_up"`
	Seconds   float64  `json:"seconds,omitempty"` // until then
}
