package fsmap

import (
	"bytes"

	"xenlvm/lib/extent"
)

// record is count free blocks of a group from block start.
type record struct{ start, count uint32 }

// freeTree is one of the two btrees in which a group keeps its free ranges: by
// where they lie, and by their length. Both hold the same, so that damage to one
// shows even in version 4, which has no checksums.
type freeTree struct {
	*xfs
	group  int64
	magic  [2]string // in version 4 and 5
	bySize bool

	records []record // of the tree by place
	last    record
	total   int64 // blocks
	longest uint32
	sum     uint64         // of all records, whatever their order
	nodes   []extent.Range // where the tree lies, in bytes
}

// xfsLevels is the height of the highest btree (XFS_BTREE_MAXLEVELS).
const xfsLevels = 9

// maxRecords bounds the memory for one group.
const maxRecords = 1 << 23

// walk reads the whole tree. It ends, because every record must come behind the
// one before.
func (t *freeTree) walk(root, levels uint32) error {
	if levels == 0 || levels > xfsLevels {
		return t.damaged()
	}
	return t.node(root, int(levels)-1)
}

func (t *freeTree) damaged() error {
	return doubtf("a free space btree of group %d is damaged", t.group)
}

// node reads block n at a level: 0 are the leaves.
func (t *freeTree) node(n uint32, level int) error {
	if int64(n) >= t.groupBlocks(t.group) {
		return t.damaged()
	}
	off := (t.group*t.agBlocks + int64(n)) * t.bs
	b, err := t.at(off, int(t.bs))
	if err != nil {
		return err
	}
	magic, header := t.magic[0], 16
	if t.v5 {
		magic, header = t.magic[1], 56
		if be64(b[16:]) != uint64(off/512) || !bytes.Equal(b[32:48], t.meta) || int64(be32(b[48:])) != t.group || !xfsChecked(b, 52) {
			return t.damaged()
		}
	}
	count, most := int(be16(b[6:])), (len(b)-header)/8
	if level > 0 {
		most = (len(b) - header) / 12 // a key and a pointer
	}
	if string(b[:4]) != magic || int(be16(b[4:])) != level || count > most || count == 0 && (level > 0 || len(t.nodes) > 0) {
		return t.damaged()
	}
	t.nodes = append(t.nodes, extent.Range{Off: off, Len: t.bs})
	for i := range count {
		r := record{be32(b[header+8*i:]), be32(b[header+8*i+4:])}
		if level == 0 {
			if err := t.take(r); err != nil {
				return err
			}
			continue
		}
		before := t.total
		if err := t.node(be32(b[header+8*most+4*i:]), level-1); err != nil {
			return err
		}
		if t.total == before {
			return t.damaged() // a leaf without records
		}
	}
	return nil
}

// take adds a record of a leaf.
func (t *freeTree) take(r record) error {
	end := int64(r.start) + int64(r.count)
	if r.count == 0 || end > t.groupBlocks(t.group) {
		return t.damaged()
	}
	if t.total > 0 {
		ascending := int64(r.start) > int64(t.last.start)+int64(t.last.count)
		if t.bySize {
			ascending = r.count > t.last.count || r.count == t.last.count && r.start > t.last.start
		}
		if !ascending {
			return t.damaged()
		}
	}
	t.last = r
	t.total += int64(r.count)
	t.longest = max(t.longest, r.count)
	t.sum += mix(uint64(r.start)<<32 | uint64(r.count))
	if t.bySize {
		return nil
	}
	if t.records = append(t.records, r); len(t.records) > maxRecords {
		return doubtf("the free space of group %d is in too many pieces", t.group)
	}
	return nil
}

// mix spreads the bits of a record, so that sums of different ones differ (the
// finalizer of SplitMix64).
func mix(n uint64) uint64 {
	n = (n ^ n>>30) * 0xbf58476d1ce4e5b9
	n = (n ^ n>>27) * 0x94d049bb133111eb
	return n ^ n>>31
}
