package convert

import (
	"context"
	"slices"
	"strings"

	"xenlvm/lib/blkdev"
	"xenlvm/lib/diskimg"
	"xenlvm/lib/fault"
	"xenlvm/lib/host"
	"xenlvm/lib/journal"
	"xenlvm/lib/lvm"
	"xenlvm/lib/run"
	"xenlvm/lib/step"
	"xenlvm/lib/xlcfg"
)

// Mirror is the method of mdmirror: the kernel copies while the domain writes.
const Mirror Method = "mirror"

// PrepareMirror finds and checks those disks of a domain that can be mirrored and
// that wanted takes: its raw images, and the block devices that o.To names. It
// changes nothing; its errors are refusals. Where the disks go is looked at only when
// destinations is set.
func PrepareMirror(ctx context.Context, r run.Runner, rep Reporter, j *journal.Journal, o Options, wanted func(vdev string) bool, destinations bool) (*Conversion, error) {
	o.Method = Mirror
	c := &Conversion{o: o, r: r, rep: rep, journal: j}
	if err := host.NeedRoot("mirror a disk"); err != nil {
		return nil, err
	}
	for _, name := range []string{"lvs", "xl", "mdadm", "dmsetup", "udevadm"} {
		if err := run.Missing(name); err != nil {
			return nil, err
		}
	}
	var err error
	if c.records, err = j.Read(); err != nil {
		return nil, err
	}
	if err := c.findDisks(ctx); err != nil {
		return nil, err
	}
	c.only(wanted)
	for _, d := range c.Disks {
		d.Method, d.Why = Mirror, "asked for"
		if d.Format != string(diskimg.Raw) {
			return nil, fault.Hint(fault.Refuse("cannot mirror disk %s of %s: %s is a %s image, which only QEMU can read", d.VDev, o.Domain, d.Image, d.Format),
				"QEMU itself moves it, while the domain runs and without a pause: domuswitch live --to VG %s", run.Quote(o.Domain))
		}
	}
	if destinations && len(c.Disks) > 0 {
		if err := c.chooseDestinations(ctx); err != nil {
			return nil, err
		}
		for _, d := range c.Disks {
			if err := c.checkBlocks(d); err != nil {
				return nil, err
			}
		}
		if err := c.checkSpace(ctx, nil); err != nil {
			return nil, err
		}
	}
	return c, c.checkOthers(ctx)
}

// Destinations is the plan that creates the volumes that are missing, and marks
// all of them as ours and incomplete.
func (c *Conversion) Destinations() step.Plan {
	var plan step.Plan
	for _, d := range c.Disks {
		plan = append(plan, c.planDestination(d)...)
	}
	return plan
}

// Keep leaves out the disks that wanted does not want.
func (c *Conversion) Keep(wanted func(vdev string) bool) {
	c.Disks = slices.DeleteFunc(c.Disks, func(d *Disk) bool { return !wanted(d.VDev) })
}

// only is Keep with what --to says of the disks that are left out: it is no mistake.
func (c *Conversion) only(wanted func(vdev string) bool) {
	c.o.To = slices.DeleteFunc(slices.Clone(c.o.To), func(to string) bool {
		return slices.ContainsFunc(c.Disks, func(d *Disk) bool { return names(to, d.VDev) && !wanted(d.VDev) })
	})
	c.Keep(wanted)
}

// addDevice adds a disk that is a block device already, if it is to be mirrored.
func (c *Conversion) addDevice(ctx context.Context, d xlcfg.Disk, device string) (skipped string, err error) {
	if c.o.Method != Mirror || !Named(c.o.To, d.VDev) {
		return "on the block device " + d.Target + " already", nil
	}
	dev, err := blkdev.Stat(device)
	if err != nil {
		return "", err
	}
	if dev.SectorSize != units512 {
		return "", fault.Refuse("cannot mirror %s: its sectors are %d bytes, not 512", d.Target, dev.SectorSize)
	}
	if err := c.checkSnapshots(ctx, dev); err != nil {
		return "", err
	}
	info, err := diskimg.Probe(device)
	if err != nil {
		return "", fault.With(fault.Refused, err)
	}
	if info.Format != diskimg.Raw { // a guest may write what it likes to its disk
		info = diskimg.Info{Path: info.Path, Format: diskimg.Raw, FileSize: info.FileSize, Size: info.FileSize, Kind: diskimg.Unknown}
	}
	c.Disks = append(c.Disks, &Disk{VDev: d.VDev, Image: d.Target, Format: string(diskimg.Raw), Info: info})
	return "", nil
}

// checkSnapshots refuses a volume that snapshots depend on: they would stay behind,
// and tell of a volume that the domain has left.
func (c *Conversion) checkSnapshots(ctx context.Context, dev blkdev.Device) error {
	lv, found, err := lvm.ByNumber(ctx, c.r, dev.Number.Major, dev.Number.Minor)
	if err != nil || !found {
		return err
	}
	all, err := lvm.LVs(ctx, c.r, "")
	if err != nil {
		return err
	}
	for _, v := range all {
		if v.VG == lv.VG && v.Origin == lv.Name {
			return fault.Hint(fault.Refuse("cannot mirror %s: its snapshot %s would stay behind", lv.Spec(), v.Spec()), "lvremove %s, or merge it: lvconvert --merge %[1]s", v.Spec())
		}
	}
	return nil
}

// Named says whether one of the values of --to names the disk.
func Named(to []string, vdev string) bool {
	return slices.ContainsFunc(to, func(one string) bool { return names(one, vdev) })
}

func names(to, vdev string) bool {
	v, _, found := strings.Cut(to, "=")
	return found && xlcfg.SameDevice(v, vdev)
}
