package fsmap

import "bytes"

// The log is a ring of sectors of 512 bytes, each of which begins with the
// number of the cycle that wrote it (fs/xfs/libxfs/xfs_log_format.h).
const (
	logSector = 512
	logMagic  = 0xfeedbabe
	// logWindow is how far behind the head writes may have been out of order, in
	// sectors: 8 buffers of 256 KiB.
	logWindow = 8 * 256 << 10 / logSector
	// logRecord is the longest record, in sectors: 256 KiB and its headers.
	logRecord = 256<<10/logSector + 8
)

// cycleOf is the cycle that wrote a sector.
func cycleOf(b []byte) uint32 {
	if be32(b) == logMagic {
		return be32(b[4:])
	}
	return be32(b)
}

// logIsEmpty doubts a filesystem whose log must be replayed first, as it is
// whenever it is mounted. The log is empty if the record before its head says
// that the filesystem was unmounted (xlog_find_tail in fs/xfs/xfs_log_recover.c).
func (x *xfs) logIsEmpty() error {
	head, err := x.logHead()
	if err != nil {
		return err
	}
	n := x.logSize / logSector
	for back := int64(1); back <= min(logRecord, n); back++ {
		i := (head - back + n) % n
		b, err := x.logSectors(i, 1)
		if err != nil {
			return err
		}
		if be32(b) == logMagic {
			return x.unmounted(b, i, head)
		}
	}
	return doubt("its log has no last record")
}

func (x *xfs) logSectors(i, n int64) ([]byte, error) {
	return x.at(x.logStart+i*logSector, int(n)*logSector)
}

// logHead is the sector behind the last one written. A log with gaps, as a crash
// may leave them, is a doubt.
func (x *xfs) logHead() (int64, error) {
	cycle := func(i int64) (uint32, error) {
		b, err := x.logSectors(i, 1)
		if err != nil {
			return 0, err
		}
		return cycleOf(b), nil
	}
	n := x.logSize / logSector
	first, err := cycle(0)
	if err != nil {
		return 0, err
	}
	last, err := cycle(n - 1)
	if err != nil {
		return 0, err
	}
	head := n
	if first != last {
		written := int64(0)
		for head = n - 1; head-written > 1; {
			middle := (written + head) / 2
			c, err := cycle(middle)
			if err != nil {
				return 0, err
			}
			if c == last {
				head = middle
			} else {
				written = middle
			}
		}
	}
	if first == 0 || first != last && first != last+1 {
		return 0, doubt("its log makes no sense")
	}
	// Ahead of the head, and behind it, each part must be of one cycle.
	for _, part := range []struct {
		from, to int64
		cycle    uint32
	}{
		{max(0, head-logWindow), head, first},
		{head, min(n, head+logWindow), last},
		{max(head, n-max(0, logWindow-head)), n, last},
	} {
		b, err := x.logSectors(part.from, part.to-part.from)
		if err != nil {
			return 0, err
		}
		for ; len(b) > 0; b = b[logSector:] {
			if cycleOf(b) != part.cycle {
				return 0, doubt("its log is not empty")
			}
		}
	}
	return head % n, nil
}

// unmounted doubts the log unless the record in sector i with the header b is
// that of an unmount and ends at the head.
func (x *xfs) unmounted(b []byte, i, head int64) error {
	n := x.logSize / logSector
	headers := int64(1)
	if size := int64(be32(b[320:])); x.logV2 && be32(b[8:])&2 != 0 && size > 32<<10 {
		headers = (size + 32<<10 - 1) / (32 << 10)
	}
	sectors := (int64(be32(b[12:])) + logSector - 1) / logSector
	if !bytes.Equal(b[304:320], x.uuid) || be64(b[16:]) != uint64(be32(b[4:]))<<32|uint64(i) {
		return doubt("its log is that of another filesystem")
	}
	if (i+headers+sectors)%n == head && be32(b[40:]) == 1 {
		const client, unmount = 0xaa, 0x20
		op, err := x.logSectors((i+headers)%n, 1)
		if err != nil {
			return err
		}
		if op[8] == client && op[9]&unmount != 0 {
			return nil
		}
	}
	return doubt("its log is not empty")
}
