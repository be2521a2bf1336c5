package fsmap

import (
	"sort"

	"xenlvm/lib/extent"
)

// group is what a descriptor says of a block group.
type group struct {
	bitmap, inodeBitmap, inodeTable int64 // blocks

	free   uint32 // clusters
	csum   uint32 // of the block bitmap, its low half if the descriptors are short
	uninit bool   // the block bitmap is not written: only metadata is in use
}

// groupTable is all groups, and where all metadata lies, in bytes.
type groupTable struct {
	*ext
	all  []group
	meta []extent.Range
}

// occupy takes n blocks for metadata.
func (t *groupTable) occupy(block, n int64) error {
	if block < 0 || n < 0 || block > t.blocks-n {
		return doubtf("metadata at block %d lies beyond its end", block)
	}
	t.meta = append(t.meta, extent.Range{Off: block * t.bs, Len: n * t.bs})
	return nil
}

// descriptors reads the group descriptors.
func (e *ext) descriptors() (*groupTable, error) {
	t := &groupTable{ext: e, all: make([]group, 0, e.groups)}
	if e.mmp != 0 && e.has(e.incompat, extMMP) {
		if err := t.occupy(e.mmp, 1); err != nil {
			return nil, err
		}
	}
	if e.log != nil {
		for _, r := range e.log.where.runs {
			if err := t.occupy(r.block, r.count); err != nil {
				return nil, err
			}
		}
	}
	var b []byte
	for g := range e.groups {
		if err := t.base(g); err != nil {
			return nil, err
		}
		if g%e.descPerBlock() == 0 {
			var err error
			if b, err = e.block(e.descBlock(g / e.descPerBlock())); err != nil {
				return nil, err
			}
		}
		d, err := e.descriptor(g, b)
		if err == nil {
			err = t.take(g, d)
		}
		if err != nil {
			return nil, err
		}
	}
	return t, nil
}

// take adds group g with the metadata that is its own.
func (t *groupTable) take(g int64, d group) error {
	t.all = append(t.all, d)
	for _, m := range []struct{ block, n int64 }{{d.bitmap, 1}, {d.inodeBitmap, 1}, {d.inodeTable, (t.inodesPerGroup*t.inodeSize + t.bs - 1) / t.bs}} {
		if m.block < t.first {
			return doubtf("the metadata of group %d lies at block %d", g, m.block)
		}
		if err := t.occupy(m.block, m.n); err != nil {
			return err
		}
	}
	return nil
}

// descriptor is the descriptor of group g in b, the block that holds it.
func (e *ext) descriptor(g int64, b []byte) (group, error) {
	const uninit = 2 // EXT4_BG_BLOCK_UNINIT
	b = b[g%e.descPerBlock()*e.descSize:][:e.descSize]
	if err := e.checkDescriptor(g, b); err != nil {
		return group{}, err
	}
	d := group{bitmap: int64(le32(b)), inodeBitmap: int64(le32(b[4:])), inodeTable: int64(le32(b[8:]))}
	d.free, d.csum = uint32(le16(b[0xc:])), uint32(le16(b[0x18:]))
	d.uninit = le16(b[0x12:])&uninit != 0 && e.has(e.ro, extGDTCsum|extMetadataCsum)
	if e.descSize >= 64 {
		d.bitmap |= int64(le32(b[0x20:])) << 32
		d.inodeBitmap |= int64(le32(b[0x24:])) << 32
		d.inodeTable |= int64(le32(b[0x28:])) << 32
		d.free |= uint32(le16(b[0x2c:])) << 16
		d.csum |= uint32(le16(b[0x38:])) << 16
	}
	return d, nil
}

// checkDescriptor verifies the checksum of a descriptor, if there is one
// (ext4_group_desc_csum in fs/ext4/super.c).
func (e *ext) checkDescriptor(g int64, b []byte) error {
	const csum, end = 0x1e, 0x20
	number, want := le32bytes(uint32(g)), le16(b[csum:])
	switch {
	case e.has(e.ro, extMetadataCsum):
		if uint16(crc32c(e.seed, number, b[:csum], []byte{0, 0}, b[end:])) == want {
			return nil
		}
	case e.has(e.ro, extGDTCsum):
		if crc16(^uint16(0), e.uuid, number, b[:csum], b[end:]) == want {
			return nil
		}
	default:
		return nil
	}
	return doubtf("the checksum of the descriptor of group %d is wrong", g)
}

