// Package blkdev asks the kernel about block devices: how large, in use by
// whom, built on what. It changes nothing.
//
// Devices are known by their number (major:minor), never by a name: a name in
// /dev can be a link, and the same device has several.
package blkdev

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/u-root/u-root/pkg/mount/block"
	"golang.org/x/sys/unix"

	"xenlvm/lib/fault"
	"xenlvm/lib/units"
)

// Number is the number of a device.
type Number struct{ Major, Minor uint32 }

func (n Number) String() string { return fmt.Sprintf("%d:%d", n.Major, n.Minor) }

// NumberOf makes a Number of st_dev or st_rdev.
func NumberOf(dev uint64) Number { return Number{unix.Major(dev), unix.Minor(dev)} }

// ErrNotCounted means that nobody knows whether a device was written to.
var ErrNotCounted = errors.New("the kernel does not count its writes")

// Device is a block device.
type Device struct {
	Path       string // as the user named it
	Node       string // the name that is no link: /dev/dm-3
	Number     Number
	Size       units.Bytes
	SectorSize int // logical, bytes
}

// Stat looks at the block device that path names. The error is a refusal.
func Stat(path string) (Device, error) {
	node, err := filepath.EvalSymlinks(path)
	if err != nil {
		return Device{}, fault.Refuse("cannot use %s: %w", path, fault.Reason(err))
	}
	var st unix.Stat_t
	if err := unix.Stat(node, &st); err != nil {
		return Device{}, fault.Refuse("cannot use %s: %w", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return Device{}, fault.Refuse("cannot use %s: it is not a block device", path)
	}
	d := Device{Path: path, Node: node, Number: NumberOf(st.Rdev)}
	// u-root finds a device by the last element of its path, so it must get
	// the name that sysfs has.
	b, err := block.Device(d.kernelName())
	if err != nil {
		return Device{}, fault.Refuse("cannot use %s: %w", path, err)
	}
	size, err := b.Size()
	if err != nil {
		return Device{}, fault.Refuse("cannot read the size of %s: %w", path, err)
	}
	d.Size = units.Bytes(size)
	if d.SectorSize, err = b.BlockSize(); err != nil {
		return Device{}, fault.Refuse("cannot read the sector size of %s: %w", path, err)
	}
	return d, nil
}

// SameFile says whether two paths lead to one file, or to one block device.
func SameFile(a, b string) bool {
	var x, y unix.Stat_t
	if unix.Stat(a, &x) != nil || unix.Stat(b, &y) != nil {
		return false
	}
	if x.Mode&unix.S_IFMT == unix.S_IFBLK && y.Mode&unix.S_IFMT == unix.S_IFBLK {
		return x.Rdev == y.Rdev
	}
	return x.Dev == y.Dev && x.Ino == y.Ino
}

// sysfs is the device's directory in sysfs.
func (d Device) sysfs() string { return "/sys/dev/block/" + d.Number.String() }

// kernelName is the device's name in sysfs: dm-3.
func (d Device) kernelName() string {
	real, err := filepath.EvalSymlinks(d.sysfs())
	if err != nil {
		return filepath.Base(d.Node)
	}
	return filepath.Base(real)
}

// Holders are the kernel names of the devices built on d: a snapshot on its
// origin, an array on its member.
func (d Device) Holders() []string { return names(d.sysfs() + "/holders") }

// Written is how many sectors of d were written or discarded since it exists in
// this boot: fields 7 and 14 of its stat in sysfs (kernel documentation
// block/stat). The error is ErrNotCounted when the kernel was told not to count.
// Device-mapper of Linux 6.1 counts by itself, whatever its queue says.
func (d Device) Written() (int64, error) {
	_, err := os.Stat(d.sysfs() + "/dm")
	if b, rerr := os.ReadFile(d.sysfs() + "/queue/iostats"); err != nil && (rerr != nil || strings.TrimSpace(string(b)) != "1") {
		return 0, ErrNotCounted
	}
	b, err := os.ReadFile(d.sysfs() + "/stat")
	if err != nil {
		return 0, fmt.Errorf("cannot read the counters of %s: %w", d.Path, fault.Reason(err))
	}
	f := strings.Fields(string(b))
	if len(f) < 14 {
		return 0, ErrNotCounted // a kernel that does not tell of discards
	}
	written, err1 := strconv.ParseInt(f[6], 10, 64)
	discarded, err2 := strconv.ParseInt(f[13], 10, 64)
	return written + discarded, errors.Join(err1, err2)
}

// DiskSeq tells the device from what had its number before in this boot, and will have
// it later: the counters of each begin anew. It is 0 for a partition, and before Linux
// 5.15.
func (d Device) DiskSeq() uint64 {
	b, err := os.ReadFile(d.sysfs() + "/diskseq")
	if err != nil {
		return 0
	}
	n, _ := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
	return n
}

func names(dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	all := make([]string, len(entries))
	for i, e := range entries {
		all[i] = e.Name()
	}
	return all
}

// DependsOn says whether d is other, or is built on it by way of any number of
// device-mapper, md or loop devices.
func (d Device) DependsOn(other Number) bool {
	return dependsOn(d.Number, other, map[Number]bool{})
}

func dependsOn(n, other Number, seen map[Number]bool) bool {
	if n == other {
		return true
	}
	if seen[n] {
		return false
	}
	seen[n] = true
	below := layers(n)
	if file, err := os.ReadFile("/sys/dev/block/" + n.String() + "/loop/backing_file"); err == nil {
		var st unix.Stat_t
		if unix.Stat(strings.TrimSuffix(string(file), "\n"), &st) == nil {
			below = append(below, NumberOf(st.Dev))
		}
	}
	return slices.ContainsFunc(below, func(b Number) bool { return dependsOn(b, other, seen) })
}

// Layers are d itself and all that it is built on by way of any number of
// device-mapper and md devices and partitions, but not by way of files.
func (d Device) Layers() []Number {
	all := []Number{d.Number}
	for i := 0; i < len(all); i++ {
		for _, n := range layers(all[i]) {
			if !slices.Contains(all, n) {
				all = append(all, n)
			}
		}
	}
	return all
}

// layers are the devices that n is built on, and a partition's disk.
func layers(n Number) []Number {
	dir := "/sys/dev/block/" + n.String()
	var below []Number
	for _, slave := range names(dir + "/slaves") {
		if b, err := os.ReadFile(dir + "/slaves/" + slave + "/dev"); err == nil {
			below = append(below, parseNumber(string(b)))
		}
	}
	if _, err := os.Stat(dir + "/partition"); err == nil {
		if b, err := os.ReadFile(dir + "/../dev"); err == nil {
			below = append(below, parseNumber(string(b)))
		}
	}
	return below
}

func parseNumber(s string) Number {
	var n Number
	_, _ = fmt.Sscanf(s, "%d:%d", &n.Major, &n.Minor)
	return n
}

// ReadOnly says whether nobody can write to the device.
func (d Device) ReadOnly() bool {
	b, err := os.ReadFile(d.sysfs() + "/ro")
	return err == nil && strings.TrimSpace(string(b)) == "1"
}
