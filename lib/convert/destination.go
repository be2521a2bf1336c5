package convert

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"xenlvm/lib/blkdev"
	"xenlvm/lib/diskimg"
	"xenlvm/lib/dm"
	"xenlvm/lib/fault"
	"xenlvm/lib/lvm"
	"xenlvm/lib/run"
	"xenlvm/lib/step"
	"xenlvm/lib/units"
	"xenlvm/lib/xlcfg"
)

// Destination is the volume that a disk goes to.
type Destination struct {
	LV      lvm.LV // as it is, or will be
	Path    string // /dev/VG/LV
	Exists  bool
	Ours    bool          // an earlier run of ours made or filled it for this disk
	Info    diskimg.Info  // what it holds, if it exists
	Node    blkdev.Device // if it exists
	Foreign string        // what it holds that is not ours, "" for nothing
}

// CheckTo refuses values of --to that cannot be read.
func CheckTo(to []string) error {
	_, _, err := parseTo(to)
	return err
}

// chooseDestinations finds out where each disk goes: what --to says, else what
// an earlier run recorded.
func (c *Conversion) chooseDestinations(ctx context.Context) error {
	group, named, err := parseTo(c.o.To)
	if err != nil {
		return err
	}
	for _, d := range c.Disks {
		spec := ""
		for vdev, s := range named {
			if xlcfg.SameDevice(vdev, d.VDev) {
				spec = s
				delete(named, vdev)
			}
		}
		d.past = remember(c.records, d.VDev, d.Image)
		switch recorded := d.past.destination; {
		case spec != "":
		case recorded != "" && (group == "" || strings.HasPrefix(recorded, group+"/")):
			spec = recorded
		case group != "":
			spec = group + "/" + lvm.NameFor(c.o.Domain, d.VDev)
		default:
			return fault.Hint(fault.Refuse("cannot tell where disk %s of %s goes", d.VDev, c.o.Domain), "say --to VG, or --to %s=VG/LV", d.VDev)
		}
		if err := c.destination(ctx, d, spec); err != nil {
			return err
		}
	}
	for vdev := range named {
		return fault.Refuse("cannot convert disk %s of %s: the domain has no such disk on a file", vdev, c.o.Domain)
	}
	return c.checkApart()
}

// parseTo reads the values of --to.
func parseTo(to []string) (group string, named map[string]string, err error) {
	named = map[string]string{}
	for _, t := range to {
		vdev, spec, found := strings.Cut(t, "=")
		if !found {
			if group != "" {
				return "", nil, fault.BadUsage("--to names two volume groups, %s and %s", group, t)
			}
			if err := lvm.CheckName(t); err != nil {
				return "", nil, fault.BadUsage("cannot read --to %q: want VG, or VDEV=VG/LV", t)
			}
			group = t
			continue
		}
		if _, twice := named[vdev]; twice || vdev == "" {
			return "", nil, fault.BadUsage("cannot read --to %q: want one VDEV=VG/LV for each disk", t)
		}
		if !strings.Contains(strings.TrimPrefix(spec, "/dev/"), "/") {
			// VDEV=VG picks the group and leaves the name to us.
			if err := lvm.CheckName(spec); err != nil {
				return "", nil, err
			}
			named[vdev] = spec + "/"
			continue
		}
		vg, name, err := lvm.SplitSpec(spec)
		if err != nil {
			return "", nil, err
		}
		named[vdev] = vg + "/" + name
	}
	return group, named, nil
}

// destination looks at, or plans, the volume spec for disk d.
func (c *Conversion) destination(ctx context.Context, d *Disk, spec string) error {
	vg, name, _ := strings.Cut(spec, "/")
	if name == "" {
		name = lvm.NameFor(c.o.Domain, d.VDev)
	}
	lv, found, err := lvm.Find(ctx, c.r, vg, name)
	if err != nil {
		return err
	}
	d.Dest = Destination{LV: lv, Path: "/dev/" + vg + "/" + name, Exists: found}
	if !found {
		d.Dest.LV = lvm.LV{VG: vg, Name: name}
		return fault.Hint(lvm.CheckLength(vg, name), "choose a shorter name: --to %s=%s/LV", d.VDev, vg)
	}
	return c.checkExisting(d)
}

