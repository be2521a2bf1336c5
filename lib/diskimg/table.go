package diskimg

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"github.com/diskfs/go-diskfs/partition/gpt"
	"github.com/diskfs/go-diskfs/partition/mbr"

	"xenlvm/lib/extent"
)

// PartitionTable is what divides a disk.
type PartitionTable struct {
	Type       string // "gpt" or "mbr"
	UUID       string // of the disk: a GUID, or the 8 hexadecimal digits of an MBR
	SectorSize int    // that the table counts in: 512 or 4096
	Partitions []Partition
	// Own is where the table itself lies: they are its bytes whatever a
	// partition that reaches over them says.
	Own extent.Set
	// FromBackup says that the first GPT was damaged and the one at the end
	// of the disk was read.
	FromBackup bool
	// Damaged is why the entries cannot be relied upon, nil if they can. To
	// the copy of a whole disk it does not matter.
	Damaged error
}

// Partition is one used entry. Start and Size are in bytes and lie within the
// disk; extended MBR partitions are left out, the logical ones in them count
// from 5.
type Partition struct {
	Number      int
	Start, Size int64
	Type        string // GUID in capitals, or two hexadecimal digits
	UUID, Name  string
	Bootable    bool
	Signature   *Signature // what it holds, nil if nothing is known
}

// ReadTable is the partition table of a disk of size bytes, nil if it has
// none. A GPT counts only if the MBR has a 0xEE entry, as the kernel sees it:
// without one it is left from before somebody made an MBR. The signatures of
// the partitions are left to Probe.
func ReadTable(r io.ReaderAt, size int64) (*PartitionTable, error) {
	m, err := readMBR(r, size)
	if err != nil || m == nil {
		return nil, err
	}
	protective := false
	for _, p := range m.Partitions {
		protective = protective || p.Type == mbr.GPTProtective
	}
	if !protective {
		t := &PartitionTable{Type: "mbr", UUID: m.UUID(), SectorSize: sector, Own: extent.Whole(sector)}
		t.Damaged = t.fromMBR(r, size, m)
		return t, nil
	}
	for _, logical := range []int{512, 4096} {
		own := plausibleGPT(r, size, int64(logical))
		if own.Empty() {
			continue
		}
		g, err := gpt.Read(&section{io.NewSectionReader(r, 0, size)}, logical, logical)
		if err == nil {
			t := &PartitionTable{Type: "gpt", UUID: g.GUID, SectorSize: logical, Own: own.Union(extent.Whole(sector)), FromBackup: g.RecoveredFromBackup}
			t.Damaged = t.fromGPT(g, size)
			return t, nil
		}
	}
	return &PartitionTable{Type: "gpt", Damaged: errors.New("both copies of the GPT are damaged")}, nil
}

// plausibleGPT is where the headers and entries of a GPT lie, empty if go-diskfs
// may not be let at them at all: it allocates what a header asks for and trusts
// the size of its entries.
func plausibleGPT(r io.ReaderAt, size, logical int64) extent.Set {
	last := (size/logical - 1) * logical
	var own extent.Set
	for _, off := range []int64{logical, last} {
		b, err := block(r, size, off, 92)
		if err != nil || b == nil || string(b[:8]) != "EFI PART" {
			continue
		}
		first := binary.LittleEndian.Uint64(b[72:])
		count, each := binary.LittleEndian.Uint32(b[80:]), binary.LittleEndian.Uint32(b[84:])
		if each != 128 || count == 0 || count > 1024 || first < 2 || first > uint64(size/logical) {
			return extent.Set{}
		}
		own.Add(off, logical)
		own.Add(int64(first)*logical, int64(count)*int64(each))
	}
	return own.Clip(size)
}

func (t *PartitionTable) fromGPT(g *gpt.Table, size int64) error {
	logical := int64(t.SectorSize)
	for _, p := range g.Partitions {
		if p.Start > p.End || p.End >= uint64(size/logical) {
			return fmt.Errorf("partition %d ends after the disk does", p.Index)
		}
		t.Partitions = append(t.Partitions, Partition{
			Number: p.Index, Type: string(p.Type), UUID: p.GUID, Name: p.Name,
			Start: int64(p.Start) * logical, Size: int64(p.End-p.Start+1) * logical,
			Bootable: p.Attributes&(1<<2) != 0,
		})
	}
	return nil
}

