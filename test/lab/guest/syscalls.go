package main

import (
	"math"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// fitrim is the FITRIM ioctl of linux/fs.h over the whole filesystem that fd is on; it returns the bytes discarded.
func fitrim(fd uintptr) (uint64, error) {
	const request = 0xc0185879 // _IOWR('X', 121, struct fstrim_range)
	span := struct{ start, length, minimum uint64 }{length: math.MaxUint64}
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, fd, request, uintptr(unsafe.Pointer(&span))); e != 0 {
		return 0, os.NewSyscallError("fitrim", e)
	}
	return span.length, nil
}

// swapCall is swapon(2), which x/sys does not wrap.
func swapCall(path *byte) error {
	if _, _, e := unix.Syscall(unix.SYS_SWAPON, uintptr(unsafe.Pointer(path)), 0, 0); e != 0 {
		return os.NewSyscallError("swapon", e)
	}
	return nil
}
