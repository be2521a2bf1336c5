package diskimg

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
)

// Signature is a filesystem or another use of a whole disk or partition, in
// the words of blkid(8).
type Signature struct {
	Type        string // ext4, xfs, btrfs, vfat, ntfs, swap, crypto_LUKS, LVM2_member, linux_raid_member, …
	Label, UUID string // "" if there is none
}

// probe looks for one kind of signature on a disk of size bytes; nil if it is
// not there.
type probe func(r io.ReaderAt, size int64) (*Signature, error)

// probes are tried in this order, as blkid does: a member of an array, a
// volume group or an encrypted disk may hold a filesystem's magic as well.
func probes() []probe {
	return []probe{mdRaid, lvm2, luks, xfs, ext, btrfs, vfat, ntfs, swap}
}

// FindSignature is the signature on a disk or partition of size bytes, nil if
// none is known. See libblkid's superblocks for the layouts.
func FindSignature(r io.ReaderAt, size int64) (*Signature, error) {
	all, err := FindSignatures(r, size)
	if len(all) == 0 {
		return nil, err
	}
	return all[0], err
}

// FindSignatures is every signature on a disk, the one that counts first: all
// but one are left from an earlier use, or the disk is not what it seems.
func FindSignatures(r io.ReaderAt, size int64) ([]*Signature, error) {
	var all []*Signature
	for _, p := range probes() {
		s, err := p(r, size)
		if err != nil {
			return nil, err
		}
		if s != nil {
			all = append(all, s)
		}
	}
	return all, nil
}

// block reads exactly n bytes at off, nil if the disk does not reach so far.
func block(r io.ReaderAt, size, off int64, n int) ([]byte, error) {
	if off < 0 || off+int64(n) > size {
		return nil, nil
	}
	b, err := readAt(r, off, n)
	if err != nil {
		return nil, err
	}
	if len(b) < n {
		return nil, io.ErrUnexpectedEOF
	}
	return b, nil
}

func xfs(r io.ReaderAt, size int64) (*Signature, error) {
	b, err := block(r, size, 0, 512)
	if b == nil || !bytes.HasPrefix(b, []byte("XFSB")) {
		return nil, err
	}
	return &Signature{"xfs", text(b[108:120]), uuid(b[32:48])}, nil
}

// The features that tell ext2, ext3 and ext4 apart (fs/ext4/ext4.h).
const (
	extHasJournal  = 0x4
	extJournalDev  = 0x8
	extIncompatOld = 0x2 | 0x4 | 0x10 // filetype, recover, meta_bg
	extROCompatOld = 0x1 | 0x2 | 0x4  // sparse_super, large_file, btree_dir
)

func ext(r io.ReaderAt, size int64) (*Signature, error) {
	b, err := block(r, size, 1024, 1024)
	if b == nil || binary.LittleEndian.Uint16(b[0x38:]) != 0xef53 {
		return nil, err
	}
	compat := binary.LittleEndian.Uint32(b[0x5c:])
	incompat := binary.LittleEndian.Uint32(b[0x60:])
	ro := binary.LittleEndian.Uint32(b[0x64:])
	s := &Signature{"ext2", text(b[0x78:0x88]), uuid(b[0x68:0x78])}
	switch {
	case incompat&extJournalDev != 0:
		s.Type = "jbd"
	case incompat&^extIncompatOld != 0 || ro&^extROCompatOld != 0:
		s.Type = "ext4"
	case compat&extHasJournal != 0:
		s.Type = "ext3"
	}
	return s, nil
}

func btrfs(r io.ReaderAt, size int64) (*Signature, error) {
	b, err := block(r, size, 0x10000, 4096)
	if b == nil || string(b[0x40:0x48]) != "_BHRfS_M" {
		return nil, err
	}
	return &Signature{"btrfs", text(b[0x12b:0x22b]), uuid(b[0x20:0x30])}, nil
}