// readMBR is the MBR, nil if there is none. Boot sectors of filesystems end in
// the same two bytes, so its entries must make sense as well.
func readMBR(r io.ReaderAt, size int64) (*mbr.Table, error) {
	b, err := block(r, size, 0, sector)
	if b == nil || b[510] != 0x55 || b[511] != 0xaa {
		return nil, err
	}
	used := 0
	for i := range 4 {
		e := b[446+16*i:][:16]
		if e[0] != 0 && e[0] != 0x80 {
			return nil, nil
		}
		start, count := binary.LittleEndian.Uint32(e[8:]), binary.LittleEndian.Uint32(e[12:])
		if e[4] != 0 && count != 0 && start != 0 {
			used++
		}
	}
	if used == 0 {
		return nil, nil
	}
	return mbr.Read(&section{io.NewSectionReader(r, 0, size)}, sector, sector)
}

// maxLogical bounds the chain of a table that points to itself.
const maxLogical = 128

func (t *PartitionTable) fromMBR(r io.ReaderAt, size int64, m *mbr.Table) error {
	var extended []mbr.Partition
	for _, p := range m.Partitions {
		if p.Type == 0 || p.Size == 0 {
			continue
		}
		if err := within(p.Index, int64(p.Start), int64(p.Size), size); err != nil {
			return err
		}
		if isExtended(byte(p.Type)) {
			extended = append(extended, *p)
			continue
		}
		t.add(p.Index, byte(p.Type), int64(p.Start), int64(p.Size), p.Bootable)
	}
	next := 5
	for _, e := range extended {
		var err error
		if next, err = t.logical(r, size, int64(e.Start), int64(e.Size), next); err != nil {
			return err
		}
	}
	return nil
}

// logical walks the chain of EBRs in the extended partition at sector start:
// each has one partition, relative to itself, and a link to the next EBR,
// relative to the extended partition.
func (t *PartitionTable) logical(r io.ReaderAt, size, start, count int64, number int) (int, error) {
	ebr := start
	for range maxLogical {
		b, err := block(r, size, ebr*sector, sector)
		if err != nil {
			return 0, err
		}
		if b == nil || b[510] != 0x55 || b[511] != 0xaa {
			if ebr == start {
				return number, nil // an extended partition never used
			}
			return 0, fmt.Errorf("the table of logical partitions is damaged at %d", ebr*sector)
		}
		t.Own.Add(ebr*sector, sector)
		link := int64(0)
		for i := range 2 {
			e := b[446+16*i:][:16]
			first, n := int64(binary.LittleEndian.Uint32(e[8:])), int64(binary.LittleEndian.Uint32(e[12:]))
			switch {
			case e[4] == 0 || n == 0:
			case isExtended(e[4]):
				link = start + first
			default:
				if err := within(number, ebr+first, n, size); err != nil {
					return 0, err
				}
				t.add(number, e[4], ebr+first, n, e[0] == 0x80)
				number++
			}
		}
		if link == 0 {
			return number, nil
		}
		if link <= ebr || link >= start+count {
			return 0, fmt.Errorf("the table of logical partitions leads to %d", link*sector)
		}
		ebr = link
	}
	return 0, fmt.Errorf("there are more than %d logical partitions", maxLogical)
}

func (t *PartitionTable) add(number int, kind byte, start, count int64, boot bool) {
	t.Partitions = append(t.Partitions, Partition{
		Number: number, Type: fmt.Sprintf("%02x", kind), UUID: fmt.Sprintf("%s-%02x", t.UUID, number),
		Start: start * sector, Size: count * sector, Bootable: boot,
	})
}

func isExtended(kind byte) bool { return kind == 0x05 || kind == 0x0f || kind == 0x85 }

func within(number int, start, count, size int64) error {
	if start+count > size/sector {
		return fmt.Errorf("partition %d ends after the disk does", number)
	}
	return nil
}

// section makes a part of a disk the file that go-diskfs asks for; it only
// reads and seeks.
type section struct{ *io.SectionReader }

func (s *section) Stat() (fs.FileInfo, error) { return sectionInfo{s.Size()}, nil }
func (s *section) Close() error               { return nil }

type sectionInfo struct{ size int64 }

func (i sectionInfo) Name() string       { return "disk" }
func (i sectionInfo) Size() int64        { return i.size }
func (i sectionInfo) Mode() fs.FileMode  { return 0o400 }
func (i sectionInfo) ModTime() time.Time { return time.Time{} }
func (i sectionInfo) IsDir() bool        { return false }
func (i sectionInfo) Sys() any           { return nil }
