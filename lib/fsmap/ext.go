package fsmap

import (
	"bytes"
	"fmt"
	"math/bits"
)

// The features of ext2, ext3 and ext4 (fs/ext4/ext4.h, lib/ext2fs/ext2_fs.h)
// that the reading of free blocks depends on …
const (
	// compat
	extHasJournal   = 0x4
	extSparseSuper2 = 0x200
	extFastCommit   = 0x400

	// incompat
	extRecover  = 0x4 // the journal holds what is not in its place
	extMetaBG   = 0x10
	ext64bit    = 0x80
	extMMP      = 0x100
	extCsumSeed = 0x2000

	// ro_compat
	extSparseSuper  = 0x1
	extGDTCsum      = 0x10 // uninit_bg
	extBigalloc     = 0x200
	extMetadataCsum = 0x400
)

// … and those that it is known not to depend on. Of the compatible ones, lazy_bg
// and the snapshots of Next3 are left out.
const (
	extKnownCompat = extHasJournal | extSparseSuper2 | extFastCommit |
		0x1 | 0x2 | 0x8 | 0x10 | 0x20 | // dir_prealloc imagic_inodes ext_attr resize_inode dir_index
		0x800 | 0x1000 // stable_inodes orphan_file
	extKnownIncompat = extRecover | extMetaBG | ext64bit | extMMP | extCsumSeed |
		0x2 | 0x40 | 0x200 | // filetype extents flex_bg
		0x400 | 0x4000 | 0x8000 | // ea_inode large_dir inline_data
		0x10000 | 0x20000 // encrypt casefold
	extKnownRO = extSparseSuper | extGDTCsum | extBigalloc | extMetadataCsum |
		0x2 | 0x4 | 0x8 | 0x20 | 0x40 | // large_file btree_dir huge_file dir_nlink extra_isize
		0x100 | 0x1000 | 0x2000 | // quota read-only project
		0x8000 | 0x10000 // verity orphan_present
)

// maxGroups bounds the memory for group descriptors: 128 TiB of usual groups.
const maxGroups = 1 << 20

// ext is an ext2, ext3 or ext4 filesystem. Blocks and groups are counted as its
// superblock does.
type ext struct {
	disk
	compat, incompat, ro uint32
	state                uint16
	seed                 uint32 // of the metadata checksums
	uuid                 []byte

	bs             int64 // block size in bytes
	blocks         int64 // in the filesystem
	first          int64 // block of the first group
	perGroup       int64 // blocks in a group
	ratio          int64 // blocks in a cluster, the unit of the bitmaps
	groups         int64
	inodesPerGroup int64
	inodeSize      int64
	descSize       int64
	reservedGDT    int64
	firstMetaGroup int64 // descriptor block from which on meta_bg lays them out
	backups        [2]uint32
	freeBlocks     int64    // as the superblock counts them
	journal, mmp   int64    // inode, block
	log            *journal // nil if there is none
}

// inUse reports whether the journal holds what is not in its place: the
// filesystem was mounted, or was not unmounted.
func (e *ext) inUse() bool { return e.has(e.incompat, extRecover) }

func (e *ext) has(word, feature uint32) bool { return word&feature != 0 }

func (e *ext) descPerBlock() int64 { return e.bs / e.descSize }

// groupStart is the first block of group g.
func (e *ext) groupStart(g int64) int64 { return e.first + g*e.perGroup }

// groupBlocks is how many blocks group g has: the last may be short.
func (e *ext) groupBlocks(g int64) int64 { return min(e.perGroup, e.blocks-e.groupStart(g)) }

// superblock reads and judges the primary superblock.
func (e *ext) superblock(b []byte) error {
	if le16(b[0x38:]) != 0xef53 {
		return doubt("its superblock has no magic")
	}
	rev := le32(b[0x4c:])
	if rev > 1 {
		return doubtf("its revision %d is not known", rev)
	}
	e.inodeSize, e.descSize = 128, 32
	e.state = le16(b[0x3a:])
	if rev == 1 {
		e.compat, e.incompat, e.ro = le32(b[0x5c:]), le32(b[0x60:]), le32(b[0x64:])
		e.inodeSize = int64(le16(b[0x58:]))
	}
	for _, f := range []struct {
		name  string
		extra uint32
	}{{"compat", e.compat &^ extKnownCompat}, {"incompat", e.incompat &^ extKnownIncompat}, {"ro_compat", e.ro &^ extKnownRO}} {
		if f.extra != 0 {
			return doubtf("feature %s %#x", f.name, f.extra&-f.extra)
		}
	}
	e.uuid = bytes.Clone(b[0x68:0x78])
	if e.has(e.ro, extMetadataCsum) {
		if b[0x175] != 1 || crc32c(^uint32(0), b[:0x3fc]) != le32(b[0x3fc:]) {
			return doubt("the checksum of its superblock is wrong")
		}
		e.seed = crc32c(^uint32(0), e.uuid)
		if e.has(e.incompat, extCsumSeed) {
			e.seed = le32(b[0x270:])
		}
	}
	e.journal = int64(le32(b[0xe0:]))
	e.reservedGDT = int64(le16(b[0xce:]))
	e.firstMetaGroup = int64(le32(b[0x104:]))
	e.backups = [2]uint32{le32(b[0x24c:]), le32(b[0x250:])}
	e.mmp = int64(le32(b[0x168:])) // its upper half must be 0: see geometry
	return e.geometry(b)
}

