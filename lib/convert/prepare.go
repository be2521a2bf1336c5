package convert

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"xenlvm/lib/blkdev"
	"xenlvm/lib/diskimg"
	"xenlvm/lib/fault"
	"xenlvm/lib/host"
	"xenlvm/lib/journal"
	"xenlvm/lib/lvm"
	"xenlvm/lib/mnt"
	"xenlvm/lib/run"
	"xenlvm/lib/snap"
	"xenlvm/lib/xl"
	"xenlvm/lib/xlcfg"
)

// Prepare finds and checks everything. It changes nothing; its errors are
// refusals. A conversion without disks has nothing to do. The journal must be
// locked by the caller.
func Prepare(ctx context.Context, r run.Runner, rep Reporter, j *journal.Journal, o Options) (*Conversion, error) {
	c := &Conversion{o: o, r: r, rep: rep, journal: j}
	if err := host.NeedRoot("copy from a snapshot"); err != nil {
		return nil, err
	}
	for _, name := range []string{"lvs", "xl"} {
		if err := run.Missing(name); err != nil {
			return nil, err
		}
	}
	domain, running, err := xl.Find(ctx, r, o.Domain)
	if err != nil {
		return nil, err
	}
	if c.Running = running; running {
		c.yield = host.NewPressure().Yield
	}
	if o.Final && running {
		return nil, fault.Hint(fault.Refuse("cannot make the final pass: domain %s is %s", o.Domain, domain.State), "domuswitch stop %s", o.Domain)
	}
	if c.records, err = j.Read(); err != nil {
		return nil, err
	}
	if err := c.findDisks(ctx); err != nil {
		return nil, err
	}
	if len(c.Disks) == 0 {
		return c, nil
	}
	for _, d := range c.Disks {
		if err := c.findOrigin(ctx, d); err != nil {
			return nil, err
		}
	}
	if err := c.chooseDestinations(ctx); err != nil {
		return nil, err
	}
	if err := c.checkOthers(ctx); err != nil {
		return nil, err
	}
	for _, d := range c.Disks {
		if err := c.chooseMethod(d); err != nil {
			return nil, err
		}
	}
	if err := c.checkMethod(); err != nil {
		return nil, err
	}
	// What Reclaim has left of our snapshots is bases.
	c.bases, err = basesOf(ctx, r, o.Domain, c.records)
	return c, err
}

// CheckDomain refuses a domain that has no configuration, or none that xl would
// take.
func CheckDomain(o Options) error {
	_, err := readDisks(o)
	return err
}

// readDisks reads the disks in the domain's configuration.
func readDisks(o Options) ([]xlcfg.Disk, error) {
	path := o.Config
	if path == "" {
		var err error
		if path, err = xl.FindConfig(o.XenDir, o.Domain); err != nil {
			return nil, err
		}
	}
	config, err := xl.ReadConfig(path)
	if err != nil {
		return nil, err
	}
	if name, _ := config.String("name"); name != o.Domain {
		return nil, fault.Refuse("cannot use %s: it configures domain %q, not %q", path, name, o.Domain)
	}
	disks, err := config.Disks()
	return disks, fault.With(fault.Refused, err)
}

// findDisks picks the disks on files.
func (c *Conversion) findDisks(ctx context.Context) error {
	disks, err := readDisks(c.o)
	if err != nil {
		return err
	}
	for _, d := range disks {
		why, err := c.addDisk(ctx, d)
		if err != nil {
			return err
		}
		if why != "" {
			c.Skipped = append(c.Skipped, d.VDev+": "+why)
		}
	}
	return c.checkOnce(disks)
}

// checkOnce refuses a file, or block device, that is two disks of the domain, under
// whatever names: both would be given all of it, and each go on with its own.
func (c *Conversion) checkOnce(configured []xlcfg.Disk) error {
	for _, d := range c.Disks {
		for _, other := range configured {
			if other.VDev != d.VDev && !other.CDROM && other.Target != "" && blkdev.SameFile(other.Target, d.Image) {
				return fault.Hint(fault.Refuse("cannot convert disks %s and %s of %s: both are %s", d.VDev, other.VDev, c.o.Domain, d.Image),
					"give each its own image, or take one out of the configuration")
			}
		}
	}
	return nil
}

