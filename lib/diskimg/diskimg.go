// Package diskimg reads disk images: it tells what a file or block device
// holds, refuses what cannot be read with certainty, and opens the rest as a
// stream of bytes with a map of its holes. It never writes, and needs neither
// root nor another program.
//
// A guest chooses every byte of its disk, so a format is never guessed: the
// configuration says raw or qcow2, and an image that looks like something else
// is refused. Otherwise a guest could write a qcow2 header naming a host file
// into its raw disk and be given that file at the next copy.
package diskimg

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"xenlvm/lib/fault"
)

// Format of an image. Only Raw and Qcow2 can be opened, the others are known
// to be named.
type Format string

// The formats, in the spelling of qemu-img.
const (
	Raw   Format = "raw"
	Qcow2 Format = "qcow2"
	Qcow  Format = "qcow"
	QED   Format = "qed"
	VMDK  Format = "vmdk"
	VHD   Format = "vhd"
	VHDX  Format = "vhdx"
	VDI   Format = "vdi"
)

// Kind is what the bytes of the disk are.
type Kind string

// The kinds of content.
const (
	Unknown    Kind = "unknown"         // nothing that is recognised
	Blank      Kind = "blank"           // only zeros in the first and last MiB and in samples between
	Filesystem Kind = "filesystem"      // and other whole-disk uses: swap, LUKS, LVM, md
	Table      Kind = "partition table" // see Info.Table
)

// Info is what Probe saw.
type Info struct {
	Path   string
	Format Format // by its magic, Raw if there is none
	// Packed is the program that packed a file that is Raw, by its first bytes, ""
	// for none. A guest may have such bytes on its disk.
	Packed string
	// FileSize is the length of the file or device, Size that of the disk in
	// it, both in bytes. Size is 0 if the format cannot be opened.
	FileSize, Size int64
	Kind           Kind
	Signature      *Signature      // for Kind Filesystem
	Table          *PartitionTable // for Kind Table
	// Also names a partition table seen beside the filesystem that Kind
	// reports: one of them is stale, and only the guest knows which.
	Also string
	// Unreadable is why an image of this format, or this image, cannot be
	// opened; nil if it can.
	Unreadable error
}

// Probe tells what the image file or block device at path is. An image that
// can be named but not opened is no error: see Info.Unreadable.
func Probe(path string) (Info, error) {
	f, err := open(path)
	if err != nil {
		return Info{}, err
	}
	defer f.Close()
	return ProbeFile(f)
}

// ProbeFile is Probe for an open file; its name is used in errors.
func ProbeFile(f *os.File) (Info, error) {
	size, err := check(f)
	if err != nil {
		return Info{}, fmt.Errorf("cannot read %s: %w", f.Name(), fault.Reason(err))
	}
	info := Info{Path: f.Name(), FileSize: size, Kind: Unknown}
	if info.Format, err = Magic(f, size); err != nil {
		return Info{}, fmt.Errorf("cannot read %s: %w", f.Name(), fault.Reason(err))
	}
	var disk io.ReaderAt = f
	switch info.Format {
	case Raw:
		info.Size = size
		if info.Packed, err = packer(f); err != nil {
			return Info{}, fmt.Errorf("cannot read %s: %w", f.Name(), fault.Reason(err))
		}
		if size%sector != 0 && info.Packed == "" {
			return Info{}, fmt.Errorf("cannot read %s: its size %d is not a multiple of %d bytes", f.Name(), size, sector)
		}
	case Qcow2:
		q, err := openQcow2(f, size)
		if err != nil {
			info.Unreadable = fmt.Errorf("cannot read %s: %w", f.Name(), fault.Reason(err))
			return info, nil
		}
		disk, info.Size = q, q.Size()
	default:
		info.Unreadable = fmt.Errorf("cannot read %s: it is a %s image (convert it first: qemu-img convert -O raw)", f.Name(), info.Format)
		return info, nil
	}
	if err := info.content(disk); err != nil {
		return Info{}, fmt.Errorf("cannot read %s: %w", f.Name(), fault.Reason(err))
	}
	return info, nil
}

// CheckFormat refuses an image whose bytes contradict the configured format
// ("raw" or "qcow2"), and one that cannot be opened.
func CheckFormat(info Info, configured string) error {
	want := Format(configured)
	if want != Raw && want != Qcow2 {
		return fmt.Errorf("cannot read %s: format %q is not supported, only raw and qcow2", info.Path, configured)
	}
	if info.Format == want {
		return info.Unreadable
	}
	if want == Raw {
		return fmt.Errorf("cannot read %s: it is configured as raw but has a %s header, which the guest itself may have written", info.Path, info.Format)
	}
	return fmt.Errorf("cannot read %s: it is configured as qcow2 but is %s", info.Path, info.Format)
}

// sector is the unit of disk sizes, in bytes.
const sector = 512

// open opens path for reading. Nothing that path may be makes it block.
func open(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot open %s: %w", path, fault.Reason(err))
	}
	return f, nil
}

// check is the size in bytes of f, which must be a file or block device and
// not empty.
func check(f *os.File) (int64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	size := st.Size()
	switch m := st.Mode(); {
	case m.IsRegular():
	case m.Type() == fs.ModeDevice:
		if size, err = f.Seek(0, io.SeekEnd); err != nil {
			return 0, err
		}
	case m.IsDir():
		return 0, errors.New("it is a directory")
	case m.Type() == fs.ModeNamedPipe:
		return 0, errors.New("it is a FIFO")
	default:
		return 0, errors.New("it is neither a file nor a block device")
	}
	if size == 0 {
		return 0, errors.New("it is empty")
	}
	return size, nil
}

// readAt reads up to n bytes at off; less at the end of the disk, none beyond.
func readAt(r io.ReaderAt, off int64, n int) ([]byte, error) {
	b := make([]byte, n)
	got, err := r.ReadAt(b, off)
	if err == io.EOF {
		err = nil
	}
	return b[:got], err
}
