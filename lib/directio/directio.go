// Package directio reads and writes past the page cache: what is copied once
// would push everything else out of a dom0's small memory, and what is verified
// must come from the device.
package directio

import (
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Align is what offsets, lengths and buffers must be multiples of, in bytes: it
// suits every sector size in use.
const Align = 4096

// Reopen opens f's own inode again with O_DIRECT and flag (os.O_RDONLY, …); nil
// if that is not to be had. The name in /proc leads to that inode even when the
// path does not any more. A file system may still answer EINVAL to a request
// that does not suit it.
func Reopen(f *os.File, flag int) *os.File {
	fd, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), flag|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	runtime.KeepAlive(f)
	if err != nil {
		return nil
	}
	return os.NewFile(uintptr(fd), f.Name()) // the name that its errors say
}

// Buffer is n aligned bytes.
func Buffer(n int) []byte {
	b := make([]byte, n+Align)
	skip := int(-uintptr(unsafe.Pointer(&b[0])) % Align)
	return b[skip : skip+n : skip+n]
}

// Forget makes the kernel forget what it holds of f in memory, as far as it can,
// so that the next reads come from the device. What others wrote by way of another
// device, such as one of device-mapper's below or above it, is not seen before.
func Forget(f *os.File) error {
	if err := f.Sync(); err != nil {
		return err
	}
	_ = unix.IoctlSetInt(int(f.Fd()), unix.BLKFLSBUF, 0) // block devices only
	return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
}
