package changed

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"

	"xenlvm/lib/blkdev"
	"xenlvm/lib/fault"
)

// From linux/fs.h, which x/sys does not have.
const (
	fsIocFsgetxattr   = 0x801c581f // FS_IOC_FSGETXATTR
	fsXflagRealtime   = 0x1        // FS_XFLAG_REALTIME
	fsJournalDataFlag = 0x4000     // FS_JOURNAL_DATA_FL
)

// WithFile opens a regular file whose map counts bytes of the device.
func WithFile(path string, device blkdev.Number, do func(*os.File) error) error {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return fault.Refuse("cannot map %s: %w", path, errors.Unwrap(err))
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return fault.Refuse("cannot map %s: it is not a regular file", path)
	}
	if err := OnVolume(f, device); err != nil || do == nil {
		return err
	}
	return do(f)
}

// MapOf is the map of the file at path, counted in bytes of the device.
func MapOf(path string, device blkdev.Number) (m Map, err error) {
	err = WithFile(path, device, func(f *os.File) (err error) {
		m, err = ReadMap(f)
		return err
	})
	return m, err
}

// OnVolume refuses a file whose map does not count bytes of the device: its file
// system is not mounted from it directly, or may have its data elsewhere. The first
// byte of the file system is that of the device.
func OnVolume(f *os.File, device blkdev.Number) error {
	var st unix.Stat_t
	var sys unix.Statfs_t
	if err := errors.Join(unix.Fstat(int(f.Fd()), &st), unix.Fstatfs(int(f.Fd()), &sys)); err != nil {
		return fmt.Errorf("cannot look at %s: %w", f.Name(), err)
	}
	if on := blkdev.NumberOf(st.Dev); on != device {
		return fault.Refuse("cannot map %s: it lies on device %s, not directly on %s", f.Name(), on, device)
	}
	switch int64(sys.Type) {
	case unix.EXT4_SUPER_MAGIC: // and ext2, ext3
		return nil
	case unix.XFS_SUPER_MAGIC:
		if elsewhere, err := realtime(f); err != nil || !elsewhere {
			return err
		}
	}
	return fault.Refuse("cannot map %s: %w: its file system may have it on another device, or at other addresses", f.Name(), ErrNoMap)
}

// realtime says whether a file of xfs has its data on the other device of its file system.
func realtime(f *os.File) (bool, error) {
	var attr struct {
		xflags, extsize, nextents, projid, cowextsize uint32
		_                                             [8]byte
	}
	if err := ioctl(f, fsIocFsgetxattr, unsafe.Pointer(&attr)); err != nil {
		return false, fmt.Errorf("cannot look at %s: %w", f.Name(), err)
	}
	return attr.xflags&fsXflagRealtime != 0, nil
}

// Settle writes what is cached of a live file to its place on the volume. Where data
// go through the journal that is not to be had: they would be written there later.
// A snapshot has no such trouble: making it empties the journal.
func Settle(f *os.File, device blkdev.Number) error {
	if err := f.Sync(); err != nil {
		return fmt.Errorf("cannot map %s: %w", f.Name(), err)
	}
	journalled, err := journalled(f, device)
	if err == nil && journalled {
		err = fault.Refuse("cannot map %s: %w: it is written by way of the journal (data=journal)", f.Name(), ErrNoMap)
	}
	return err
}

func journalled(f *os.File, device blkdev.Number) (bool, error) {
	var sys unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &sys); err != nil || int64(sys.Type) != unix.EXT4_SUPER_MAGIC {
		return false, err
	}
	var flags uint32
	if err := ioctl(f, unix.FS_IOC_GETFLAGS, unsafe.Pointer(&flags)); err != nil {
		return false, fmt.Errorf("cannot look at %s: %w", f.Name(), err)
	}
	if flags&fsJournalDataFlag != 0 {
		return true, nil
	}
	// The mounts do not tell what the superblock asks for.
	disk, err := node(device.String())
	if err != nil {
		return false, err
	}
	options, err := os.ReadFile("/proc/fs/ext4/" + filepath.Base(disk) + "/options")
	if errors.Is(err, fs.ErrNotExist) {
		return false, fault.Refuse("cannot map %s: %w: its file system does not say how it journals", f.Name(), ErrNoMap)
	}
	return slices.ContainsFunc(bytes.Fields(options), func(o []byte) bool { return string(o) == "data=journal" }), err
}
