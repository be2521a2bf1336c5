package convert

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"

	"xenlvm/lib/blockcopy"
	"xenlvm/lib/diskimg"
	"xenlvm/lib/extent"
	"xenlvm/lib/fsmap"
	"xenlvm/lib/units"
)

// used is which bytes of the image are copied: those that its file systems use, or
// may use; none of an image whose holes are not true. What it reads for that is counted as read.
func (c *Conversion) used(src diskimg.Source, d *Disk) (extent.Set, error) {
	d.Result.Whole = c.o.Whole
	if err := blockcopy.CheckHoles(src); err != nil {
		return extent.Set{}, err
	}
	if c.o.Whole {
		return extent.Whole(src.Size()), nil
	}
	counted := counter{ReaderAt: src}
	set, regions, err := fsmap.Used(&counted, units.Bytes(src.Size()))
	d.Result.Regions, d.Result.BytesRead = regions, counted.n
	for _, r := range regions {
		c.rep.Infof("%s: %s", d.VDev, r)
	}
	return set, err
}

// counter counts what is read.
type counter struct {
	io.ReaderAt
	n int64
}

func (c *counter) ReadAt(b []byte, off int64) (int, error) {
	n, err := c.ReaderAt.ReadAt(b, off)
	c.n += int64(n)
	return n, err
}

// Survey says what each image uses as it is now, for a dry run: an image that is
// written to meanwhile may look as if it could not be told.
func (c *Conversion) Survey() {
	for _, d := range c.Disks {
		if d.Method != Blocks {
			continue
		}
		if err := c.survey(d); err != nil {
			c.rep.Infof("%s: cannot tell now what is in use: %v", d.VDev, err)
		}
		d.Result.BytesRead = 0 // of no copy
	}
}

func (c *Conversion) survey(d *Disk) error {
	src, err := diskimg.OpenSource(d.Image, d.Format)
	if err != nil {
		return err
	}
	defer src.Close()
	_, err = c.used(src, d)
	return err
}

// usedName is the file that says which bytes of d's image were copied: lines
// "offset length". A block that was free then, and is used now, must be copied even
// if it was not written since.
func usedName(d *Disk) string { return d.VDev + "-" + d.Dest.LV.UUID + ".used" }

// saveUsed writes that file, if not all was copied, and returns its SHA-256.
func (c *Conversion) saveUsed(d *Disk, set extent.Set) (sum string, err error) {
	hash := sha256.New()
	err = c.keep(usedName(d), func(w io.Writer) error {
		b := bufio.NewWriter(io.MultiWriter(w, hash))
		for r := range set.All() {
			fmt.Fprintln(b, r)
		}
		return b.Flush()
	})
	return hex.EncodeToString(hash.Sum(nil)), err
}

// loadUsed is which bytes of the image the last copy had.
func (c *Conversion) loadUsed(d *Disk) (extent.Set, error) {
	if d.last.Used == "" {
		return extent.Whole(d.last.DiskSize), nil
	}
	text, err := os.ReadFile(c.journal.Path(d.last.Used))
	if err != nil {
		return extent.Set{}, err
	}
	if sum := sha256.Sum256(text); hex.EncodeToString(sum[:]) != d.last.UsedSum {
		return extent.Set{}, fmt.Errorf("cannot read %s: it is damaged", d.last.Used)
	}
	var set extent.Set
	for line := range bytes.Lines(text) {
		var r extent.Range
		if _, err := fmt.Sscan(string(line), &r.Off, &r.Len); err != nil {
			return extent.Set{}, fmt.Errorf("cannot read %s: %w", d.last.Used, err)
		}
		set.Add(r.Off, r.Len)
	}
	return set, nil
}
