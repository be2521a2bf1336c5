package fsmap

import (
	"bytes"
	"math/bits"

	"xenlvm/lib/extent"
)

// The format of xfs is in fs/xfs/libxfs/xfs_format.h. All numbers are
// big-endian, but for the checksums.
const (
	xfsLogV2    = 0x400                     // versionnum, of version 4
	xfsKnown2   = 0x2 | 0x8 | 0x80 | 0x200  // features2: lazysbcount attr2 projid32bit ftype
	xfsKnownRO  = 0x1 | 0x2 | 0x4 | 0x8     // ro_compat: finobt rmapbt reflink inobtcount
	xfsMetaUUID = 0x4                       // incompat
	xfsKnown    = xfsMetaUUID | 0x1 | 0x2 | // ftype sparse_inodes
		0x8 | 0x20 | 0x40 | 0x80 // bigtime nrext64 exchange parent
)

// xfs is an xfs filesystem. Its blocks are counted by allocation group: block b
// of group a is byte (a*agBlocks+b)*bs.
type xfs struct {
	disk
	v5         bool
	uuid, meta []byte // of the filesystem, and in its metadata
	logV2      bool
	bs, sector int64
	blocks     int64
	agBlocks   int64
	groups     int64
	logStart   int64 // byte
	logSize    int64 // bytes
	free       int64 // blocks as the superblock counts them
}

// readXFS reads the free blocks of the xfs filesystem on d.
func readXFS(d disk, gap int64) (found, error) {
	x, err := openXFS(d)
	if err != nil {
		return found{}, err
	}
	if err := x.logIsEmpty(); err != nil {
		return found{}, err
	}
	f := freeRuns{gap: gap}
	counted := int64(0)
	for a := range x.groups {
		n, err := x.group(a, &f)
		if err != nil {
			return found{}, err
		}
		counted += n
	}
	f.end()
	// xfs_initialize_perag_data adds up the same.
	if counted != x.free {
		return found{}, doubtf("its superblock counts %d free blocks and its groups %d", x.free, counted)
	}
	return found{f, ""}, nil
}

// openXFS reads and judges the superblock.
func openXFS(d disk) (*xfs, error) {
	b, err := d.at(0, 512)
	if err != nil {
		return nil, err
	}
	version := be16(b[100:])
	x := &xfs{
		disk: d, v5: version&0xf == 5, logV2: version&xfsLogV2 != 0,
		uuid: bytes.Clone(b[32:48]), bs: int64(be32(b[4:])), sector: int64(be16(b[102:])),
		agBlocks: int64(be32(b[84:])), groups: int64(be32(b[88:])), free: int64(be64(b[144:]) & (1<<62 - 1)),
	}
	x.meta = x.uuid
	odd := func(what string) error { return doubtf("its %s makes no sense", what) }
	switch {
	case string(b[:4]) != "XFSB" || !x.v5 && version&0xf != 4:
		return nil, doubtf("its version %d is not known", version&0xf)
	case x.sector < 512 || x.sector > 32<<10 || bits.OnesCount64(uint64(x.sector)) != 1:
		return nil, odd("sector size")
	case x.bs < x.sector || x.bs > 64<<10 || bits.OnesCount64(uint64(x.bs)) != 1:
		return nil, odd("block size")
	case b[126] != 0:
		return nil, doubt("mkfs.xfs or xfs_growfs did not finish on it")
	case be64(b[16:]) != 0 || be64(b[24:]) != 0:
		return nil, doubt("it has a realtime device")
	}
	const moreBits = 0x8000
	if extra := be32(b[200:]) &^ xfsKnown2; !x.v5 && version&moreBits != 0 && extra != 0 {
		return nil, doubtf("feature features2 %#x", extra&-extra)
	}
	if x.v5 {
		if err := x.features(); err != nil {
			return nil, err
		}
	}
	return x, x.geometry(b)
}

// features judges those of version 5.
func (x *xfs) features() error {
	b, err := x.at(0, int(x.sector))
	if err != nil {
		return err
	}
	if !xfsChecked(b, 224) {
		return doubt("the checksum of its superblock is wrong")
	}
	ro, incompat := be32(b[212:]), be32(b[216:])
	if extra := ro &^ xfsKnownRO; extra != 0 {
		return doubtf("feature ro_compat %#x", extra&-extra)
	}
	if extra := incompat &^ xfsKnown; extra != 0 {
		return doubtf("feature incompat %#x", extra&-extra)
	}
	if incompat&xfsMetaUUID != 0 {
		x.meta = bytes.Clone(b[248:264])
	}
	x.logV2 = true
	return nil
}

