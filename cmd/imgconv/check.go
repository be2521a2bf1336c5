package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"xenlvm/lib/blkdev"
	"xenlvm/lib/convert"
	"xenlvm/lib/dm"
	"xenlvm/lib/fault"
	"xenlvm/lib/host"
	"xenlvm/lib/loopdev"
	"xenlvm/lib/run"
	"xenlvm/lib/units"
	"xenlvm/lib/xl"
)

// check refuses a destination that must not be written to. It changes nothing.
func check(ctx context.Context, r run.Runner, src *source, path string) error {
	var to unix.Stat_t
	err := unix.Stat(path, &to)
	switch kind := to.Mode & unix.S_IFMT; {
	case errors.Is(err, unix.ENOENT):
		return checkNew(ctx, r, src, path)
	case err != nil:
		return fault.Refuse("cannot open %s: %w", path, err)
	case sameFile(&src.stat, &to):
		return fault.Refuse("cannot copy %s onto itself", path)
	case kind == unix.S_IFBLK:
		err = checkDevice(&src.stat, path, units.Bytes(src.Size()))
	case kind == unix.S_IFREG:
		if err = checkBelow(&src.stat, &to, path); err == nil {
			err = checkRoom(ctx, src, filepath.Dir(path), units.Bytes(to.Blocks)*units.Sector)
		}
	default:
		err = fault.Refuse("cannot copy to %s: it is neither a block device nor a regular file", path)
	}
	if err != nil {
		return err
	}
	return checkUsers(ctx, r, path, 0)
}

// checkNew checks the place of a file that is not there.
func checkNew(ctx context.Context, r run.Runner, src *source, path string) error {
	if _, err := os.Lstat(path); err == nil {
		return fault.Hint(fault.Refuse("cannot create %s: it is a link that leads nowhere", path), "if nobody needs it: %s", run.Quote("rm", "--", path))
	}
	var dir, left unix.Stat_t
	at := filepath.Dir(path)
	if err := unix.Stat(at, &dir); err != nil {
		return fault.Refuse("cannot create %s: %w", path, err)
	}
	if holdsDevices(&dir) {
		return fault.Hint(fault.Refuse("cannot find the device %s", path), "lsblk shows all block devices; for a file, name a directory that is on a disk")
	}
	if err := checkBelow(&src.stat, &dir, path); err != nil {
		return err
	}
	if err := unix.Faccessat(unix.AT_FDCWD, at, unix.W_OK|unix.X_OK, unix.AT_EACCESS); err != nil {
		return fault.Refuse("cannot create %s: %w", path, err)
	}
	if unix.Lstat(partial(path), &left) == nil {
		if err := checkUsers(ctx, r, partial(path), 0); err != nil {
			return err
		}
	}
	return checkRoom(ctx, src, at, units.Bytes(left.Blocks)*units.Sector)
}

// checkRoom refuses a copy that does not fit the file system of dir, where its file
// takes so many bytes already.
func checkRoom(ctx context.Context, src *source, dir string, has units.Bytes) error {
	data, err := src.Data()
	if err == nil {
		err = host.NeedSpace(ctx, dir, units.Bytes(data.Bytes())-has)
	}
	return fault.With(fault.Refused, err)
}

// holdsDevices says whether a directory is on the file system of the device nodes,
// which lies in memory.
func holdsDevices(dir *unix.Stat_t) bool {
	var dev, root unix.Stat_t
	return unix.Stat("/dev", &dev) == nil && unix.Stat("/", &root) == nil && dir.Dev == dev.Dev && dev.Dev != root.Dev
}

// checkBelow refuses a file on a file system that lies on the source: writing
// the one changes the other.
func checkBelow(from, to *unix.Stat_t, path string) error {
	if isBlock(from) && (blkdev.Device{Number: blkdev.NumberOf(to.Dev)}).DependsOn(blkdev.NumberOf(from.Rdev)) {
		return fault.Refuse("cannot copy to %s: its file system lies on the source", path)
	}
	return nil
}

