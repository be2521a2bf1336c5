package convert

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"xenlvm/lib/atomicfile"
	"xenlvm/lib/blockcopy"
	"xenlvm/lib/fault"
	"xenlvm/lib/journal"
	"xenlvm/lib/lvm"
)

// past is what the journal knows of a disk.
type past struct {
	destination string // VG/LV of the newest run, "" for none
	method      Method // of that run
	made        string // LV UUID of the newest file system that we made, or took over
	copied      *journal.Copied
	boot        string // during which it was copied
	copiedAt    time.Time
	switched    bool // the configuration was switched to other disks since, which may be newer
	aborted     bool // what was begun was given up since
}

// remember reads what the records say of a disk. Records about another image of
// the same name are not about it.
func remember(records []journal.Record, vdev, image string) past {
	var p past
	back := false // the image has all that was written to the volume
	for _, r := range records {
		switch r.Kind {
		case journal.KindApplied:
			p.switched, back = true, false
		case journal.KindAborted:
			p.aborted = true
		case journal.KindStarting:
			back = false
		case journal.KindReverted:
			p.switched = p.switched && !back
		case journal.KindReplayed:
			var b journal.BackDoor
			back = back || json.Unmarshal(r.Data, &b) == nil && b.VDev == vdev && b.Image.Path == image
		}
		var c journal.Copied
		if json.Unmarshal(r.Data, &c) != nil || c.VDev != vdev || c.Source != image {
			continue
		}
		switch r.Kind {
		case journal.KindDestination:
			p.destination, p.method = strings.TrimPrefix(c.Destination.Destination, "/dev/"), Method(c.Method)
			p.aborted = false
		case journal.KindMade:
			p.made = c.LVUUID
		case journal.KindCopied:
			p.copied, p.boot, p.copiedAt, p.switched, p.aborted = &c, r.Boot, r.Time, false, false
		}
	}
	return p
}

// handedOver says whether domuswitch had QEMU put a guest onto the volume VG/LV, and
// died before it wrote down how that ended.
func handedOver(records []journal.Record, spec string) bool {
	over := false
	for _, r := range records {
		var h journal.Handover
		if r.Kind == journal.KindHandover && json.Unmarshal(r.Data, &h) == nil && h.LV == spec {
			over = h.End == ""
		}
	}
	return over
}

// judgePast decides how much of the past still counts, once the destination and
// the method are known. Before the digests are used it is judged again, with the
// destination open for us alone.
//
// A last copy counts when it went to the same volume in the same way: then this
// pass is a delta. What that copy left in the volume is known, without reading
// it, only when nobody can have written there since: the copy was committed (the
// tag is off), and the kernel has counted no write to the volume since, which it
// does only as long as it is up.
func (c *Conversion) judgePast(d *Disk) {
	last := d.past.copied
	if last == nil || !d.Dest.Exists || !d.Dest.Ours || last.LVUUID != d.Dest.LV.UUID || Method(last.Method) != d.Method {
		return
	}
	d.last = last
	// A partial copy keeps the tag; any other loses it when it is committed.
	// What a volume was extended by holds anything.
	if last.DiskSize != d.Info.Size || last.LVSize != int64(d.Dest.LV.Size) || d.Dest.LV.Tagged(lvm.TagIncomplete) != last.Partial || d.past.boot != journal.BootID() {
		return
	}
	d.trusted = d.unwritten(last)
}

// checkNewer refuses to overwrite a volume that the domain may have run on since
// the copy: then the volume is the newer one, not the image.
func (c *Conversion) checkNewer(d *Disk) error {
	if d.last == nil || !d.past.switched || d.trusted || d.Dest.LV.Tagged(lvm.TagIncomplete) || c.o.Overwrite {
		return nil
	}
	return fault.Hint(fault.Refuse("cannot copy to %s: %s may have run on it since its last copy, and what it wrote there would be lost", d.Dest.LV.Spec(), c.o.Domain),
		"if the image is the newer one: --overwrite")
}

// verified says whether the last copy was read back, so that a delta needs to read
// back no more than what it writes.
func (d *Disk) verified() bool {
	return d.last != nil && slices.Contains([]Verified{"", VerifiedFull, VerifiedWritten}, Verified(d.last.Verified))
}

