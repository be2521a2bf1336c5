package fsmap

import (
	"cmp"
	"encoding/binary"
	"hash/crc32"
	"slices"

	"xenlvm/lib/extent"
)

// freeRuns collects free ranges in ascending order. It keeps those that are
// worth a gap and counts all.
type freeRuns struct {
	gap  int64
	meta []extent.Range // what must not be free, ascending

	runs  []extent.Range
	total int64
	last  extent.Range
}

// add counts n free bytes at off, behind all that were added before.
func (f *freeRuns) add(off, n int64) error {
	for len(f.meta) > 0 && f.meta[0].End() <= off {
		f.meta = f.meta[1:]
	}
	if len(f.meta) > 0 && f.meta[0].Off < off+n {
		return doubtf("byte %d is marked free and holds metadata", max(off, f.meta[0].Off))
	}
	f.total += n
	if f.last.Len > 0 && f.last.End() == off {
		f.last.Len += n
		return nil
	}
	f.end()
	f.last = extent.Range{Off: off, Len: n}
	return nil
}

// end takes in the last range.
func (f *freeRuns) end() {
	if f.last.Len >= f.gap {
		f.runs = append(f.runs, f.last)
	}
	f.last = extent.Range{}
}

// sorted is the union of ranges, ascending; it changes their order.
func sorted(ranges []extent.Range) []extent.Range {
	slices.SortFunc(ranges, func(a, b extent.Range) int { return cmp.Compare(a.Off, b.Off) })
	return slices.Collect(extent.Of(ranges...).All())
}

// crc32c is the checksum of Linux with a seed: as hash/crc32 does it, without
// the inversion before and after.
func crc32c(seed uint32, parts ...[]byte) uint32 {
	crc := ^seed
	for _, b := range parts {
		crc = crc32.Update(crc, crc32.MakeTable(crc32.Castagnoli), b)
	}
	return ^crc
}

// crc16 is the checksum of uninit_bg, polynomial 0x8005 reflected.
func crc16(crc uint16, parts ...[]byte) uint16 {
	for _, b := range parts {
		for _, c := range b {
			crc ^= uint16(c)
			for range 8 {
				low := crc & 1
				crc >>= 1
				if low != 0 {
					crc ^= 0xa001
				}
			}
		}
	}
	return crc
}

func le16(b []byte) uint16 { return binary.LittleEndian.Uint16(b) }
func le32(b []byte) uint32 { return binary.LittleEndian.Uint32(b) }
func be16(b []byte) uint16 { return binary.BigEndian.Uint16(b) }
func be32(b []byte) uint32 { return binary.BigEndian.Uint32(b) }
func be64(b []byte) uint64 { return binary.BigEndian.Uint64(b) }

// Numbers as they enter a checksum.
func le32bytes(n uint32) []byte { return binary.LittleEndian.AppendUint32(nil, n) }
func be32bytes(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }
