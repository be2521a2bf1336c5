package convert

import (
	"os"
	"path/filepath"
	"slices"

	"xenlvm/lib/diskimg"
	"xenlvm/lib/fault"
	"xenlvm/lib/mnt"
	"xenlvm/lib/run"
	"xenlvm/lib/units"
)

// treeTypes are the file systems that the files method copies from and makes.
var treeTypes = []string{"ext2", "ext3", "ext4", "xfs"}

// fsType is the file system that an image or volume holds, if it is one whose
// files can be copied.
func fsType(i diskimg.Info) string {
	if i.Kind == diskimg.Filesystem && i.Also == "" && slices.Contains(treeTypes, i.Signature.Type) {
		return i.Signature.Type
	}
	return ""
}

// chooseMethod chooses how to copy d, and refuses what the method cannot do.
func (c *Conversion) chooseMethod(d *Disk) error {
	var recorded Method
	if m := d.past.method; (m == Files || m == Blocks) && d.Dest.Exists && d.Dest.Ours && d.past.destination == d.Dest.LV.Spec() {
		recorded = m
	}
	switch {
	case c.o.Method == Files && fileless(d):
		d.Method, d.Why = Blocks, "it holds no files but "+describe(d.Info)
	case c.o.Method != Auto:
		d.Method, d.Why = c.o.Method, "asked for"
	case recorded != "":
		d.Method, d.Why = recorded, "as in the earlier run"
	case d.Format != string(diskimg.Raw):
		d.Method, d.Why = Blocks, "a "+d.Format+" image"
	case fsType(d.Info) == "":
		d.Method, d.Why = Blocks, "the image holds no single file system: "+describe(d.Info)
	case d.Dest.Exists && fsType(d.Dest.Info) != "":
		d.Method, d.Why = Files, "the destination holds a file system"
	default:
		d.Method, d.Why = Blocks, "the destination is empty"
	}
	c.judgePast(d)
	if err := c.checkNewer(d); err != nil {
		return err
	}
	if d.Method == Files {
		return c.checkFiles(d)
	}
	return c.checkBlocks(d)
}

// fileless says whether an image holds no files of its own, so that whoever asks
// for the files method cannot mean it. Data that nobody knows may be files.
func fileless(d *Disk) bool {
	if d.Format != string(diskimg.Raw) {
		return false
	}
	switch d.Info.Kind {
	case diskimg.Blank, diskimg.Table:
		return true
	case diskimg.Filesystem:
		return slices.Contains([]string{"swap", "crypto_LUKS", "LVM2_member", "linux_raid_member"}, d.Info.Signature.Type)
	}
	return false
}

// checkMethod refuses to copy no disk at all in the way that was asked for.
func (c *Conversion) checkMethod() error {
	if c.o.Method != Files || slices.ContainsFunc(c.Disks, func(d *Disk) bool { return d.Method == Files }) {
		return nil
	}
	return fault.Hint(fault.Refuse("cannot copy %s file by file: no image of it holds a file system", c.o.Domain), "--method blocks")
}

// describe says what an image holds.
func describe(i diskimg.Info) string {
	switch i.Kind {
	case diskimg.Filesystem:
		return i.Signature.Type
	case diskimg.Table:
		return "a " + i.Table.Type + " partition table"
	case diskimg.Blank:
		return "zeros"
	}
	return string(i.Kind)
}

func (c *Conversion) checkBlocks(d *Disk) error {
	if size := units.Bytes(d.Info.Size); d.Dest.Exists && d.Dest.LV.Size < size {
		err := fault.Refuse("cannot copy %s to %s block by block: the image is %d bytes, the volume only %d", d.Image, d.Dest.LV.Spec(), size, d.Dest.LV.Size)
		if d.Method != Mirror && fsType(d.Info) != "" {
			err = fault.Hint(err, "or make a smaller file system on it and use --method files")
		}
		return fault.Hint(err, "lvextend --size %db %s", size, d.Dest.LV.Spec())
	}
	return c.checkForeign(d, d.Dest.Foreign)
}

func (c *Conversion) checkFiles(d *Disk) error {
	source := fsType(d.Info)
	if d.Format != string(diskimg.Raw) || source == "" {
		return fault.Hint(fault.Refuse("cannot copy %s file by file: it is a %s image that holds %s", d.Image, d.Format, describe(d.Info)), "--method blocks")
	}
	if err := run.Missing("rsync"); err != nil {
		return err
	}
	// Ours is a file system only when its making was written down: what an
	// unfinished run, or the other method, left there is made anew.
	if d.Dest.Exists && d.Dest.Ours {
		d.keepFS = d.past.made == d.Dest.LV.UUID && fsType(d.Dest.Info) != ""
		return nil
	}
	there := fsType(d.Dest.Info)
	if there == "" {
		return c.checkForeign(d, d.Dest.Foreign)
	}
	names, err := c.lookInto(d, there)
	if err != nil {
		return err
	}
	if len(names) == 0 {
		d.keepFS = true
		return nil
	}
	return c.checkForeign(d, "a file system with files ("+names[0]+")")
}

func (c *Conversion) checkForeign(d *Disk, what string) error {
	if what == "" || d.Dest.Ours || c.o.Overwrite {
		return nil
	}
	return fault.Hint(fault.Refuse("cannot copy to %s: it holds %s", d.Dest.LV.Spec(), what), "--overwrite destroys it")
}

// journaled says whether an ext file system has changes that are only in its
// journal: flag needs_recovery (0x4) of s_feature_incompat, at 0x60 of the
// superblock at 1024. XFS does not tell so simply; there an unmount is assumed.
func journaled(path, fsType string) bool {
	if fsType != "ext3" && fsType != "ext4" {
		return false
	}
	f, err := os.Open(path)
	if err != nil {
		return true
	}
	defer f.Close()
	var b [4]byte
	_, err = f.ReadAt(b[:], 1024+0x60)
	return err != nil || b[0]&4 != 0
}

// lookInto is what the file system on a destination holds at its root. It is
// mounted read-only, without its journal, only while we look.
func (c *Conversion) lookInto(d *Disk, fsType string) ([]string, error) {
	if journaled(d.Dest.Path, fsType) {
		return []string{"its journal was not written back"}, nil
	}
	m := mnt.Mount{Device: d.Dest.Path, Point: filepath.Join(c.dir(), "look"), Type: fsType, Data: mnt.ReadOnly(fsType)}
	if err := m.Do(); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(m.Point)
	if uerr := m.Undo(); err == nil {
		err = uerr
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if e.Name() != "lost+found" {
			names = append(names, e.Name())
		}
	}
	return names, nil
}
