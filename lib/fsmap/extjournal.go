package fsmap

import (
	"bytes"
	"encoding/binary"
)

// The format of jbd2's journal is in include/linux/jbd2.h, the order of replay
// in fs/jbd2/recovery.c. All numbers are big-endian.
const (
	jbdMagic = 0xc03b3998

	jbdDescriptor   = 1
	jbdCommit       = 2
	jbdSuperblockV1 = 3
	jbdSuperblockV2 = 4
	jbdRevoke       = 5

	jbdHeader = 12 // bytes: magic, type, sequence

	jbd64bit  = 0x2 // incompat
	jbdCsumV2 = 0x8
	jbdCsumV3 = 0x10
	// Asynchronous and fast commits, and the checksums of whole transactions,
	// change what is replayed: they are not known here.
	jbdKnown = 0x1 | jbd64bit | jbdCsumV2 | jbdCsumV3
)

// maxLogged bounds the memory for the blocks of a journal.
const maxLogged = 1 << 20

// logged is a block of the filesystem as the journal holds it.
type logged struct {
	at     uint32 // block of the journal
	escape bool   // its first word was the magic, and is not in the journal
}

// journal is the journal of an ext3 or ext4 filesystem.
type journal struct {
	fs    *ext
	where *fileMap

	incompat    uint32 // features
	seed        uint32
	first, last uint32 // the log is the blocks from first up to but not last
	start       uint32 // where replay begins, 0 if the log is empty
	sequence    uint32 // of the first transaction

	latest       map[int64]logged // what replay writes, by block of the filesystem
	transactions int              // replayed
}

// openJournal reads the journal's superblock.
func (e *ext) openJournal() (*journal, error) {
	where, err := e.journalMap()
	if err != nil {
		return nil, err
	}
	j := &journal{fs: e, where: where}
	b, err := j.read(0)
	if err != nil {
		return nil, err
	}
	kind := be32(b[4:])
	if be32(b) != jbdMagic || kind != jbdSuperblockV1 && kind != jbdSuperblockV2 || int64(be32(b[12:])) != e.bs {
		return nil, doubt("the superblock of its journal makes no sense")
	}
	j.first, j.last, j.sequence, j.start = be32(b[20:]), be32(b[16:]), be32(b[24:]), be32(b[28:])
	if j.first == 0 || j.first >= j.last || int64(j.last) > where.count || j.start != 0 && (j.start < j.first || j.start >= j.last) {
		return nil, doubt("the superblock of its journal makes no sense")
	}
	switch {
	case be32(b[32:]) != 0:
		return nil, doubt("its journal has recorded an error: it needs e2fsck")
	case j.start != 0 && !e.inUse():
		return nil, doubt("its journal is not empty although its superblock says so")
	}
	if kind == jbdSuperblockV1 {
		return j, nil
	}
	return j, j.features(b[:1024])
}

// features judges the features in the journal's superblock b, where it matters:
// in a journal that is to be replayed.
func (j *journal) features(b []byte) error {
	compat, ro := be32(b[36:]), be32(b[44:])
	j.incompat = be32(b[40:])
	if j.start == 0 {
		return nil
	}
	if extra := j.incompat &^ jbdKnown; extra != 0 {
		return doubtf("feature incompat %#x of its journal", extra&-extra)
	}
	if compat != 0 || ro != 0 {
		return doubtf("features %#x and %#x of its journal", compat, ro)
	}
	if j.fs.has(j.fs.compat, extFastCommit) {
		return doubt("feature fast_commit, and its journal is not empty")
	}
	if j.checksums() {
		const crc32cType, sum = 4, 0xfc
		copied := bytes.Clone(b)
		clear(copied[sum : sum+4])
		if b[0x50] != crc32cType || j.incompat&jbdCsumV2 != 0 && j.incompat&jbdCsumV3 != 0 || crc32c(^uint32(0), copied) != be32(b[sum:]) {
			return doubt("the checksum of the superblock of its journal is wrong")
		}
		j.seed = crc32c(^uint32(0), b[48:64])
	}
	return nil
}

func (j *journal) checksums() bool { return j.incompat&(jbdCsumV2|jbdCsumV3) != 0 }

// read is block n of the journal.
func (j *journal) read(n uint32) ([]byte, error) {
	block, err := j.where.find(int64(n))
	if err != nil {
		return nil, err
	}
	return j.fs.at(block*j.fs.bs, int(j.fs.bs))
}

// data is a logged block as replay writes it.
func (j *journal) data(l logged) ([]byte, error) {
	b, err := j.read(l.at)
	if err == nil && l.escape {
		binary.BigEndian.PutUint32(b, jbdMagic)
	}
	return b, err
}

// replay finds what mounting would write. It ends where the kernel ends: at the
// first block that is not the log's next; what is not committed is not replayed.
// A wrong checksum, which the kernel may or may not take for the end, is a
// doubt.
func (j *journal) replay() error {
	j.latest = map[int64]logged{}
	if j.start == 0 {
		return nil
	}
	var now transaction
	at := j.start
	next := func(n uint32) uint32 {
		if n++; n >= j.last {
			n = j.first
		}
		return n
	}
	for seen := uint32(0); seen < j.last-j.first; seen++ {
		b, err := j.read(at)
		if err != nil {
			return err
		}
		at = next(at)
		if be32(b) != jbdMagic || be32(b[8:]) != j.sequence {
			return nil
		}
		switch be32(b[4:]) {
		case jbdDescriptor:
			tags, err := j.tags(b)
			if err != nil {
				return err
			}
			for i := range tags {
				tags[i].at = at
				at = next(at)
			}
			seen += uint32(len(tags))
			now.tags = append(now.tags, tags...)
		case jbdRevoke:
			revoked, err := j.revokes(b)
			if err != nil {
				return err
			}
			now.revoked = append(now.revoked, revoked...)
		case jbdCommit:
			if j.checksums() && !j.checked(b, jbdHeader+4) {
				return doubt("the checksum of a commit in its journal is wrong")
			}
			if err := j.commit(now); err != nil {
				return err
			}
			now = transaction{}
			j.sequence++
			j.transactions++
		default:
			return nil
		}
		if len(now.tags)+len(now.revoked)+len(j.latest) > maxLogged {
			return doubt("its journal holds more blocks than are read")
		}
	}
	return doubt("its journal has no end")
}

// commit takes a transaction as written.
func (j *journal) commit(t transaction) error {
	for _, g := range t.tags {
		if j.checksums() {
			b, err := j.read(g.at)
			if err != nil {
				return err
			}
			sum := crc32c(j.seed, be32bytes(j.sequence), b)
			if j.incompat&jbdCsumV3 == 0 {
				sum &= 0xffff
			}
			if sum != g.csum {
				return doubt("the checksum of a block in its journal is wrong")
			}
		}
		j.latest[g.block] = g.logged
	}
	for _, block := range t.revoked {
		delete(j.latest, block)
	}
	return nil
}
