package convert

import (
	"encoding/json"
	"os"
	"strings"
	"time"

	"xenlvm/lib/blockcopy"
	"xenlvm/lib/journal"
)

// The kinds of record that a conversion writes.
const (
	kindDestination = "destination" // where a disk goes, before anything is done
	kindCopied      = "copied"      // a verified copy
	kindApplied     = "applied"     // domuswitch changed the configuration
)

// Chosen is the data of a "destination" record.
type Chosen struct {
	VDev        string `json:"vdev"`
	Source      string `json:"source"`
	Destination string `json:"destination"` // /dev/VG/LV
	Method      Method `json:"method"`
}

// Copied is the data of a "copied" record: what the destination was equal to.
type Copied struct {
	Chosen
	LVUUID     string `json:"lv_uuid"`
	SourceSize int64  `json:"source_size"`
	// SourceModified is the image's modification time in the snapshot. An image
	// that is younger now has been written to since.
	SourceModified int64     `json:"source_mtime_ns"`
	Started        time.Time `json:"started"`
	Result         Result    `json:"result"`
	Digests        string    `json:"digests,omitempty"` // file beside the journal, by blocks
	Partial        bool      `json:"partial,omitempty"`
}

func (d *Disk) chosen() Chosen {
	return Chosen{VDev: d.VDev, Source: d.Image, Destination: d.Dest.Path, Method: d.Method}
}

// lastChosen is what the newest record of the kind says of vdev, if it is about
// the same image.
func lastChosen[T any](records []journal.Record, kind, vdev, image string) *T {
	var data T
	_, found := journal.Last(records, kind, func(raw json.RawMessage) bool {
		var c Chosen
		if json.Unmarshal(raw, &c) != nil || c.VDev != vdev || c.Source != image {
			return false
		}
		return json.Unmarshal(raw, &data) == nil
	})
	if !found {
		return nil
	}
	return &data
}

func lastCopied(records []journal.Record, vdev, image string) *Copied {
	return lastChosen[Copied](records, kindCopied, vdev, image)
}

// recordedDestination is VG/LV.
func recordedDestination(records []journal.Record, vdev, image string) string {
	c := lastChosen[Chosen](records, kindDestination, vdev, image)
	if c == nil {
		return ""
	}
	return strings.TrimPrefix(c.Destination, "/dev/")
}

// recordedMethod is the method of an earlier run onto the same destination that
// still exists, "" for none.
func recordedMethod(records []journal.Record, d *Disk) Method {
	c := lastChosen[Chosen](records, kindDestination, d.VDev, d.Image)
	if c == nil || !d.Dest.Exists || !d.Dest.Ours || c.Destination != d.Dest.Path {
		return ""
	}
	return c.Method
}

// untouched says whether nobody but us can have written to the destination
// since its last copy: the configuration was not switched to it in between.
func (c *Conversion) untouched() bool {
	for i := len(c.records) - 1; i >= 0; i-- {
		switch c.records[i].Kind {
		case kindApplied:
			return false
		case kindCopied:
			return true
		}
	}
	return false
}

func (c *Conversion) digestsName(d *Disk) string { return d.VDev + ".digests" }

// saveDigests makes the digests durable under their name before the record that
// names them is written.
func (c *Conversion) saveDigests(d *Disk, sums *blockcopy.Digests) error {
	path := c.journal.Path(c.digestsName(d))
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = sums.WriteTo(f)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		_ = os.Remove(tmp)
		return err
	}
	return journal.SyncDir(c.journal.Dir)
}

// loadDigests are the digests of what the destination holds, nil when they are
// not to be had, or not to be trusted.
func (c *Conversion) loadDigests(d *Disk) *blockcopy.Digests {
	if d.last == nil || d.last.Digests == "" || d.last.SourceSize != d.Info.Size || !c.untouched() {
		return nil
	}
	f, err := os.Open(c.journal.Path(c.digestsName(d)))
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

// record writes that the destination of d is equal to its source.
func (c *Conversion) record(d *Disk) error {
	data := Copied{Chosen: d.chosen(), LVUUID: d.Dest.LV.UUID, SourceSize: d.Info.Size, SourceModified: d.Result.modified.UnixNano(),
		Started: time.Now().Add(-d.Result.Elapsed), Result: d.Result, Partial: d.Result.Partial}
	if d.Method == Blocks {
		data.Digests = c.digestsName(d)
	}
	return c.journal.Append(kindCopied, data)
}

// changedSince says whether the image was written to after the copy saw it.
func (d *Disk) changedSince() (bool, error) {
	info, err := os.Stat(d.Image)
	if err != nil {
		return false, err
	}
	return !info.ModTime().Equal(d.Result.modified) || info.Size() != d.Info.FileSize, nil
}
