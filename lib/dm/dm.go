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
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"xenlvm/lib/blkdev"
	"xenlvm/lib/fault"
	"xenlvm/lib/run"
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
	var b buffer
	r := b.request()
	if len(name) >= len(r.Name) {
		return "", fmt.Errorf("cannot ask device-mapper for %s: the name is too long", name)
	}
	copy(r.Name[:], name)
	// Without this flag the kernel would commit a thin pool's metadata first.
	r.Flags = unix.DM_NOFLUSH_FLAG
	if err := b.ask(unix.DM_TABLE_STATUS, name); err != nil {
		return "", err
	}
	if r.Flags&full != 0 {
		return "", fmt.Errorf("cannot ask device-mapper for %s: its status is too long", name)
	}
	line, err := status(b.bytes(), r.Data_start, r.Target_count)
	if err != nil {
		return "", fmt.Errorf("cannot read the status of %s: %w", name, err)
	}
	return line, nil
}

// OpenCount is how many have the device open: mounts, devices built on it,
// programs, and the backends of domains. The error is os.ErrNotExist when it is
// no device-mapper device.
func OpenCount(n blkdev.Number) (int, error) {
	var b buffer
	b.request().Dev = unix.Mkdev(n.Major, n.Minor)
	if err := b.ask(unix.DM_DEV_STATUS, n.String()); err != nil {
		return 0, err
	}
	return int(b.request().Open_count), nil
}

// Idle is the Idle of blkdev, and sees a guest's backend as well: it holds no
// claim, but has the device open.
func Idle(d blkdev.Device) error {
	if err := d.Idle(); err != nil {
		return err
	}
	return Unopened(d, "write to", 0)
}

// Unopened refuses to do something with a device that others than we have open;
// known is how often we do, and whoever else may.
func Unopened(d blkdev.Device, do string, known int) error {
	count := func() (int, error) { return OpenCount(d.Number) }
	if settles(count, known, time.Sleep) {
		return nil
	}
	return fault.Hint(fault.Refuse("cannot %s %s: somebody has it open, perhaps a running domain", do, d.Path), "xl list; %s", run.Quote("dmsetup", "info", d.Path))
}

// settles waits until a device is open no more often than known. It takes a
// moment: when a device that was written to is closed, udev looks what is on it.
func settles(count func() (int, error), known int, sleep func(time.Duration)) bool {
	const pause, most = 50 * time.Millisecond, 2 * time.Second
	for waited := time.Duration(0); ; waited += pause {
		if n, err := count(); err != nil || n <= known {
			return true
		}
		if waited >= most {
			return false
		}
		sleep(pause)
	}
}

// buffer is what an ioctl is asked and answered in. An array of uint64 is
// aligned as the structure wants it.
type buffer [bufferOf / 8]uint64

func (b *buffer) request() *unix.DmIoctl { return (*unix.DmIoctl)(unsafe.Pointer(b)) }

func (b *buffer) bytes() []byte { return unsafe.Slice((*byte)(unsafe.Pointer(b)), bufferOf) }

// ask fills in what all requests share, and asks. Name is for messages.
func (b *buffer) ask(command uintptr, name string) error {
	f, err := os.OpenFile(control, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("cannot ask device-mapper: %w", err)
	}
	defer f.Close()
	r := b.request()
	r.Version = [3]uint32{unix.DM_VERSION_MAJOR, 0, 0}
	r.Data_size = bufferOf
	r.Data_start = uint32(unsafe.Sizeof(*r))
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), command, uintptr(unsafe.Pointer(r)))
	if errno == unix.ENXIO {
		return fmt.Errorf("cannot find device %s: %w", name, os.ErrNotExist)
	}
	if errno != 0 {
		return fmt.Errorf("cannot ask device-mapper for %s: %w", name, errno)
	}
	return nil
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
