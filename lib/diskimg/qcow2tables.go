package diskimg

import (
	"encoding/binary"
	"fmt"
	"io"
	"slices"
)

// The entries of a qcow2 image's tables (qemu docs/interop/qcow2): where a cluster
// lies in the file, in both levels, and what the second one has instead.
const (
	qcow2Offset     = 1<<56 - 1<<9
	qcow2Compressed = 1 << 62
)

// checkTables refuses an image whose tables refer to what is no cluster. The reader
// below would follow them, and find zeros where the disk has data.
func (q *qcow2Disk) checkTables() error {
	var h [48]byte
	if _, err := q.file.ReadAt(h[:], 0); err != nil {
		return err
	}
	at := int64(binary.BigEndian.Uint64(h[40:]))
	perEntry := q.file.cluster / 8 * q.file.cluster // bytes of the disk
	first := make([]byte, (q.size+perEntry-1)/perEntry*8)
	if _, err := q.file.ReadAt(first, at); err != nil {
		return fmt.Errorf("its first-level table cannot be read: %w", err)
	}
	tables, err := q.clusters(first, at, 0)
	if err != nil {
		return err
	}
	// A hostile image may refer to one table millions of times.
	slices.Sort(tables)
	second := make([]byte, q.file.cluster)
	for _, at := range slices.Compact(tables) {
		if _, err := q.file.ReadAt(second, at); err != nil && err != io.EOF {
			return fmt.Errorf("its table at %d cannot be read: %w", at, err)
		}
		if _, err := q.clusters(second, at, qcow2Compressed); err != nil {
			return err
		}
	}
	return nil
}

// clusters are those that the table at offset at refers to, but for entries with the
// flag other.
func (q *qcow2Disk) clusters(table []byte, at int64, other uint64) ([]int64, error) {
	var all []int64
	for i := 0; i < len(table); i += 8 {
		e := binary.BigEndian.Uint64(table[i:])
		off := int64(e & qcow2Offset)
		if off == 0 || e&other != 0 {
			continue
		}
		if off%q.file.cluster != 0 {
			return nil, fmt.Errorf("it is damaged: its table at %d refers to %d, which is no cluster (check it first: qemu-img check -r all)", at, off)
		}
		all = append(all, off)
	}
	return all, nil
}