// geometry takes the sizes from the superblock b and doubts those that no
// kernel would mount.
func (e *ext) geometry(b []byte) error {
	odd := func(what string) error { return doubtf("its %s makes no sense", what) }
	logBlock, logCluster := le32(b[0x18:]), le32(b[0x1c:])
	if logBlock > 6 {
		return odd("block size")
	}
	e.bs, e.ratio = 1024<<logBlock, 1
	blocks, free := uint64(le32(b[4:])), uint64(le32(b[0xc:]))
	if e.has(e.incompat, ext64bit) {
		blocks |= uint64(le32(b[0x150:])) << 32
		free |= uint64(le32(b[0x158:])) << 32
		e.descSize = int64(le16(b[0xfe:]))
		if e.descSize < 64 || e.descSize > e.bs || bits.OnesCount64(uint64(e.descSize)) != 1 {
			return odd("descriptor size")
		}
	}
	if blocks > uint64(e.size/e.bs) {
		return doubtf("its %d blocks of %d bytes are more than there are", blocks, e.bs)
	}
	e.blocks, e.freeBlocks = int64(blocks), int64(min(free, blocks+1))
	e.first = int64(le32(b[0x14:]))
	e.perGroup, e.inodesPerGroup = int64(le32(b[0x20:])), int64(le32(b[0x28:]))
	clusters := e.perGroup
	if e.has(e.ro, extBigalloc) {
		if logCluster < logBlock || logCluster > 19 {
			return odd("cluster size")
		}
		e.ratio = 1 << (logCluster - logBlock)
		clusters = int64(le32(b[0x24:]))
	}
	wantFirst := int64(0)
	if e.bs == 1024 && e.ratio == 1 {
		wantFirst = 1
	}
	switch {
	case e.first != wantFirst && !(e.has(e.ro, extBigalloc) && e.first == 0) || e.first >= e.blocks:
		return odd("first block")
	case clusters < 256 || clusters > 8*e.bs || clusters%8 != 0 || clusters*e.ratio != e.perGroup:
		return odd("group size")
	case e.inodeSize < 128 || e.inodeSize > e.bs || bits.OnesCount64(uint64(e.inodeSize)) != 1:
		return odd("inode size")
	case e.inodesPerGroup == 0 || e.inodesPerGroup > 8*e.bs:
		return odd("number of inodes")
	case e.reservedGDT > e.bs/4 || e.has(e.incompat, extMMP) && le32(b[0x16c:]) != 0:
		return odd("layout")
	}
	if e.groups = (e.blocks - e.first + e.perGroup - 1) / e.perGroup; e.groups > maxGroups {
		return doubtf("its %d groups are more than are read", e.groups)
	}
	return nil
}

// trusted doubts a filesystem whose bitmaps need not tell the truth.
func (e *ext) trusted() error {
	const valid, failed = 1, 2
	switch {
	case e.state&failed != 0:
		return doubt("it has recorded errors: it needs e2fsck")
	case e.state&valid == 0 && e.has(e.compat, extHasJournal):
		return doubt("it was never checked: it needs e2fsck")
	case e.state&valid == 0: // as always while it is mounted
		return doubt("it is in use, or was not unmounted, and has no journal that makes it whole")
	}
	return nil
}

// block is block n as it is once the journal is replayed.
func (e *ext) block(n int64) ([]byte, error) {
	if e.log != nil {
		if l, ok := e.log.latest[n]; ok {
			return e.log.data(l)
		}
	}
	if n < 0 || n >= e.blocks {
		return nil, doubtf("it leads to block %d of %d", n, e.blocks)
	}
	return e.at(n*e.bs, int(e.bs))
}

// readExt reads the free blocks of the ext2, ext3 or ext4 filesystem on d.
func readExt(d disk, gap int64) (found, error) {
	e, err := openExt(d)
	if err != nil {
		return found{}, err
	}
	t, err := e.descriptors()
	if err != nil {
		return found{}, err
	}
	f := freeRuns{gap: gap, meta: sorted(t.meta)}
	if err := t.free(&f); err != nil {
		return found{}, err
	}
	f.end()
	if e.inUse() {
		// The superblock's own count is right only after an unmount: a mounted
		// ext4 keeps it in memory (s_freeclusters_counter) and adds up the groups
		// when it mounts (ext4_count_free_clusters in fs/ext4/super.c), as ext3
		// does.
		return found{f, fmt.Sprintf("%d transactions of its journal taken into account", e.log.transactions)}, nil
	}
	if f.total != e.freeBlocks*e.bs {
		return found{}, doubtf("its superblock counts %d free blocks and its bitmaps %d", e.freeBlocks, f.total/e.bs)
	}
	return found{f, ""}, nil
}

// openExt reads the superblock and the journal.
func openExt(d disk) (*ext, error) {
	e := &ext{disk: d}
	b, err := d.at(1024, 1024)
	if err != nil {
		return nil, err
	}
	if err := e.superblock(b); err != nil {
		return nil, err
	}
	if err := e.trusted(); err != nil {
		return nil, err
	}
	if !e.has(e.compat, extHasJournal) {
		if e.inUse() {
			return nil, doubt("it needs recovery from a journal that it does not have")
		}
		return e, nil
	}
	j, err := e.openJournal()
	if err != nil || !e.inUse() {
		e.log = j
		return e, err
	}
	if err := j.replay(); err != nil {
		return nil, err
	}
	// The superblock may be among what is replayed, with a size that grew.
	now := &ext{disk: d, bs: e.bs, blocks: e.blocks, log: j}
	if b, err = now.block(1024 / e.bs); err != nil {
		return nil, err
	}
	if err := now.superblock(b[1024%e.bs:][:1024]); err != nil {
		return nil, err
	}
	if now.bs != e.bs || now.journal != e.journal || now.seed != e.seed || !now.inUse() {
		return nil, doubt("its journal holds another superblock")
	}
	return now, now.trusted()
}
