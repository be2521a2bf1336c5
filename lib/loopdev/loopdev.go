// Package loopdev attaches image files to loop devices and finds them again.
//
// A loop device is known by the file behind it (device and inode), never by its
// number: numbers are given again as soon as they are free. u-root's loop
// package attaches read-write and in two steps; a source must never be writable
// (mounting it would replay its journal), so LOOP_CONFIGURE does it in one.
package loopdev

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/u-root/u-root/pkg/mount/loop"
	"golang.org/x/sys/unix"

	"xenlvm/lib/blkdev"
	"xenlvm/lib/fault"
)

// Options of Attach.
type Options struct {
	ReadOnly bool
	Direct   bool   // direct I/O on the file, where its file system can
	Label    string // tells ours from others' of the same file; at most 63 bytes. Empty: the file's name
}

// Device is an attached loop device.
type Device struct {
	Path string // /dev/loop7
	File string // the file behind it, as the kernel names it
	Dev  blkdev.Number
	Ino  uint64

	Label    string // as Attach was given it
	ReadOnly bool   // nobody writes to the file through it
}

// tries bounds how often another process may take the free device first.
const tries = 64

// Attach attaches file to a free loop device.
func Attach(ctx context.Context, file string, o Options) (*Device, error) {
	d, err := attach(ctx, file, o)
	if err != nil {
		return nil, fmt.Errorf("cannot attach %s to a loop device: %w", file, fault.Reason(err))
	}
	return d, nil
}

func attach(ctx context.Context, file string, o Options) (*Device, error) {
	mode, flags := os.O_RDWR, uint32(0)
	if o.ReadOnly {
		mode, flags = os.O_RDONLY, unix.LO_FLAGS_READ_ONLY
	}
	if o.Direct {
		flags |= unix.LO_FLAGS_DIRECT_IO
	}
	back, err := os.OpenFile(file, mode|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer back.Close()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	for range tries {
		n, err := loop.GetFree(int(control.Fd()))
		if err != nil {
			return nil, err
		}
		path := fmt.Sprintf("/dev/loop%d", n)
		err = configure(path, back, flags, cmp.Or(o.Label, back.Name()))
		if err == nil {
			return status(path)
		}
		// EBUSY: somebody else was faster. ENOENT, ENXIO: udev is still making
		// the node. EAGAIN: udev or blkid looks at it.
		if !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENXIO) {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil, errors.New("no loop device became free")
}

func configure(path string, back *os.File, flags uint32, label string) error {
	dev, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer dev.Close()
	config := unix.LoopConfig{Fd: uint32(back.Fd()), Info: unix.LoopInfo64{Flags: flags}}
	copy(config.Info.File_name[:len(config.Info.File_name)-1], label)
	return unix.IoctlLoopConfigure(int(dev.Fd()), &config)
}

// status reads what is attached to path; ENXIO when nothing is.
func status(path string) (*Device, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := unix.IoctlLoopGetStatus64(int(f.Fd()))
	if err != nil {
		return nil, err
	}
	d := &Device{Path: path, Dev: blkdev.NumberOf(info.Device), Ino: info.Inode, Label: unix.ByteSliceToString(info.File_name[:]), ReadOnly: info.Flags&unix.LO_FLAGS_READ_ONLY != 0}
	if b, err := os.ReadFile("/sys/block/" + filepath.Base(path) + "/loop/backing_file"); err == nil {
		d.File = strings.TrimSuffix(string(b), "\n")
	}
	return d, nil
}

// List is all attached loop devices that match.
func List(match func(Device) bool) ([]*Device, error) {
	paths, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return nil, err
	}
	var found []*Device
	for _, p := range paths {
		name := strings.Split(p, "/")[3]
		if _, err := strconv.Atoi(strings.TrimPrefix(name, "loop")); err != nil {
			continue
		}
		d, err := status("/dev/" + name)
		if err == nil && match(*d) {
			found = append(found, d)
		}
	}
	return found, nil
}

// IsOf says whether the file behind d is what path leads to.
func (d *Device) IsOf(path string) bool {
	var st unix.Stat_t
	return unix.Stat(path, &st) == nil && d.of(st)
}

func (d *Device) of(st unix.Stat_t) bool { return d.Dev == blkdev.NumberOf(st.Dev) && d.Ino == st.Ino }

// Same are the numbers of the block devices whose bytes are those of path: the
// loop devices of a file, or the block device itself.
func Same(path string) ([]blkdev.Number, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return nil, fmt.Errorf("cannot look for the devices of %s: %w", path, err)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFBLK {
		return []blkdev.Number{blkdev.NumberOf(st.Rdev)}, nil
	}
	loops, err := List(func(d Device) bool { return d.of(st) })
	if err != nil {
		return nil, err
	}
	var numbers []blkdev.Number
	for _, d := range loops {
		if dev, err := blkdev.Stat(d.Path); err == nil { // it may be gone by now
			numbers = append(numbers, dev.Number)
		}
	}
	return numbers, nil
}

// LeadsTo says whether dev is the block device at path, a loop device of the file
// there, or is built on either.
func LeadsTo(dev blkdev.Device, path string) bool {
	same, err := Same(path)
	return err == nil && slices.ContainsFunc(same, dev.DependsOn)
}

// Below are the loop devices that dev is, or is built on, and not those below their
// files.
func Below(dev blkdev.Device) ([]*Device, error) {
	layers := dev.Layers()
	return List(func(d Device) bool {
		loop, err := blkdev.Stat(d.Path)
		return err == nil && slices.Contains(layers, loop.Number)
	})
}

// detachLimit is how long Detach waits for others to close the device: the
// kernel detaches lazily, when the last of them does.
const detachLimit = 30 * time.Second

// Detach detaches d, if the same file is still behind it, and waits until it is
// gone. A device that is detached already is no error.
func (d *Device) Detach(ctx context.Context) error {
	for began := time.Now(); ; {
		now, err := status(d.Path)
		if errors.Is(err, unix.ENXIO) || errors.Is(err, unix.ENOENT) || err == nil && (now.Dev != d.Dev || now.Ino != d.Ino) {
			return nil
		}
		if err == nil {
			err = d.clear()
		}
		if err != nil && !errors.Is(err, unix.ENXIO) && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("cannot detach %s from %s: %w", d.File, d.Path, err)
		}
		if time.Since(began) > detachLimit {
			return fmt.Errorf("cannot detach %s from %s: it is still in use after %s", d.File, d.Path, detachLimit)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// DetachLater has the kernel detach d as soon as nobody has it open any more.
func (d *Device) DetachLater() error {
	if err := d.clear(); err != nil && !errors.Is(err, unix.ENXIO) {
		return fmt.Errorf("cannot detach %s from %s: %w", d.File, d.Path, err)
	}
	return nil
}

func (d *Device) clear() error {
	f, err := os.Open(d.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	return loop.ClearFD(int(f.Fd()))
}
