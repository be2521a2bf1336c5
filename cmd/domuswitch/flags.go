package main

import (
	"errors"
	"flag"
	"time"

	"xenlvm/lib/journal"
	"xenlvm/lib/units"
)

// flags are read as far as they can be without looking at the host: what is wrong
// with them is said before anything else.
func (c *command) flags(fs *flag.FlagSet) {
	fs.Func("back-door-size", "COW space of a thick back door, room in the pool of a thin one: a `SIZE` such as 20G, or a share of the volume (default 20%ORIGIN)", read(units.ParseShare, &c.backDoorSize))
	fs.Func("bwlimit", "for a guest on QEMU: copy at most `SIZE` a second (default: as fast as it goes)", read(rate, &c.limit))
	fs.Func("config", "the configuration is `FILE`, not the one found in the directory of configurations", read(notEmpty, &c.config))
	fs.BoolVar(&c.destroy, "destroy", false, "destroy a domain that does not shut down in time; the guest may lose what it has not written")
	fs.BoolVar(&c.keepBackDoor, "keep-back-door", false, "keep a snapshot of each new volume, by which revert brings what the domain writes there back into its images")
	fs.BoolVar(&c.keepImage, "keep-image", false, "purge: delete backups and back doors, but no image")
	fs.Func("max-pause", "refuse when the guest is expected to pause for more than `SECONDS`", read(seconds, &c.maxPause))
	fs.BoolVar(&c.offline, "offline", false, "look at no device, domain or xl: the configuration belongs to another host")
	fs.BoolVar(&c.overwrite, "overwrite", false, "revert: put the previous configuration back even if the present one was edited since; live: destroy what the destination of a disk on QEMU holds")
	fs.StringVar(&c.stateDir, "state-dir", "", "keep journals and backups below `DIR` (default "+journal.DefaultDir+"; with --offline .xenlvm beside the configuration)")
	fs.Func("timeout", "wait at most `TIME`; start --timeout 0 does not wait for the guest", read(timeout, &c.timeout))
	fs.Var(&c.to, "to", "where the images go that QEMU serves: `VG`, VDEV=VG or VDEV=VG/LV; repeatable. A volume that is missing is made")
	fs.Func("xen-dir", "look for configurations in `DIR` and DIR/auto", read(notEmpty, &c.xenDir))
	c.rehearsalFlags(fs)
	fs.BoolVar(&c.yes, "yes", false, "revert: go back although the domain has run on its new disks; restart: onto devices that are not equal to its disks; start: from an image that QEMU may have left. What it wrote is lost to it. purge: do not ask")
}

// read is a flag whose value is parsed at once.
func read[T any](parse func(string) (T, error), into *T) func(string) error {
	return func(text string) error {
		v, err := parse(text)
		if err == nil {
			*into = v
		}
		return err
	}
}

func notEmpty(text string) (string, error) {
	if text == "" {
		return "", errors.New("want a path")
	}
	return text, nil
}

// rate is a number of bytes a second.
func rate(text string) (units.Bytes, error) {
	n, err := units.Parse(text)
	if err == nil && n == 0 {
		err = errors.New("that would never end")
	}
	return n, err
}

func timeout(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err == nil && d < 0 {
		err = errors.New("want a time that is not negative")
	}
	return d, err
}

// seconds reads a time in seconds, or with a unit.
func seconds(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil {
		d, err = time.ParseDuration(text + "s")
	}
	if err != nil || d <= 0 {
		return 0, errors.New("want seconds above 0, such as 10 or 0.5")
	}
	return d, nil
}
