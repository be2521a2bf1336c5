package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"xenlvm/lib/blkdev"
	"xenlvm/lib/diskimg"
	"xenlvm/lib/dm"
	"xenlvm/lib/fault"
	"xenlvm/lib/host"
	"xenlvm/lib/loopdev"
	"xenlvm/lib/run"
	"xenlvm/lib/units"
	"xenlvm/lib/xl"
)

// check refuses a source that somebody may write to meanwhile, and a destination
// that must not be written to. It changes nothing.
func check(ctx context.Context, r run.Runner, src diskimg.Source, source, path string) error {
	var from, to unix.Stat_t
	if err := unix.Stat(source, &from); err != nil {
		return fault.Refuse("cannot open %s: %w", source, err)
	}
	uses, err := domainDisks(ctx, r)
	if err != nil {
		return err
	}
	if err := checkSource(uses, &from, source); err != nil {
		return err
	}
	err = unix.Stat(path, &to)
	switch kind := to.Mode & unix.S_IFMT; {
	case errors.Is(err, unix.ENOENT):
		return checkNew(ctx, src, &from, path)
	case err != nil:
		return fault.Refuse("cannot open %s: %w", path, err)
	case sameFile(&from, &to):
		return fault.Refuse("cannot copy %s onto itself", source)
	case kind != unix.S_IFBLK && kind != unix.S_IFREG:
		return fault.Refuse("cannot copy to %s: it is neither a block device nor a regular file", path)
	}
	for _, u := range uses {
		if isDisk(u.Disk, &to) {
			return fault.Refuse("cannot copy to %s: domain %s has it as its disk %s", path, u.Domain.Name, u.Disk.VDev)
		}
	}
	if isBlock(&to) {
		return checkDevice(&from, path, src.Size())
	}
	return checkFile(&from, &to, path)
}

// checkSource refuses a source that a domain, the holder of a loop device or any
// other program may write to.
func checkSource(uses []xl.Use, from *unix.Stat_t, source string) error {
	for _, u := range uses {
		if !u.Disk.CDROM && isDisk(u.Disk, from) {
			return fault.Hint(fault.Refuse("cannot copy %s: domain %s has it as its disk %s, and may write to it", source, u.Domain.Name, u.Disk.VDev),
				"domuswitch stop %[1]s; or, while it runs: imgconv --snapshot %[1]s", run.Quote(u.Domain.Name))
		}
	}
	loops, err := attached(from)
	if err != nil {
		return err
	}
	for _, l := range loops {
		if !l.ReadOnly {
			return fault.Hint(fault.Refuse("cannot copy %s: it is attached to %s, through which somebody may write to it", source, l.Path), "losetup --list; xl list")
		}
	}
	if isBlock(from) {
		return nil
	}
	f, err := os.Open(source)
	if err != nil {
		return fault.Refuse("cannot open %s: %w", source, err)
	}
	defer f.Close()
	return checkWriters(f, unix.F_RDLCK, "cannot copy "+source)
}

// checkNew checks the place of a file that is not there.
func checkNew(ctx context.Context, src diskimg.Source, from *unix.Stat_t, path string) error {
	if strings.HasPrefix(filepath.Clean(path), "/dev/") && !strings.HasPrefix(filepath.Clean(path), "/dev/shm/") {
		return fault.Refuse("cannot find the device %s", path)
	}
	if _, err := os.Lstat(path); err == nil {
		return fault.Refuse("cannot create %s: it is a link that leads nowhere", path)
	}
	var dir, left unix.Stat_t
	if err := unix.Stat(filepath.Dir(path), &dir); err != nil {
		return fault.Refuse("cannot create %s: %w", path, err)
	}
	if err := checkBelow(from, &dir, path); err != nil {
		return err
	}
	data, err := src.Data()
	if err != nil {
		return fault.With(fault.Refused, err)
	}
	need := units.Bytes(data.Bytes())
	if unix.Lstat(partial(path), &left) == nil {
		need -= units.Bytes(left.Blocks) * units.Sector // which are used again
	}
	return fault.With(fault.Refused, host.NeedSpace(ctx, filepath.Dir(path), need))
}

// checkFile refuses a file that is behind a loop device: perhaps a domain's
// disk, perhaps the source itself.
func checkFile(from, to *unix.Stat_t, path string) error {
	loops, err := attached(to)
	if err != nil {
		return err
	}
	if len(loops) > 0 {
		return fault.Hint(fault.Refuse("cannot copy to %s: it is attached to %s", path, loops[0].Path), "losetup --list; xl list")
	}
	return checkBelow(from, to, path)
}

// checkBelow refuses a file on a file system that lies on the source: writing
// the one changes the other.
func checkBelow(from, to *unix.Stat_t, path string) error {
	if isBlock(from) && (blkdev.Device{Number: blkdev.NumberOf(to.Dev)}).DependsOn(blkdev.NumberOf(from.Rdev)) {
		return fault.Refuse("cannot copy to %s: its file system lies on the source", path)
	}
	return nil
}

// checkDevice refuses a device that is in use, too small, made of the source, or
// what the source is made of.
func checkDevice(from *unix.Stat_t, path string, size int64) error {
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
		return fault.Refuse("cannot copy to %s: it is, or is built on, the device %s that holds the source", path, holder.Number)
	case holder.DependsOn(dev.Number):
		return fault.Refuse("cannot copy to %s: the device %s that holds the source is built on it", path, holder.Number)
	case dev.Size < units.Bytes(size):
		return fault.Refuse("cannot copy to %s: the source is %d bytes, the device only %d", path, size, dev.Size)
	case dev.SectorSize != sector:
		return fault.Refuse("cannot copy to %s: its sectors are %d bytes, those of the source %d: nothing in it could be read", path, dev.SectorSize, sector)
	}
	if err := dev.Idle(); err != nil {
		return err
	}
	// A program that opened it in the common way, such as QEMU, holds no claim
	// that Idle could see.
	if open, err := dm.OpenCount(dev.Number); err == nil && open > 0 {
		return fault.Hint(fault.Refuse("cannot copy to %s: somebody has it open, perhaps a running domain", path), "xl list; dmsetup info %s", path)
	}
	return nil
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

// isDisk says whether a domain's disk is the file or block device st. A file that
// the kernel serves has a loop device: attached finds it.
func isDisk(d xl.Disk, st *unix.Stat_t) bool {
	if d.HasDevice {
		return isBlock(st) && blkdev.NumberOf(st.Rdev) == blkdev.Number{Major: d.Major, Minor: d.Minor}
	}
	var disk unix.Stat_t
	return unix.Stat(d.Path, &disk) == nil && sameFile(st, &disk)
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