// base occupies what a group may begin with: a superblock, descriptors, room for
// more of them (ext4_num_base_meta_blocks in fs/ext4/balloc.c).
func (t *groupTable) base(g int64) error {
	start, n := t.groupStart(g), int64(0)
	if t.hasSuper(g) {
		n++
		if g == 0 && t.bs == 1024 && t.first == 0 {
			n++ // bigalloc: block 0 is in the group, and the superblock behind it
		}
	}
	descBlocks := (t.groups + t.descPerBlock() - 1) / t.descPerBlock()
	switch in := g / t.descPerBlock(); {
	case t.has(t.incompat, extMetaBG) && in >= t.firstMetaGroup:
		if k := g % t.descPerBlock(); k < 2 || k == t.descPerBlock()-1 {
			n++
		}
	case n > 0:
		if t.has(t.incompat, extMetaBG) {
			descBlocks = min(descBlocks, t.firstMetaGroup)
		}
		n += descBlocks + t.reservedGDT
	}
	return t.occupy(start, min(n, t.groupBlocks(g)))
}

// hasSuper reports whether group g has a superblock (ext4_bg_has_super).
func (e *ext) hasSuper(g int64) bool {
	if e.has(e.compat, extSparseSuper2) {
		return g == 0 || g == int64(e.backups[0]) || g == int64(e.backups[1])
	}
	if g <= 1 || !e.has(e.ro, extSparseSuper) {
		return true
	}
	for _, base := range []int64{3, 5, 7} {
		n := base
		for n < g {
			n *= base
		}
		if n == g {
			return true
		}
	}
	return false
}

// descBlock is where descriptor block i lies: behind the superblock, or with
// meta_bg in the first of the groups that it describes (descriptor_loc).
func (e *ext) descBlock(i int64) int64 {
	super := 1024 / e.bs
	if !e.has(e.incompat, extMetaBG) || i < e.firstMetaGroup {
		return super + 1 + i
	}
	g := i * e.descPerBlock()
	block := e.groupStart(g)
	if e.hasSuper(g) {
		block++
	}
	if g == 0 && e.bs == 1024 && e.first == 0 {
		block++
	}
	return block
}

// free adds the free clusters of all groups to f.
func (t *groupTable) free(f *freeRuns) error {
	meta := f.meta // which f uses up
	for g := range t.groups {
		d := t.all[g]
		var bitmap []byte
		var err error
		if d.uninit {
			bitmap = t.metaBitmap(g, meta)
		} else if bitmap, err = t.readBitmap(g); err != nil {
			return err
		}
		free, err := t.clusters(g, bitmap, f)
		if err != nil {
			return err
		}
		if free != int64(d.free) {
			return doubtf("group %d counts %d free clusters and its bitmap %d", g, d.free, free)
		}
	}
	return nil
}

func (t *groupTable) readBitmap(g int64) ([]byte, error) {
	b, err := t.block(t.all[g].bitmap)
	if err != nil || !t.has(t.ro, extMetadataCsum) {
		return b, err
	}
	sum := crc32c(t.seed, b[:t.perGroup/t.ratio/8])
	if t.descSize < 64 {
		sum &= 0xffff
	}
	if sum != t.all[g].csum {
		return nil, doubtf("the checksum of the block bitmap of group %d is wrong", g)
	}
	return b, nil
}

// metaBitmap is the bitmap of a group in which only metadata is in use.
func (t *groupTable) metaBitmap(g int64, meta []extent.Range) []byte {
	bitmap := make([]byte, t.perGroup/t.ratio/8)
	from := t.groupStart(g) * t.bs
	end, cluster := from+t.groupBlocks(g)*t.bs, t.ratio*t.bs
	i := sort.Search(len(meta), func(k int) bool { return meta[k].End() > from })
	for ; i < len(meta) && meta[i].Off < end; i++ {
		last := (min(end, meta[i].End()) - 1 - from) / cluster
		for c := (max(from, meta[i].Off) - from) / cluster; c <= last; c++ {
			bitmap[c/8] |= 1 << (c % 8)
		}
	}
	return bitmap
}

// clusters adds the runs of zeros in the bitmap of group g to f, and counts
// them.
func (t *groupTable) clusters(g int64, bitmap []byte, f *freeRuns) (int64, error) {
	start, blocks := t.groupStart(g), t.groupBlocks(g)
	n := (blocks + t.ratio - 1) / t.ratio
	free := int64(0)
	for c := int64(0); c < n; {
		run := c
		for c < n && bitmap[c/8]&(1<<(c%8)) == 0 {
			if c%8 == 0 && bitmap[c/8] == 0 {
				c = min(c+8, n)
			} else {
				c++
			}
		}
		if c > run {
			free += c - run
			from, end := run*t.ratio, min(c*t.ratio, blocks)
			if err := f.add((start+from)*t.bs, (end-from)*t.bs); err != nil {
				return 0, err
			}
		}
		for c < n && bitmap[c/8]&(1<<(c%8)) != 0 {
			c++
		}
	}
	return free, nil
}
