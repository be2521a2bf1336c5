package blkdev

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"

	"xenlvm/lib/fault"
	"xenlvm/lib/run"
)

// Idle says whether nothing uses the device; the error says who does: a mount,
// swap, a device built on it, or somebody who holds it open for himself. A
// guest's backend does not, so ask for its open count as well.
func (d Device) Idle() error {
	mounts, err := d.mounts()
	if err != nil {
		return err
	}
	if len(mounts) > 0 {
		return d.mounted(mounts[0], "cannot write to %s: it is mounted on %s")
	}
	return d.unclaimed("write to")
}

// Quiet says whether nothing that Idle sees can write to the device, as a copy of
// it wants. Mounts that are read-only can not: the boolean says that there are some.
func (d Device) Quiet() (mounted bool, err error) {
	mounts, err := d.mounts()
	if err != nil {
		return false, err
	}
	for _, m := range mounts {
		if _, frozen := m.SuperOptions["ro"]; !frozen {
			return false, d.mounted(m, "cannot copy %s: it is mounted on %s, and may be written to")
		}
	}
	if len(mounts) > 0 {
		return true, nil // whose claim keeps others away
	}
	return false, d.unclaimed("copy")
}

func (d Device) mounts() ([]*procfs.MountInfo, error) {
	all, err := procfs.GetMounts()
	if err != nil {
		return nil, fmt.Errorf("cannot read the mounts: %w", err)
	}
	return slices.DeleteFunc(all, func(m *procfs.MountInfo) bool { return m.MajorMinorVer != d.Number.String() }), nil
}

func (d Device) mounted(m *procfs.MountInfo, format string) error {
	return fault.Hint(fault.Refuse(format, d.Path, m.MountPoint), "%s", run.Quote("umount", m.MountPoint))
}

// unclaimed refuses to do something with a device that something other than a
// mount claims.
func (d Device) unclaimed(do string) error {
	if swap, err := d.isSwap(); err != nil || swap {
		if err == nil {
			err = fault.Hint(fault.Refuse("cannot %s %s: it is in use as swap", do, d.Path), "%s", run.Quote("swapoff", d.Path))
		}
		return err
	}
	look := run.Quote("lsblk", d.Path)
	if h := d.Holders(); len(h) > 0 {
		return fault.Hint(fault.Refuse("cannot %s %s: %s is built on it", do, d.Path, strings.Join(h, ", ")), "%s shows what to stop or deactivate", look)
	}
	f, err := OpenExclusive(d.Path, os.O_RDONLY)
	if errors.Is(err, unix.EBUSY) {
		err = fault.Hint(fault.Refuse("cannot %s %s: it is in use", do, d.Path), "%s shows whether a partition of it is mounted; another run may have it, too", look)
	}
	if err != nil {
		return err
	}
	return f.Close()
}

func (d Device) isSwap() (bool, error) {
	fs, err := procfs.NewDefaultFS()
	if err != nil {
		return false, fmt.Errorf("cannot read the swaps: %w", err)
	}
	swaps, err := fs.Swaps()
	if err != nil {
		return false, fmt.Errorf("cannot read the swaps: %w", err)
	}
	for _, s := range swaps {
		var st unix.Stat_t
		if unix.Stat(s.Filename, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFBLK && NumberOf(st.Rdev) == d.Number {
			return true, nil
		}
	}
	return false, nil
}

// OpenExclusive opens a block device so that nobody else can mount it, build on
// it or open it in the same way: it is the lock of a device. It refuses a path
// that is no block device.
func OpenExclusive(path string, flag int) (*os.File, error) {
	f, err := os.OpenFile(path, flag|unix.O_EXCL|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.EBUSY) {
		return nil, fault.Refuse("cannot open %s for ourselves alone: it is in use: %w", path, unix.EBUSY)
	}
	if err != nil {
		return nil, fault.Refuse("cannot open %s: %w", path, fault.Reason(err))
	}
	info, err := f.Stat()
	if err == nil && info.Mode()&os.ModeType != os.ModeDevice {
		err = fault.Refuse("cannot use %s: it is not a block device", path)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// OpenElsewhere says whether another program has a file open, which is open for reading
// here: then the kernel grants no lease. A file system without leases, such as NFS,
// cannot tell.
func OpenElsewhere(f *os.File) bool {
	_, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_WRLCK)
	if err == nil { // not kept, or our own next open would wait for us to give it back
		_, _ = unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_UNLCK)
	}
	return errors.Is(err, unix.EAGAIN)
}
