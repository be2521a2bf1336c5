package fsmap

import (
	"bytes"
	"sort"
)

// run is count blocks of a file from its block at, in the filesystem from its
// block block.
type run struct{ at, block, count int64 }

// fileMap is where the blocks of a file lie, ascending and without holes.
type fileMap struct {
	runs  []run
	count int64 // blocks of the file
}

// maxFile bounds the journal, in blocks: mke2fs makes none above 10,240,000.
const maxFile = 1 << 24

// add appends n blocks.
func (m *fileMap) add(e *ext, block, n int64) error {
	if block <= 0 || n <= 0 || block > e.blocks-n || n > maxFile-m.count {
		return doubt("its journal lies beyond its end")
	}
	at := m.count
	m.count += n
	if k := len(m.runs); k > 0 && m.runs[k-1].block+m.runs[k-1].count == block {
		m.runs[k-1].count += n
		return nil
	}
	if len(m.runs) >= maxGroups {
		return doubt("its journal is in too many pieces")
	}
	m.runs = append(m.runs, run{at, block, n})
	return nil
}

// find is where block n of the file lies.
func (m *fileMap) find(n int64) (int64, error) {
	i := sort.Search(len(m.runs), func(k int) bool { return m.runs[k].at > n }) - 1
	if i < 0 || n >= m.count {
		return 0, doubtf("its journal has no block %d", n)
	}
	return m.runs[i].block + n - m.runs[i].at, nil
}

// journalMap reads where the journal lies. Neither its inode nor anything on the
// way there is taken from the journal itself.
func (e *ext) journalMap() (*fileMap, error) {
	if e.journal == 0 {
		return nil, doubt("its journal is on another device")
	}
	g := (e.journal - 1) / e.inodesPerGroup
	if g >= e.groups {
		return nil, doubt("the inode of its journal is beyond its end")
	}
	b, err := e.block(e.descBlock(g / e.descPerBlock()))
	if err != nil {
		return nil, err
	}
	d, err := e.descriptor(g, b)
	if err != nil {
		return nil, err
	}
	if d.inodeTable < e.first || d.inodeTable >= e.blocks {
		return nil, doubt("the inode of its journal is beyond its end")
	}
	inode, err := e.at(d.inodeTable*e.bs+(e.journal-1)%e.inodesPerGroup*e.inodeSize, int(e.inodeSize))
	if err != nil {
		return nil, err
	}
	if err := e.checkInode(uint32(e.journal), inode); err != nil {
		return nil, err
	}
	const regular, extents = 0x8000, 0x80000
	if le16(inode)&0xf000 != regular || le16(inode[0x1a:]) == 0 {
		return nil, doubt("its journal is no file")
	}
	size := int64(le32(inode[4:])) | int64(le32(inode[0x6c:]))<<32
	if size < 0 || size/e.bs > maxFile {
		return nil, doubt("its journal has an absurd size")
	}
	m := &fileMap{}
	if le32(inode[0x20:])&extents == 0 {
		err = m.indirect(e, inode[0x28:0x64], size/e.bs)
	} else {
		seed := crc32c(e.seed, le32bytes(uint32(e.journal)), inode[0x64:0x68])
		err = m.extents(e, inode[0x28:0x64], -1, seed)
	}
	if err == nil && m.count < size/e.bs {
		err = doubt("its journal has holes")
	}
	return m, err
}

// checkInode verifies the checksum of inode number n (ext4_inode_csum).
func (e *ext) checkInode(n uint32, inode []byte) error {
	if !e.has(e.ro, extMetadataCsum) {
		return nil
	}
	b := bytes.Clone(inode)
	want, mask := uint32(le16(b[0x7c:])), uint32(0xffff)
	clear(b[0x7c:0x7e])
	if len(b) > 128 && le16(b[0x80:]) >= 4 { // i_extra_isize reaches over i_checksum_hi
		want, mask = want|uint32(le16(b[0x82:]))<<16, ^uint32(0)
		clear(b[0x82:0x84])
	}
	if crc32c(e.seed, le32bytes(n), b[0x64:0x68], b)&mask != want {
		return doubt("the checksum of the inode of its journal is wrong")
	}
	return nil
}

// extents adds what the extent tree node b leads to; level is its depth, below
// 0 at the root.
func (m *fileMap) extents(e *ext, b []byte, level int, seed uint32) error {
	const header, entry, deepest = 12, 12, 5
	n, limit, depth := int(le16(b[2:])), int(le16(b[4:])), int(le16(b[6:]))
	if le16(b) != 0xf30a || n > limit || header+limit*entry > len(b) || depth > deepest || level >= 0 && depth != level {
		return doubt("the extents of its journal make no sense")
	}
	if level >= 0 && e.has(e.ro, extMetadataCsum) {
		tail := header + limit*entry
		if tail+4 > len(b) || crc32c(seed, b[:tail]) != le32(b[tail:]) {
			return doubt("the checksum of the extents of its journal is wrong")
		}
	}
	for i := range n {
		x := b[header+i*entry:][:entry]
		if int64(le32(x)) != m.count {
			return doubt("its journal has holes")
		}
		var err error
		if depth == 0 {
			// A length above 0x8000 means unwritten, which a journal is not.
			count := int64(le16(x[4:]))
			if count > 0x8000 {
				return doubt("its journal is not written")
			}
			err = m.add(e, int64(le32(x[8:]))|int64(le16(x[6:]))<<32, count)
		} else {
			var child []byte
			if child, err = e.block(int64(le32(x[4:])) | int64(le16(x[8:]))<<32); err == nil {
				err = m.extents(e, child, depth-1, seed)
			}
		}
		if err != nil {
			return err
		}
	}
	if n == 0 && level >= 0 {
		return doubt("the extents of its journal make no sense")
	}
	return nil
}

// indirect adds the first n blocks of an inode with block pointers: 12 to data,
// the rest through one, two and three levels.
func (m *fileMap) indirect(e *ext, b []byte, n int64) error {
	for i := range 15 {
		if err := m.pointer(e, int64(le32(b[4*i:])), max(0, i-11), n); err != nil {
			return err
		}
	}
	return nil
}

// pointer follows a pointer through level blocks of pointers until the file has
// n blocks.
func (m *fileMap) pointer(e *ext, block int64, level int, n int64) error {
	if m.count >= n {
		return nil
	}
	if level == 0 {
		return m.add(e, block, 1)
	}
	if block == 0 {
		return doubt("its journal has holes")
	}
	b, err := e.block(block)
	if err != nil {
		return err
	}
	for ; len(b) >= 4 && m.count < n; b = b[4:] {
		if err := m.pointer(e, int64(le32(b)), level-1, n); err != nil {
			return err
		}
	}
	return nil
}