// unwritten says whether the destination was not written to since the copy last. Where
// the kernel does not count, nobody knows.
func (d *Disk) unwritten(last *journal.Copied) bool {
	now, err := d.Dest.Node.Written()
	return err == nil && last.Unwritten(now, d.Dest.Node.DiskSeq())
}

// chosen is the data of a record about where d goes.
func (c *Conversion) chosen(d *Disk) journal.Destination {
	return journal.Destination{VDev: d.VDev, Source: d.Image, Destination: d.Dest.Path, Method: string(d.Method), LVUUID: d.Dest.LV.UUID,
		Created: !d.Dest.Exists || created(d.Dest.LV, c.records)}
}

// digestsName is the file of the digests of d's destination. It is named after
// the volume: those of another one would let a delta miss every difference.
func digestsName(d *Disk) string { return d.VDev + "-" + d.Dest.LV.UUID + ".digests" }

// saveDigests makes the digests durable under their name before the record that
// names them is written.
func (c *Conversion) saveDigests(d *Disk, sums *blockcopy.Digests) error {
	return c.keepDigests(digestsName(d), sums)
}

func (c *Conversion) keepDigests(name string, sums *blockcopy.Digests) error {
	return c.keep(name, func(w io.Writer) error {
		_, err := sums.WriteTo(w)
		return err
	})
}

// keep makes a file beside the journal durable under its name, in place of an older
// one.
func (c *Conversion) keep(name string, write func(io.Writer) error) error {
	return atomicfile.Write(c.journal.Path(name), write)
}

// loadDigests are the digests of what the destination holds, nil when they are
// not to be had, or not to be trusted.
func (c *Conversion) loadDigests(d *Disk) *blockcopy.Digests {
	if !d.trusted || d.last.Digests != digestsName(d) {
		return nil
	}
	return c.readDigests(d, d.last.Digests)
}

// readDigests reads digests from a file beside the journal, nil when they are not to be
// had.
func (c *Conversion) readDigests(d *Disk, name string) *blockcopy.Digests {
	f, err := os.Open(c.journal.Path(name))
	if err != nil {
		return nil
	}
	defer f.Close()
	sums, err := blockcopy.ReadDigests(f)
	if err != nil {
		c.rep.Infof("%s: the digests of the earlier copy cannot be used: %v", d.VDev, err)
		return nil
	}
	return sums
}

// record writes down that the destination of d is equal to its source in s.
func (c *Conversion) record(s *source, d *Disk) error {
	written, seq, err := counted(d)
	if err != nil {
		return err
	}
	// By blocks, the counter was read while nobody else could write. By files,
	// unmounting wrote to the volume since.
	if d.Method == Blocks {
		if d.Result.written < 0 {
			written = -1
		} else if written != d.Result.written {
			return fmt.Errorf("cannot trust %s: somebody wrote to it after it was verified", d.Dest.Path)
		}
	}
	data := journal.Copied{
		Destination: c.chosen(d), SourceSize: d.Info.FileSize, DiskSize: d.Info.Size, SourceModified: d.Result.modified.UnixNano(), Seen: d.Result.seen,
		Written: written, DiskSeq: seq, LVSize: int64(d.Dest.LV.Size), Verified: string(d.Result.Verified), Inside: d.Inside, Partial: d.Result.Partial, BytesRead: d.Result.BytesRead, BytesWritten: d.Result.BytesWritten,
	}
	if d.Method == Blocks {
		data.Digests = digestsName(d)
	}
	if s.keep && d.mappable() {
		data.Base = s.kept().id()
		if !d.Result.Whole {
			data.Used, data.UsedSum = usedName(d), d.usedSum
		}
	}
	return c.journal.Append(journal.KindCopied, data)
}

// changedSince says whether the image was written to after the copy saw it.
func (d *Disk) changedSince() (bool, error) {
	info, err := os.Stat(d.Image)
	if err != nil {
		return false, err
	}
	return !info.ModTime().Equal(d.Result.modified) || info.Size() != d.Info.FileSize, nil
}