// geometry doubts sizes that no kernel would mount.
func (x *xfs) geometry(b []byte) error {
	blocks, start := be64(b[8:]), be64(b[48:])
	agLog, logBlocks := uint(b[124]), int64(be32(b[96:]))
	switch {
	case blocks > uint64(x.size/x.bs):
		return doubtf("its %d blocks of %d bytes are more than there are", blocks, x.bs)
	case x.agBlocks < 64 || x.groups == 0 || x.groups > maxGroups ||
		uint64(x.groups-1)*uint64(x.agBlocks) >= blocks || uint64(x.groups)*uint64(x.agBlocks) < blocks,
		uint(bits.Len64(uint64(x.agBlocks-1))) != agLog:
		return doubt("its allocation groups make no sense")
	case start == 0:
		return doubt("its log is on another device")
	}
	x.blocks = int64(blocks)
	a, at := int64(min(start>>agLog, maxGroups)), int64(start&(1<<agLog-1))
	if a >= x.groups || at+logBlocks > x.groupBlocks(a) || logBlocks == 0 {
		return doubt("its log lies beyond its end")
	}
	x.logStart, x.logSize = (a*x.agBlocks+at)*x.bs, logBlocks*x.bs
	return nil
}

// groupBlocks is how many blocks group a has: the last may be short.
func (x *xfs) groupBlocks(a int64) int64 { return min(x.agBlocks, x.blocks-a*x.agBlocks) }

// xfsChecked reports whether the checksum at off is that of b without it.
func xfsChecked(b []byte, off int) bool {
	return ^crc32c(^uint32(0), b[:off], []byte{0, 0, 0, 0}, b[off+4:]) == le32(b[off:])
}

// header reads one of the sectors that a group begins with: its number, magic,
// and in version 5 where its UUID and checksum are.
func (x *xfs) header(a, sector int64, magic string, uuid, sum int) ([]byte, error) {
	b, err := x.at(a*x.agBlocks*x.bs+sector*x.sector, int(x.sector))
	if err != nil {
		return nil, err
	}
	if string(b[:4]) != magic || x.v5 && (!bytes.Equal(b[uuid:uuid+16], x.meta) || !xfsChecked(b, sum)) {
		return nil, doubtf("the %s of group %d is damaged", magic, a)
	}
	return b, nil
}

// group adds the free blocks of group a to f. It returns how many blocks of the
// group count as free: the free-space btrees and the blocks kept for them do.
func (x *xfs) group(a int64, f *freeRuns) (int64, error) {
	agf, err := x.header(a, 1, "XAGF", 64, 216)
	if err != nil {
		return 0, err
	}
	agi, err := x.header(a, 2, "XAGI", 296, 312)
	if err != nil {
		return 0, err
	}
	if x.v5 { // in version 4 the list has no header
		if _, err := x.header(a, 3, "XAFL", 8, 32); err != nil {
			return 0, err
		}
	}
	length := x.groupBlocks(a)
	for _, b := range [][]byte{agf, agi} {
		if be32(b[4:]) != 1 || int64(be32(b[8:])) != a || int64(be32(b[12:])) != length {
			return 0, doubtf("the headers of group %d are those of another", a)
		}
	}
	byPlace := freeTree{xfs: x, group: a, magic: [2]string{"ABTB", "AB3B"}}
	bySize := freeTree{xfs: x, group: a, magic: [2]string{"ABTC", "AB3C"}, bySize: true}
	if err := bySize.walk(be32(agf[20:]), be32(agf[32:])); err != nil {
		return 0, err
	}
	if err := byPlace.walk(be32(agf[16:]), be32(agf[28:])); err != nil {
		return 0, err
	}
	freeBlocks, longest := be32(agf[52:]), be32(agf[56:])
	if byPlace.sum != bySize.sum || byPlace.total != int64(freeBlocks) || bySize.total != int64(freeBlocks) || bySize.longest != longest {
		return 0, doubtf("group %d counts %d free blocks, and its btrees %d and %d", a, freeBlocks, byPlace.total, bySize.total)
	}
	f.meta = sorted(append(x.metadata(a), append(byPlace.nodes, bySize.nodes...)...))
	base := a * x.agBlocks
	for _, r := range byPlace.records {
		if err := f.add((base+int64(r.start))*x.bs, int64(r.count)*x.bs); err != nil {
			return 0, err
		}
	}
	return int64(freeBlocks) + int64(be32(agf[48:])) + int64(be32(agf[60:])), nil
}

// metadata is the headers of group a, and the log if it lies there.
func (x *xfs) metadata(a int64) []extent.Range {
	start := a * x.agBlocks * x.bs
	m := []extent.Range{{Off: start, Len: 4 * x.sector}}
	if x.logStart >= start && x.logStart < start+x.agBlocks*x.bs {
		m = append(m, extent.Range{Off: x.logStart, Len: x.logSize})
	}
	return m
}