// checkExisting refuses a volume that must not, or cannot, be overwritten.
func (c *Conversion) checkExisting(d *Disk) error {
	lv := d.Dest.LV
	switch {
	case lv.Path == "" || lv.Origin != "" && !lv.Thin() || slices.Contains([]string{"thin-pool", "cache-pool", "vdo-pool"}, lv.Type):
		return fault.Refuse("cannot copy to %s: it is not a plain volume (%s)", lv.Spec(), lv.Type)
	case !lv.Active:
		return fault.Hint(fault.Refuse("cannot copy to %s: it is not active", lv.Spec()), "lvchange --activate y %s", lv.Spec())
	case lv.UUID == d.Origin.UUID:
		return fault.Refuse("cannot copy to %s: it holds the image itself", lv.Spec())
	}
	if err := c.unclaimed(lv); err != nil || c.o.Method == QEMU {
		return err // for the rest see Place
	}
	dev, err := blkdev.Stat(d.Dest.Path)
	if err != nil {
		return err
	}
	d.Dest.Node = dev
	if dev.DependsOn(d.device) {
		return fault.Refuse("cannot copy to %s: it is built on device %s, which holds the image", lv.Spec(), d.device)
	}
	if dev.SectorSize != units512 {
		return fault.Hint(fault.Refuse("cannot copy to %s: its sectors are %d bytes, those of the image 512: %s", lv.Spec(), dev.SectorSize, OtherSectors),
			"choose a volume group on disks with sectors of 512 bytes: pvs; lsblk --output NAME,SIZE,LOG-SEC")
	}
	if err := dm.Idle(dev); err != nil {
		return err
	}
	f, err := os.Open(d.Dest.Path)
	if err != nil {
		return fault.Refuse("cannot read %s: %w", d.Dest.Path, fault.Reason(err))
	}
	defer f.Close()
	if d.Dest.Info, err = diskimg.ProbeFile(f); err != nil {
		return err
	}
	if handedOver(c.records, lv.Spec()) && !c.o.Overwrite {
		return fault.Hint(fault.Refuse("cannot copy to %s: QEMU was told to put %s onto it, and it is not known whether it did: it may have what nothing else has", lv.Spec(), c.o.Domain),
			"domuswitch start %s says how to go on", c.o.Domain)
	}
	d.Dest.Ours = lv.Tagged(lvm.TagDomain(c.o.Domain))
	if !d.Dest.Ours {
		d.Dest.Foreign = foreign(d.Dest.Info)
	}
	return nil
}

// unclaimed refuses a volume that was given to another domain. Its tag is the lock of
// a volume: it holds between two programs of one run, and after a crash.
func (c *Conversion) unclaimed(lv lvm.LV) error {
	for _, domain := range lv.Domains() {
		if domain != c.o.Domain {
			return fault.Hint(fault.Refuse("cannot copy to %s: a run for domain %s was given it", lv.Spec(), domain),
				"if %s does not need it any more: %s", domain, lvm.Untag(lv.Spec(), lvm.TagDomain(domain)).Line())
		}
	}
	return nil
}

// claim is the step that gives a volume the tag of the domain, and looks whether it is
// the only one: of two runs that begin at the same moment, one at least sees the other.
func (c *Conversion) claim(lv *lvm.LV) step.Step {
	tag := lvm.TagDomain(c.o.Domain)
	s := step.Command(c.r, "tag "+lv.Spec()+" "+tag, lvm.Tag(lv.Spec(), tag), run.Cmd{})
	do := s.Do
	s.Do = func(ctx context.Context) error {
		if err := do(ctx); err != nil {
			return err
		}
		ctx = context.WithoutCancel(ctx)
		now, found, err := lvm.Find(ctx, c.r, lv.VG, lv.Name)
		if err == nil && (!found || now.UUID != lv.UUID) {
			err = fmt.Errorf("cannot find volume %s after tagging it", lv.Spec())
		}
		if err == nil {
			err = c.unclaimed(now)
		}
		if err != nil {
			_, untag := c.r.Run(ctx, lvm.Untag(lv.Spec(), tag))
			err = errors.Join(err, untag)
		}
		return err
	}
	return s
}

const units512 = int(units.Sector)

// OtherSectors is why nothing is copied onto a device with larger sectors. A bare file
// system with large enough blocks could be mounted there. But in Xen's protocol for
// disks Linux counts in units of 512 bytes all the same, QEMU, Windows and Mini-OS in
// sectors, and FreeBSD in both: a guest may write to other places than it means.
const OtherSectors = "a partition table would be misread, and Xen's drivers do not agree about the unit in which they count then"

// foreign says what a volume that is not ours holds; "" when that is nothing.
func foreign(i diskimg.Info) string {
	switch i.Kind {
	case diskimg.Blank:
		return ""
	case diskimg.Filesystem:
		what := i.Signature.Type
		if i.Signature.Label != "" {
			what += " labelled " + i.Signature.Label
		}
		return what
	case diskimg.Table:
		return "a " + i.Table.Type + " partition table"
	}
	if i.Format != diskimg.Raw {
		return "a " + string(i.Format) + " image"
	}
	return "unknown data"
}

// checkApart refuses two disks with one destination.
func (c *Conversion) checkApart() error {
	seen := map[string]string{}
	for _, d := range c.Disks {
		if other, ok := seen[d.Dest.Path]; ok {
			return fault.Refuse("cannot copy both %s and %s to %s", other, d.VDev, d.Dest.Path)
		}
		seen[d.Dest.Path] = d.VDev
	}
	return nil
}
