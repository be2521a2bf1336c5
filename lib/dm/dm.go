// Package dm asks device-mapper for the status of a device.
//
// It uses the kernel's ioctl (linux/dm-ioctl.h) and not dmsetup: a snapshot is
// looked at every second while it is read, and a process each time would take
// the processor from the guests. Everything that changes a device goes through
// dmsetup and LVM.
package dm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	control  = "/dev/mapper/control"
	bufferOf = 16 << 10 // bytes: the status of a snapshot is one short line
	full     = 1 << 8   // DM_BUFFER_FULL_FLAG
)

// Status is the status of the only target of the device at /dev/mapper/NAME, in
// the words of dmsetup status: "0 2097152 snapshot 16/204800 16". The error is
// os.ErrNotExist when there is no such device.
func Status(path string) (string, error) {
	name := filepath.Base(path)
	f, err := os.OpenFile(control, os.O_RDWR, 0)
	if err != nil {
		return "", fmt.Errorf("cannot ask device-mapper: %w", err)
	}
	defer f.Close()
	// An array of uint64 is aligned as the structure wants it.
	var words [bufferOf / 8]uint64
	buf := unsafe.Slice((*byte)(unsafe.Pointer(&words)), bufferOf)
	request := (*unix.DmIoctl)(unsafe.Pointer(&words))
	request.Version = [3]uint32{unix.DM_VERSION_MAJOR, 0, 0}
	request.Data_size = bufferOf
	request.Data_start = uint32(unsafe.Sizeof(*request))
	// Without this flag the kernel would commit a thin pool's metadata first.
	request.Flags = unix.DM_NOFLUSH_FLAG
	if len(name) >= len(request.Name) {
		return "", fmt.Errorf("cannot ask device-mapper for %s: the name is too long", name)
	}
	copy(request.Name[:], name)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.DM_TABLE_STATUS, uintptr(unsafe.Pointer(request)))
	switch {
	case errno == unix.ENXIO:
		return "", fmt.Errorf("cannot find device %s: %w", name, os.ErrNotExist)
	case errno != 0:
		return "", fmt.Errorf("cannot ask device-mapper for %s: %w", name, errno)
	case request.Flags&full != 0:
		return "", fmt.Errorf("cannot ask device-mapper for %s: its status is too long", name)
	}
	line, err := status(buf, request.Data_start, request.Target_count)
	if err != nil {
		return "", fmt.Errorf("cannot read the status of %s: %w", name, err)
	}
	return line, nil
}

// status reads the one target that the kernel put into buf at start.
func status(buf []byte, start, count uint32) (string, error) {
	if count != 1 {
		return "", fmt.Errorf("it has %d targets, not one", count)
	}
	const spec = 8 + 8 + 4 + 4 + 16
	if uint64(start)+spec > uint64(len(buf)) {
		return "", errors.New("it lies outside the buffer")
	}
	b := buf[start:]
	sector, length := binary.NativeEndian.Uint64(b), binary.NativeEndian.Uint64(b[8:])
	return strings.TrimRight(fmt.Sprintf("%d %d %s %s", sector, length, text(b[24:spec]), text(b[spec:])), " "), nil
}

// text is the bytes before the first NUL.
func text(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}
