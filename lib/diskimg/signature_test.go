package diskimg

import (
	"encoding/binary"
	"hash/crc32"
	"os"
	"slices"
	"testing"
)

const mib = 1 << 20

// TestSignatures compares with blkid on filesystems made by their own tools.
func TestSignatures(t *testing.T) {
	for _, c := range []struct {
		name string
		size int64
		make []string // command, the image path is appended
	}{
		{"ext2", 8 * mib, []string{"mkfs.ext2", "-q", "-L", "two words"}},
		{"ext2 1k revision 0", 4 * mib, []string{"mkfs.ext2", "-q", "-b", "1024", "-r", "0"}},
		{"ext3", 16 * mib, []string{"mkfs.ext3", "-q"}},
		{"ext4", 16 * mib, []string{"mkfs.ext4", "-q", "-L", "root"}},
		{"ext4 of old", 16 * mib, []string{"mkfs.ext4", "-q", "-O", "^metadata_csum,^64bit"}},
		{"ext4 by extents alone", 16 * mib, []string{"mkfs.ext2", "-q", "-O", "extents"}},
		{"ext4 bigalloc", 64 * mib, []string{"mkfs.ext4", "-q", "-O", "bigalloc"}},
		{"jbd", 8 * mib, []string{"mkfs.ext4", "-q", "-O", "journal_dev"}},
		{"xfs", 320 * mib, []string{"mkfs.xfs", "-q", "-L", "data"}},
		{"btrfs", 128 * mib, []string{"mkfs.btrfs", "-q", "-L", "a label"}},
		{"fat12", 2 * mib, []string{"mkfs.vfat", "-F", "12", "-n", "BOOT"}},
		{"fat16", 32 * mib, []string{"mkfs.vfat", "-F", "16"}},
		{"fat32", 64 * mib, []string{"mkfs.vfat", "-F", "32", "-n", "EFI SYS"}},
		{"swap", 4 * mib, []string{"mkswap", "-q", "-L", "swap0"}},
		{"swap of 64k pages", 4 * mib, []string{"mkswap", "-q", "-p", "65536"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := sparse(t, c.size)
			tool(t, c.make[0], append(slices.Clone(c.make[1:]), path)...)
			likeBlkid(t, path)
		})
	}
}

// likeBlkid fails unless Probe and blkid see the same signature.
func likeBlkid(t *testing.T, path string) {
	t.Helper()
	want := blkid(t, path)
	info := mustProbe(t, path)
	if info.Kind != Filesystem || info.Also != "" || info.Format != Raw {
		t.Fatalf("%+v, blkid %v", info, want)
	}
	if s := *info.Signature; s.Type != want["TYPE"] || s.UUID != want["UUID"] || s.Label != want["LABEL"] {
		t.Errorf("signature %+v, blkid %v", s, want)
	}
	if info.Signature.Type == "" {
		t.Error("no type")
	}
}

// TestMembers makes the headers of LVM, md and LUKS by hand, since their programs
// want block devices, and lets blkid judge them too.
func TestMembers(t *testing.T) {
	id := []byte("\x01\x23\x45\x67\x89\xab\xcd\xef\x01\x23\x45\x67\x89\xab\xcd\xef")
	const size = 16*mib + 3*512
	t.Run("lvm2", func(t *testing.T) {
		path := sparse(t, size)
		b := make([]byte, 512)
		copy(b, "LABELONE")
		binary.LittleEndian.PutUint64(b[8:], 1) // its own sector
		binary.LittleEndian.PutUint32(b[20:], 32)
		copy(b[24:], "LVM2 001")
		copy(b[32:], "abcdefghijklmnopqrstuvwxyz012345")
		binary.LittleEndian.PutUint32(b[16:], ^crc32.Update(^uint32(0xf597a6cf), crc32.IEEETable, b[20:]))
		patch(t, path, 512, b)
		likeBlkid(t, path)
	})
	for name, off := range map[string]int64{"md 1.0": (size/512 - 16) &^ 7 * 512, "md 1.1": 0, "md 1.2": 4096} {
		t.Run(name, func(t *testing.T) {
			path := sparse(t, size)
			b := make([]byte, 512)
			binary.LittleEndian.PutUint32(b, 0xa92b4efc)
			binary.LittleEndian.PutUint32(b[4:], 1)
			copy(b[16:], id)
			copy(b[32:], "dom0:vm3")
			binary.LittleEndian.PutUint64(b[144:], uint64(off/512))
			patch(t, path, off, b)
			likeBlkid(t, path)
		})
	}
	for name, version := range map[string]byte{"luks1": 1, "luks2": 2} {
		t.Run(name, func(t *testing.T) {
			path := sparse(t, size)
			b := make([]byte, 4096)
			copy(b, "LUKS\xba\xbe\x00")
			b[7] = version
			copy(b[168:], "5f2d2d0c-98a1-4f0e-8f0f-0d9a6c1b2e3f")
			if version == 2 {
				copy(b[24:], "vault")
			}
			patch(t, path, 0, b)
			likeBlkid(t, path)
		})
	}
	t.Run("md 0.90 over ext4", func(t *testing.T) {
		path := sparse(t, size)
		tool(t, "mkfs.ext4", "-q", path, "8M")
		b := make([]byte, 512)
		binary.LittleEndian.PutUint32(b, 0xa92b4efc)
		binary.LittleEndian.PutUint32(b[8:], 90)
		copy(b[20:], id[:4])
		copy(b[52:], id[4:])
		patch(t, path, size&^0xffff-0x10000, b)
		likeBlkid(t, path)
	})
}

func TestNothing(t *testing.T) {
	path := sparse(t, 4*mib)
	if info := mustProbe(t, path); info.Kind != Blank || info.Size != 4*mib || info.Signature != nil {
		t.Errorf("hole: %+v", info)
	}
	patch(t, path, 4*mib-1, []byte{1})
	if info := mustProbe(t, path); info.Kind != Unknown {
		t.Errorf("one byte: %+v", info)
	}
	// Every probe must live with a disk that is too small for its magic.
	for size := int64(512); size <= 16*1024; size += 512 {
		if err := os.Truncate(path, size); err != nil {
			t.Fatal(err)
		}
		mustProbe(t, path)
	}
}

func FuzzProbe(f *testing.F) {
	head := make([]byte, 4096)
	copy(head[446:], "\x80\x00\x02\x00\xee\xff\xff\xff\x01\x00\x00\x00\xff\x00\x00\x00")
	copy(head[510:], "\x55\xaaEFI PART\x00\x00\x01\x00\x5c\x00\x00\x00")
	f.Add(head)
	f.Add([]byte("QFI\xfb\x00\x00\x00\x03"))
	f.Fuzz(func(t *testing.T, b []byte) {
		path := sparse(t, 128<<10)
		patch(t, path, 0, b[:min(len(b), 128<<10)])
		info, err := Probe(path)
		if err != nil {
			t.Fatalf("cannot happen on a file of whole sectors: %v", err)
		}
		if info.Table != nil {
			for _, p := range info.Table.Partitions {
				if p.Start < 0 || p.Size < 0 || p.Start+p.Size > info.Size {
					t.Fatalf("partition outside the disk: %+v", p)
				}
			}
		}
	})
}