// vfat trusts the words in the boot sector only with a plausible geometry
// beside them: they are plain text that boot code may contain.
func vfat(r io.ReaderAt, size int64) (*Signature, error) {
	b, err := block(r, size, 0, 512)
	if b == nil || b[510] != 0x55 || b[511] != 0xaa {
		return nil, err
	}
	perSector := binary.LittleEndian.Uint16(b[11:])
	if perSector < 512 || perSector > 4096 || perSector&(perSector-1) != 0 ||
		b[13] == 0 || b[13]&(b[13]-1) != 0 || binary.LittleEndian.Uint16(b[14:]) == 0 || b[16] == 0 {
		return nil, nil
	}
	at := 0
	switch {
	case string(b[0x52:0x57]) == "FAT32":
		at = 0x43
	case string(b[0x36:0x39]) == "FAT":
		at = 0x27
	default:
		return nil, nil
	}
	id := binary.LittleEndian.Uint32(b[at:])
	s := &Signature{Type: "vfat", UUID: fmt.Sprintf("%04X-%04X", id>>16, id&0xffff)}
	if label := strings.TrimRight(text(b[at+4:at+15]), " "); label != "NO NAME" {
		s.Label = label
	}
	return s, nil
}

func ntfs(r io.ReaderAt, size int64) (*Signature, error) {
	b, err := block(r, size, 0, 512)
	if b == nil || string(b[3:11]) != "NTFS    " {
		return nil, err
	}
	return &Signature{Type: "ntfs", UUID: fmt.Sprintf("%016X", binary.LittleEndian.Uint64(b[0x48:]))}, nil
}

// swap has its magic at the end of the first page of the machine that made it.
func swap(r io.ReaderAt, size int64) (*Signature, error) {
	for page := int64(4096); page <= 65536; page *= 2 {
		b, err := block(r, size, page-10, 10)
		if err != nil {
			return nil, err
		}
		if m := string(b); m != "SWAPSPACE2" && m != "SWAP-SPACE" {
			continue
		}
		h, err := block(r, size, 1024, 512)
		if h == nil {
			return nil, err
		}
		return &Signature{"swap", text(h[28:44]), uuid(h[12:28])}, nil
	}
	return nil, nil
}

func luks(r io.ReaderAt, size int64) (*Signature, error) {
	b, err := block(r, size, 0, 512)
	if b == nil || !bytes.HasPrefix(b, []byte("LUKS\xba\xbe")) {
		return nil, err
	}
	s := &Signature{Type: "crypto_LUKS", UUID: text(b[168:208])}
	if binary.BigEndian.Uint16(b[6:]) == 2 {
		s.Label = text(b[24:72])
	}
	return s, nil
}

func lvm2(r io.ReaderAt, size int64) (*Signature, error) {
	for off := int64(0); off < 4*sector; off += sector {
		b, err := block(r, size, off, sector)
		if err != nil {
			return nil, err
		}
		if b == nil || string(b[:8]) != "LABELONE" || string(b[24:32]) != "LVM2 001" {
			continue
		}
		id := string(b[32:64])
		parts := []string{id[:6], id[6:10], id[10:14], id[14:18], id[18:22], id[22:26], id[26:]}
		return &Signature{Type: "LVM2_member", UUID: strings.Join(parts, "-")}, nil
	}
	return nil, nil
}

// mdRaid looks for the superblock where each metadata version keeps it:
// 1.1 first, 1.2 at 4 KiB, 1.0 and 0.90 near the end.
func mdRaid(r io.ReaderAt, size int64) (*Signature, error) {
	const magic = "\xfc\x4e\x2b\xa9"
	for _, off := range []int64{0, 4096, (size/sector - 16) &^ 7 * sector} {
		b, err := block(r, size, off, 256)
		if err != nil {
			return nil, err
		}
		if b != nil && string(b[:4]) == magic && binary.LittleEndian.Uint32(b[4:]) == 1 {
			return &Signature{"linux_raid_member", text(b[32:64]), uuid(b[16:32])}, nil
		}
	}
	b, err := block(r, size, size&^0xffff-0x10000, 256)
	if b == nil || string(b[:4]) != magic {
		return nil, err
	}
	id := append(bytes.Clone(b[20:24]), b[52:64]...)
	for i := 0; i < 16; i += 4 { // four little-endian words
		binary.BigEndian.PutUint32(id[i:], binary.LittleEndian.Uint32(id[i:]))
	}
	return &Signature{Type: "linux_raid_member", UUID: uuid(id)}, nil
}

// text is a NUL-padded string of an on-disk structure. It comes from the
// guest: quote it before printing.
func text(b []byte) string {
	b, _, _ = bytes.Cut(b, []byte{0})
	return string(b)
}

// uuid formats 16 bytes, "" if all are zero.
func uuid(b []byte) string {
	if bytes.Equal(b, make([]byte, 16)) {
		return ""
	}
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:16])
}
