// Package mnt mounts and unmounts, and finds what is mounted where.
//
// Everything that a guest wrote is mounted with a fixed type, read-only unless
// it is our destination, and with nodev, nosuid, noexec and nosymfollow.
package mnt

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/prometheus/procfs"
	"github.com/u-root/u-root/pkg/mount"
	"golang.org/x/sys/unix"

	"xenlvm/lib/run"
)

// untrusted are the flags of every mount that we make. unix has no name for
// MS_NOSYMFOLLOW (include/uapi/linux/mount.h, Linux 5.10).
const (
	msNoSymFollow = 0x100
	untrusted     = unix.MS_NODEV | unix.MS_NOSUID | unix.MS_NOEXEC | msNoSymFollow
)

// Mount is a file system and where it is, or is to be, mounted.
type Mount struct {
	Device string
	Point  string
	Type   string
	RW     bool
	Data   string // options of the file system
}

// ReadOnly are the file system's options for a mount that must not write: no
// journal is replayed, and a doubled UUID is no obstacle. A guest could have
// written errors=panic into its ext superblock, hence errors=remount-ro.
func ReadOnly(fsType string) string {
	switch fsType {
	case "ext3", "ext4":
		return "noload,errors=remount-ro"
	case "ext2":
		return "errors=remount-ro"
	case "xfs":
		return "norecovery,nouuid"
	case "btrfs":
		return "rescue=nologreplay"
	}
	return ""
}

// Clean are the options for a read-only mount of a file system that nobody uses.
// Unlike ReadOnly they let the kernel refuse one whose journal must be replayed
// first, on a device that it cannot write to.
func Clean(fsType string) string {
	switch fsType {
	case "ext2", "ext3", "ext4":
		return "errors=remount-ro"
	case "xfs":
		return "nouuid"
	}
	return ""
}

// ReadWrite are the options for a destination: it may have the UUID of its
// source, which is mounted beside it.
func ReadWrite(fsType string) string {
	if fsType == "xfs" {
		return "nouuid"
	}
	return ""
}

// Do mounts m. The mount point is made when missing, and removed by Undo.
func (m Mount) Do() error {
	flags := uintptr(untrusted)
	if !m.RW {
		flags |= unix.MS_RDONLY
	}
	if err := os.MkdirAll(m.Point, 0o700); err != nil {
		return fmt.Errorf("cannot mount %s: %w", m.Device, err)
	}
	if _, err := mount.Mount(m.Device, m.Point, m.Type, m.Data, flags); err != nil {
		_ = os.Remove(m.Point)
		return fmt.Errorf("cannot mount %s on %s: %w", m.Device, m.Point, err)
	}
	return nil
}

// Undo unmounts m, and removes its mount point when that is empty. It never
// detaches lazily: a mount that is busy is an error.
func (m Mount) Undo() error { return Unmount(m.Point) }

// Unmount unmounts what is mounted on point and removes the empty point. Nothing
// mounted there is no error: dmeventd unmounts a snapshot that overflowed.
func Unmount(point string) error {
	if err := mount.Unmount(point, false, false); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("cannot unmount %s: %w", point, err)
	}
	_ = os.Remove(point) // somebody else's directory may not be empty
	return nil
}

// Line is the mount as a line for a shell; device replaces the device's name
// where that is only known at run time.
func (m Mount) Line(device string) string {
	options := "ro"
	if m.RW {
		options = "rw"
	}
	options += ",nodev,nosuid,noexec,nosymfollow"
	if m.Data != "" {
		options += "," + m.Data
	}
	if device == "" {
		device = run.Quote(m.Device)
	}
	return fmt.Sprintf("mkdir -p %s && mount -t %s -o %s %s %s", run.Quote(m.Point), m.Type, options, device, run.Quote(m.Point))
}

// UndoLine is Undo as a line for a shell.
func (m Mount) UndoLine() string { return run.Quote("umount", m.Point) }

// Info is one mount of this process's mount namespace.
type Info struct {
	Point  string
	Device string // major:minor
	Type   string
	Root   string // which directory of the file system is mounted
}

// List is all mounts, in the order in which they were made.
func List() ([]Info, error) {
	all, err := procfs.GetMounts()
	if err != nil {
		return nil, fmt.Errorf("cannot read the mounts: %w", err)
	}
	infos := make([]Info, len(all))
	for i, m := range all {
		infos[i] = Info{unescape(m.MountPoint), m.MajorMinorVer, m.FSType, unescape(m.Root)}
	}
	return infos, nil
}

// Of is the mount that holds the file or directory path, which must be free of
// links, and path as seen from that mount's root directory.
func Of(path string) (Info, string, error) {
	infos, err := List()
	if err != nil {
		return Info{}, "", err
	}
	best := -1
	for i, m := range infos {
		inside := m.Point == "/" || path == m.Point || strings.HasPrefix(path, m.Point+"/")
		// A later mount on the same point hides the earlier one.
		if inside && (best < 0 || len(m.Point) >= len(infos[best].Point)) {
			best = i
		}
	}
	if best < 0 {
		return Info{}, "", fmt.Errorf("cannot find the mount of %s", path)
	}
	rel, err := filepath.Rel(infos[best].Point, path)
	if err != nil {
		return Info{}, "", fmt.Errorf("cannot find the mount of %s: %w", path, err)
	}
	return infos[best], filepath.Join(infos[best].Root, rel), nil
}

// unescape undoes mountinfo's octal escapes of blanks and backslashes.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`, `\043`, "#").Replace(s)
}
