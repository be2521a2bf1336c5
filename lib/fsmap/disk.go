package fsmap

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"xenlvm/lib/diskimg"
	"xenlvm/lib/extent"
)

// found is what the reader of one filesystem says of it.
type found struct {
	free freeRuns
	note string
}

// read is the regions of the disk and the bytes that are free.
func (d disk) read() ([]Region, extent.Set, error) {
	table, err := diskimg.ReadTable(d.r, d.size)
	if err != nil {
		return nil, extent.Set{}, err
	}
	if table != nil {
		signatures, err := diskimg.FindSignatures(d.r, d.size)
		if err != nil {
			return nil, extent.Set{}, err
		}
		region := Region{Range: extent.Range{Len: d.size}, Name: "disk"}
		switch {
		case len(signatures) > 0:
			region.Type = signatures[0].Type
			region.Whole = besideTable
		case table.Damaged != nil:
			region.Type = table.Type
			region.Whole = table.Damaged.Error()
		default:
			return d.partitions(table)
		}
		return []Region{region}, extent.Set{}, nil
	}
	var free extent.Set
	region, err := d.region("disk", 0, d.size, &free)
	return []Region{region}, free, err
}

// besideTable is why a filesystem is not believed where a partition table is, too.
const besideTable = "a partition table lies beside it, and only the guest knows which is stale"

// partitions reads every partition that shares no byte with another one.
func (d disk) partitions(table *diskimg.PartitionTable) ([]Region, extent.Set, error) {
	parts := slices.Clone(table.Partitions)
	slices.SortFunc(parts, func(a, b diskimg.Partition) int { return cmp.Compare(a.Start, b.Start) })
	var regions []Region
	var free extent.Set
	for i, p := range parts {
		name := fmt.Sprintf("partition %d", p.Number)
		if overlaps(parts, i) {
			regions = append(regions, Region{Range: extent.Range{Off: p.Start, Len: p.Size}, Name: name, Whole: "it overlaps another partition"})
			continue
		}
		region, err := d.region(name, p.Start, p.Size, &free)
		if err != nil {
			return nil, extent.Set{}, fmt.Errorf("%s: %w", name, err)
		}
		regions = append(regions, region)
	}
	// A partition may be made to reach over the table itself.
	return regions, free.Subtract(table.Own), nil
}

func overlaps(parts []diskimg.Partition, i int) bool {
	a := parts[i]
	for k, b := range parts {
		if k != i && a.Start < b.Start+b.Size && b.Start < a.Start+a.Size {
			return true
		}
	}
	return false
}

// region reads the filesystem in length bytes from start, and adds what of the
// disk is free there to free.
func (d disk) region(name string, start, length int64, free *extent.Set) (Region, error) {
	region := Region{Range: extent.Range{Off: start, Len: length}, Name: name}
	part := d.part(start, length)
	signatures, err := diskimg.FindSignatures(part.r, length)
	if err != nil {
		return region, err
	}
	if len(signatures) > 0 {
		region.Type = signatures[0].Type
	}
	// A partition may be a guest's own guest's disk.
	table, err := diskimg.ReadTable(part.r, length)
	if err != nil {
		return region, err
	}
	if table != nil {
		region.Whole = besideTable
		return region, nil
	}
	f, err := part.filesystem(signatures, gapFor(d.size))
	if why := doubt(""); errors.As(err, &why) {
		region.Whole = why.Error()
		return region, nil
	}
	if err != nil {
		return region, err
	}
	region.Free, region.Note = f.free.total, f.note
	for _, r := range f.free.runs {
		free.Add(start+r.Off, r.Len)
	}
	return region, nil
}

// filesystem reads the one filesystem on the disk, if it is of a type that can
// be read.
func (d disk) filesystem(signatures []*diskimg.Signature, gap int64) (found, error) {
	if len(signatures) == 0 {
		return found{}, doubt("nothing that is known lies on it")
	}
	kind := signatures[0].Type
	if len(signatures) > 1 {
		return found{}, doubtf("it has the signatures of %s and %s", kind, signatures[1].Type)
	}
	var read func(disk, int64) (found, error)
	switch kind {
	case "ext2", "ext3", "ext4":
		read = readExt
	case "xfs":
		read = readXFS
	default:
		return found{}, doubtf("the free blocks of %s are not read", kind)
	}
	if err := d.foreign(); err != nil {
		return found{}, err
	}
	return read(d, gap)
}

// others are uses of a disk that diskimg does not name. Some leave an older
// superblock of ext2 intact (ZFS does not write its first 8 KiB), which then
// tells of free blocks that are not free. What keeps its mark where theirs is
// need not be here. See libblkid's superblocks.
var others = []struct {
	name  string
	off   int64
	magic string
}{
	{"bcache", 4096 + 24, "\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81"},
	{"bcachefs", 4096 + 24, "\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef"},
	{"reiserfs", 8192 + 0x34, "ReIsErFs"},
	{"reiserfs", 65536 + 0x34, "ReIsEr"},
	{"reiser4", 65536, "ReIsEr4"},
	{"jfs", 0x8000, "JFS1"},
	{"gfs2", 0x10000, "\x01\x16\x19\x70"},
	{"ocfs2", 4096, "OCFSV2"},
	{"ocfs2", 8192, "OCFSV2"},
	{"exfat", 3, "EXFAT   "},
	{"ufs", 8192 + 1372, "\x54\x19\x01\x00"},
	{"ufs", 65536 + 1372, "\x19\x01\x54\x19"},
	{"iso9660", 0x8001, "CD001"},
	{"squashfs", 0, "hsqs"},
	{"bluestore", 0, "bluestore block device"},
}

// foreign doubts a disk that another use than ext2 or xfs has left its mark on.
func (d disk) foreign() error {
	const head = 512 << 10 // the first label of ZFS ends before
	n := int(min(head, d.size))
	b, err := d.at(0, n)
	if err != nil {
		return err
	}
	for _, o := range others {
		if end := o.off + int64(len(o.magic)); end <= int64(n) && string(b[o.off:end]) == o.magic {
			return doubtf("it has the signature of %s as well", o.name)
		}
	}
	// The uberblocks of the first label of ZFS.
	for off := 128 << 10; off+8 <= min(n, 256<<10); off += 1 << 10 {
		if m := string(b[off : off+8]); m == "\x0c\xb1\xba\x00\x00\x00\x00\x00" || m == "\x00\x00\x00\x00\x00\xba\xb1\x0c" {
			return doubt("it has the signature of zfs_member as well")
		}
	}
	return nil
}
