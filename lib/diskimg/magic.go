package diskimg

import (
	"bytes"
	"encoding/binary"
	"os"
)

// Magic is the format of the image of size bytes by its first bytes, or for a VHD
// of fixed size by its last sector; Raw if it has no magic of another.
func Magic(f *os.File, size int64) (Format, error) {
	head, err := readAt(f, 0, sector)
	if err != nil {
		return "", err
	}
	at := func(off int, s string) bool {
		return len(head) >= off+len(s) && string(head[off:off+len(s)]) == s
	}
	switch {
	case at(0, "QFI\xfb"):
		if len(head) >= 8 && binary.BigEndian.Uint32(head[4:]) == 1 {
			return Qcow, nil
		}
		return Qcow2, nil
	case at(0, "QED\x00"):
		return QED, nil
	case at(0, "KDMV"), at(0, "COWD"), at(0, "# Disk DescriptorFile"):
		return VMDK, nil
	case at(0, "vhdxfile"):
		return VHDX, nil
	case at(0, "conectix"):
		return VHD, nil
	case at(0x40, "\x7f\x10\xda\xbe"):
		return VDI, nil
	}
	// The footer is 512 bytes, 511 in old ones.
	tail, err := readAt(f, max(0, size-sector), sector)
	if err != nil {
		return "", err
	}
	if bytes.HasPrefix(tail, []byte("conectix")) || len(tail) > 0 && bytes.HasPrefix(tail[1:], []byte("conectix")) {
		return VHD, nil
	}
	return Raw, nil
}

// packer is the program that packed f, by its first bytes, "" for none.
func packer(f *os.File) (string, error) {
	head, err := readAt(f, 0, 10)
	if err != nil {
		return "", err
	}
	for name, magic := range map[string]string{"gzip": "\x1f\x8b\x08", "xz": "\xfd7zXZ\x00", "zstd": "\x28\xb5\x2f\xfd"} {
		if bytes.HasPrefix(head, []byte(magic)) {
			return name, nil
		}
	}
	if bytes.HasPrefix(head, []byte("BZh")) && bytes.HasSuffix(head, []byte("1AY&SY")) {
		return "bzip2", nil
	}
	return "", nil
}