// addDisk adds a disk of the configuration, or says why it is none of our
// business.
func (c *Conversion) addDisk(ctx context.Context, d xlcfg.Disk) (skipped string, err error) {
	switch {
	case !deviceName(d.VDev):
		return "", fault.Refuse("cannot convert disk %q: no such virtual disk", d.VDev)
	case d.CDROM:
		return "a cdrom", nil
	case d.Format == xlcfg.Empty || d.Target == "":
		return "an empty drive", nil
	case d.Script != "":
		return "served by the script " + d.Script, nil
	case d.BackendDomain != "":
		return "served by domain " + d.BackendDomain, nil
	case !filepath.IsAbs(d.Target):
		return "", fault.Hint(fault.Refuse("cannot use the image %s of disk %s: its path is relative, and leads elsewhere from another directory", d.Target, d.VDev),
			"name it from the root on in the configuration of %s", c.o.Domain)
	}
	image, err := filepath.EvalSymlinks(d.Target)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return "", fault.Refuse("cannot find the image %s of disk %s", d.Target, d.VDev)
	case err != nil && (errors.Is(err, unix.ELOOP) || err.Error() == "EvalSymlinks: too many links"):
		return "", fault.Refuse("cannot open the image %s of disk %s: its links lead in a circle", d.Target, d.VDev)
	case err != nil:
		return "", fault.Refuse("cannot open the image %s of disk %s: %w", d.Target, d.VDev, err)
	}
	if !utf8.ValidString(image + d.Target) {
		return "", fault.Hint(fault.Refuse("cannot use the image %q of disk %s: its path is not UTF-8, and could not be written down", d.Target, d.VDev), "rename it, and name it so in the configuration of %s", c.o.Domain)
	}
	var st unix.Stat_t
	if err := unix.Stat(image, &st); err != nil {
		return "", fault.Refuse("cannot open the image %s of disk %s: %w", d.Target, d.VDev, err)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFBLK {
		return c.addDevice(ctx, d, image)
	}
	if b, half := journal.HalfWritten(c.records)[image]; half {
		return "", fault.Hint(fault.Refuse("cannot use the image %s of disk %s: it is half-written, as /dev/%s was being brought back into it", image, d.VDev, b.LV),
			"go on with that: domuswitch revert %s", c.o.Domain)
	}
	info, err := diskimg.Probe(image)
	if err != nil {
		return "", fault.With(fault.Refused, err)
	}
	format := string(d.Format)
	if err := diskimg.CheckFormat(info, format); err != nil {
		return "", fault.With(fault.Refused, err)
	}
	c.Disks = append(c.Disks, &Disk{VDev: d.VDev, Image: image, inode: st.Ino, Format: format, Info: info})
	return "", nil
}

// deviceName says whether vdev is a virtual disk that Xen knows; it becomes part
// of file names.
func deviceName(vdev string) bool {
	_, ok := xlcfg.DevID(vdev)
	return ok && !strings.ContainsRune(vdev, '/')
}

// findOrigin finds the volume whose file system holds the image. Where there is none,
// or where it is asked for, the image must be one that can be cloned. Otherwise a volume
// is preferred: a snapshot that has no room any more is lost, where with a clone it is
// the guest that cannot write.
func (c *Conversion) findOrigin(ctx context.Context, d *Disk) error {
	m, inside, err := mnt.Of(d.Image)
	if err != nil {
		return err
	}
	var n blkdev.Number
	if _, err := fmt.Sscanf(m.Device, "%d:%d", &n.Major, &n.Minor); err != nil {
		return fmt.Errorf("cannot read the mount of %s: device %q", d.Image, m.Device)
	}
	lv, found, err := lvm.ByNumber(ctx, c.r, n.Major, n.Minor)
	if err != nil {
		return err
	}
	d.Origin, d.FSType, d.Inside, d.cloned, d.device = lv, m.Type, inside, c.o.Clone || !found, n
	if !d.cloned {
		return nil
	}
	err = snap.CheckClonable(d.Image)
	switch {
	case err != nil && found:
		return fault.Hint(fault.Refuse("cannot clone %s: %w", d.Image, err), "leave out --clone: a snapshot of %s will do", lv.Spec())
	case err != nil:
		return fault.Hint(fault.Refuse("cannot snapshot the file system of %s: it is not on a logical volume but on device %s (%s); nor can the image be cloned: %w", d.Image, m.Device, m.Type, err),
			"mirror it: image-to-lv --plan mirror %s, or --plan live; or stop the domain, then: imgconv %s DESTINATION", run.Quote(c.o.Domain), run.Quote(d.Image))
	}
	return nil
}

// checkOthers refuses images and destinations that another domain uses: running,
// or by its configuration.
func (c *Conversion) checkOthers(ctx context.Context) error {
	uses, err := xl.Uses(ctx, c.r)
	if err != nil {
		return err
	}
	for _, u := range uses {
		dom, l := u.Domain, u.Disk
		for _, d := range c.Disks {
			if dom.Name == c.o.Domain && xlcfg.SameDevice(l.VDev, d.VDev) && !runsOn(l, d.Image) {
				return fault.Hint(fault.Refuse("cannot copy %s: the disk %s of domain %s, which runs, is something else (%s)", d.Image, l.VDev, dom.Name, l.Path),
					"if the file was replaced while %s runs, its data is only in the file that it holds open: do not stop it", dom.Name)
			}
			if dom.Name != c.o.Domain && HasDisk(l, d.Image) {
				return fault.Hint(fault.Refuse("cannot copy %s: domain %s has it as its disk %s", d.Image, dom.Name, l.VDev), "stop the other domain first: domuswitch stop %s", run.Quote(dom.Name))
			}
			if d.Dest.Exists && HasDisk(l, d.Dest.Path) {
				return fault.Hint(fault.Refuse("cannot copy to %s: domain %s has it as its disk %s", d.Dest.Path, dom.Name, l.VDev), "say another volume: --to %s=VG/LV", d.VDev)
			}
		}
	}
	for _, d := range c.Disks {
		if !d.Dest.Exists {
			continue
		}
		user := xl.ConfiguredFor(c.o.XenDir, "", func(target string) bool {
			dev, err := blkdev.Stat(target)
			return err == nil && dev.Number == d.Dest.Node.Number
		})
		if user != "" {
			return fault.Hint(fault.Refuse("cannot copy to %s: the configuration %s has it as a disk", d.Dest.Path, user), "say another volume: --to %s=VG/LV", d.VDev)
		}
	}
	return nil
}
