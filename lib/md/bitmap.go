package md

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"xenlvm/lib/units"
)

// The layout of a write-intent bitmap: linux drivers/md/md-bitmap.h, bitmap_super_s,
// little-endian. Behind its 256 bytes follows one bit for each chunk.
const (
	bitmapMagic   = 0x6d746962 // "bitm"
	bitmapVersion = 4
	bitmapHeader  = 256
	daemonSleep   = 5 // seconds between two looks for bits that can be cleared
)

// The ioctls of linux/raid/md_u.h that mdadm 4.4 no longer offers. The kernel
// keeps them while CONFIG_MD_BITMAP_FILE is on.
const (
	setBitmapFile = 0x4004092b // _IOW(MD_MAJOR, 0x2b, int)
	addNewDisk    = 0x40140921 // _IOW(MD_MAJOR, 0x21, mdu_disk_info_t)
)

// diskInfo is mdu_disk_info_t.
type diskInfo struct {
	Number, Major, Minor, RaidDisk, State int32
}

const diskSync = 1 << 2 // MD_DISK_SYNC

// ErrNoBitmapFile means that this kernel has no bitmap files.
var ErrNoBitmapFile = errors.New("the kernel has no md bitmap files")

// StartBitmap makes the array write down, from now on, which chunks of it are
// written to: in a new file at path, which must lie on a file system that the
// kernel can map (ext2/3/4, xfs) and not on the array itself. chunk is in bytes,
// a power of two. The file may be removed when the array is stopped.
func (a Array) StartBitmap(path string, chunk units.Bytes) error {
	if err := a.startBitmap(path, chunk); err != nil {
		return fmt.Errorf("cannot start a write-intent bitmap for %s in %s: %w", a.Path, path, err)
	}
	return nil
}

func (a Array) startBitmap(path string, chunk units.Bytes) error {
	// One that a killed run left does not tell of what this one copies.
	if location, err := a.read("bitmap/location"); err == nil && location != "none" {
		if err := a.StopBitmap(); err != nil {
			return err
		}
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	// Written whole, because the kernel maps its blocks once and for all.
	if _, err = f.Write(emptyBitmap(a.Size, chunk)); err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = a.open(func(fd int) error { return unix.IoctlSetInt(fd, setBitmapFile, int(f.Fd())) })
	}
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EOPNOTSUPP) {
		err = errors.Join(ErrNoBitmapFile, err)
	}
	if err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

// StopBitmap ends what StartBitmap began.
func (a Array) StopBitmap() error {
	if err := a.open(func(fd int) error { return unix.IoctlSetInt(fd, setBitmapFile, -1) }); err != nil {
		return fmt.Errorf("cannot stop the write-intent bitmap of %s: %w", a.Path, err)
	}
	return nil
}

// emptyBitmap is a bitmap of an array in which no chunk was written to.
func emptyBitmap(size, chunk units.Bytes) []byte {
	const sector = 512
	chunks := (size + chunk - 1) / chunk
	b := make([]byte, (bitmapHeader+int(chunks+7)/8+4095)/4096*4096)
	le := binary.LittleEndian
	le.PutUint32(b[0:], bitmapMagic)
	le.PutUint32(b[4:], bitmapVersion)
	le.PutUint64(b[40:], uint64(size/sector)) // sync_size
	le.PutUint32(b[52:], uint32(chunk))
	le.PutUint32(b[56:], daemonSleep)
	return b
}

// AddKnown adds a second member that was equal to the first when StartBitmap was
// called, or has been made so since: md recovers only the chunks that were
// written to meanwhile. It is what mdadm before 4.4 calls --re-add.
func (a Array) AddKnown(path string) error {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return fmt.Errorf("cannot add %s to %s: %w", path, a.Path, err)
	}
	info := diskInfo{Major: int32(unix.Major(st.Rdev)), Minor: int32(unix.Minor(st.Rdev)), Number: 1, RaidDisk: 1, State: diskSync}
	err := a.open(func(fd int) error {
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), addNewDisk, uintptr(unsafe.Pointer(&info))); errno != 0 {
			return errno
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("cannot add %s to %s: %w", path, a.Path, err)
	}
	return nil
}

// open gives use a descriptor of the array.
func (a Array) open(use func(fd int) error) error {
	f, err := os.OpenFile(a.Path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	return use(int(f.Fd()))
}