// checkDevice refuses a device that is mounted or built on, read-only, too small,
// made of what the source lies on, or what that is made of.
func checkDevice(from *unix.Stat_t, path string, size units.Bytes) error {
	dev, err := blkdev.Stat(path)
	if err != nil {
		return err
	}
	holder := blkdev.Device{Number: blkdev.NumberOf(from.Dev)}
	sector := int(units.Sector)
	if isBlock(from) {
		holder.Number = blkdev.NumberOf(from.Rdev)
		if source, err := blkdev.Stat("/dev/block/" + holder.Number.String()); err == nil {
			sector = source.SectorSize
		}
	}
	switch {
	case dev.DependsOn(holder.Number):
		return fault.Hint(fault.Refuse("cannot copy to %s: it is, or lies on, the device %s that holds the source: to write there may change the source", path, holder.Number),
			"if it is a loop device of another file: detach it, and name the file")
	case holder.DependsOn(dev.Number):
		return fault.Refuse("cannot copy to %s: the device %s that holds the source is built on it", path, holder.Number)
	case dev.ReadOnly():
		return fault.Hint(fault.Refuse("cannot copy to %s: it is read-only", path), "if it is a volume: lvchange --permission rw; else: %s", run.Quote("blockdev", "--setrw", path))
	case dev.Size < size:
		return fault.Hint(fault.Refuse("cannot copy to %s: the source is %d bytes, the device only %d", path, size, dev.Size), "if it is a volume: lvextend --size %db %s", size, run.Quote(path))
	case dev.SectorSize != sector:
		return fault.Hint(fault.Refuse("cannot copy to %s: its sectors are %d bytes, those of the source %d: %s", path, dev.SectorSize, sector, convert.OtherSectors),
			"choose a device with sectors of %d bytes: lsblk --output NAME,SIZE,LOG-SEC", sector)
	}
	return dev.Idle()
}

// checkUsers refuses a destination that a domain or the holder of a loop device
// has, or, if it is of device-mapper, anybody else; ours is how often we have it
// open.
func checkUsers(ctx context.Context, r run.Runner, path string, ours int) error {
	uses, err := domainDisks(ctx, r)
	if err != nil {
		return err
	}
	for _, u := range uses {
		if convert.HasDisk(u.Disk, path) {
			return fault.Hint(fault.Refuse("cannot copy to %s: domain %s has it as its disk %s", path, u.Domain.Name, u.Disk.VDev),
				"choose another destination; or, if that is the copy's place: domuswitch stop %s", run.Quote(u.Domain.Name))
		}
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return fault.Refuse("cannot open %s: %w", path, err)
	}
	loops, err := attached(&st)
	if err != nil {
		return err
	}
	if len(loops) > 0 {
		return detach(fault.Refuse("cannot copy to %s: it is attached to %s", path, loops[0].Path), loops[0])
	}
	if !isBlock(&st) {
		return nil
	}
	dev, err := blkdev.Stat(path)
	if err != nil {
		return err
	}
	return dm.Unopened(dev, "write to", ours)
}

// detach hints at how to get rid of a loop device.
func detach(err error, l *loopdev.Device) error {
	return fault.Hint(err, "if nobody needs it (lsblk and xl list tell): %s", run.Quote("losetup", "--detach", l.Path))
}

// domainDisks are the disks of all domains; none where there is no Xen.
func domainDisks(ctx context.Context, r run.Runner) ([]xl.Use, error) {
	if run.Missing("xl") != nil {
		return nil, nil
	}
	uses, err := xl.Uses(ctx, r)
	if err != nil {
		// Its tools may be there while another kernel was booted.
		if hypervisor, _ := os.ReadFile("/sys/hypervisor/type"); strings.TrimSpace(string(hypervisor)) != "xen" {
			err = nil
		}
	}
	return uses, fault.With(fault.Refused, err)
}

// attached are the loop devices of a file.
func attached(st *unix.Stat_t) ([]*loopdev.Device, error) {
	return loopdev.List(func(d loopdev.Device) bool { return d.Dev == blkdev.NumberOf(st.Dev) && d.Ino == st.Ino })
}

func isBlock(st *unix.Stat_t) bool { return st.Mode&unix.S_IFMT == unix.S_IFBLK }

// sameFile says whether both are one file, or nodes of one block device.
func sameFile(a, b *unix.Stat_t) bool {
	return a.Dev == b.Dev && a.Ino == b.Ino || isBlock(a) && isBlock(b) && a.Rdev == b.Rdev
}
