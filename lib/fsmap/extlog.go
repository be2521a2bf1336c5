package fsmap

// tag is one block that a descriptor announces.
type tag struct {
	block int64
	logged
	csum uint32
}

// transaction is what one of them changes.
type transaction struct {
	tags    []tag
	revoked []int64 // blocks that no transaction up to this one may write
}

// checked reports whether the checksum at off in b is that of b without it.
func (j *journal) checked(b []byte, off int) bool {
	return crc32c(j.seed, b[:off], []byte{0, 0, 0, 0}, b[off+4:]) == be32(b[off:])
}

// payload is a descriptor or revoke block without the checksum at its end.
func (j *journal) payload(b []byte) ([]byte, error) {
	if !j.checksums() {
		return b, nil
	}
	tail := len(b) - 4
	if !j.checked(b, tail) {
		return nil, doubt("the checksum of a block in its journal is wrong")
	}
	return b[:tail], nil
}

// tags reads a descriptor block: a tag for each block that follows in the log.
func (j *journal) tags(b []byte) ([]tag, error) {
	const (
		escape, sameUUID, last = 1, 2, 8
		uuid                   = 16
	)
	b, err := j.payload(b)
	if err != nil {
		return nil, err
	}
	size := 8 // block, checksum, flags
	switch {
	case j.incompat&jbdCsumV3 != 0:
		size = 16 // block, flags, upper half of block, checksum
	case j.incompat&jbd64bit != 0:
		size = 12
	}
	if j.incompat&jbdCsumV2 != 0 {
		size += 2 // as the kernel counts them, although nothing is there
	}
	var tags []tag
	for b = b[jbdHeader:]; len(b) >= size; {
		t, flags := tag{block: int64(be32(b)), csum: uint32(be16(b[4:]))}, be16(b[6:])
		if j.incompat&jbd64bit != 0 {
			t.block |= int64(be32(b[8:])) << 32
		}
		if j.incompat&jbdCsumV3 != 0 {
			t.csum = be32(b[12:])
		}
		t.escape = flags&escape != 0
		tags = append(tags, t)
		b = b[size:]
		if flags&sameUUID == 0 {
			b = b[min(uuid, len(b)):]
		}
		if flags&last != 0 {
			break
		}
	}
	return tags, nil
}

// revokes reads a revoke block.
func (j *journal) revokes(b []byte) ([]int64, error) {
	b, err := j.payload(b)
	if err != nil {
		return nil, err
	}
	count := int(be32(b[jbdHeader:]))
	if count < jbdHeader+4 || count > len(b) {
		return nil, doubt("a revoke block in its journal makes no sense")
	}
	var blocks []int64
	for b = b[jbdHeader+4 : count]; len(b) >= j.revokeSize(); b = b[j.revokeSize():] {
		if j.revokeSize() == 8 {
			blocks = append(blocks, int64(be64(b)))
		} else {
			blocks = append(blocks, int64(be32(b)))
		}
	}
	return blocks, nil
}

func (j *journal) revokeSize() int {
	if j.incompat&jbd64bit != 0 {
		return 8
	}
	return 4
}
