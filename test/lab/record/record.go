// Package record is the log by which a lab guest proves that its disk lost nothing: numbered, chained, checksummed
// records in one append-only file. The guest writes and verifies it; tests damage it.
//
// A record is a header of HeaderSize bytes, little endian, and a payload that follows from its number alone:
//
//	offset size
//	     0    4  magic "xlR1"
//	     4    4  payload length in bytes
//	     8    8  number; the first record of a log is 1
//	    16    8  durable: the highest number already acknowledged when this record was written
//	    24    8  wall clock, Unix nanoseconds
//	    32    8  boot count of the guest
//	    40    8  sum of the record before it, 0 for the first
//	    48    8  sum: CRC-64/ECMA of bytes 0-47 and the payload
//
// The previous sum ties a record to the one history it was written in: a block that came back from an older copy of the
// disk is intact by itself and still breaks the chain. The durable field lets the log tell a torn tail, which a crash may
// leave, from the loss of an acknowledged record, with no help from outside.
package record

import (
	"bytes"
	"encoding/binary"
	"hash/crc64"
)

// HeaderSize is the length of a record's header in bytes.
const HeaderSize = 56

// MaxPayload is the longest payload in bytes that a log may hold.
const MaxPayload = 1 << 20

var (
	magic = []byte("xlR1")
	table = crc64.MakeTable(crc64.ECMA)
)

// Record is one record's header. Size is the payload length in bytes, Time Unix nanoseconds.
type Record struct {
	Number  uint64
	Durable uint64
	Time    int64
	Boot    uint64
	Prev    uint64
	Sum     uint64
	Size    int
}

// Len is the whole length of the record in bytes.
func (r Record) Len() int { return HeaderSize + r.Size }

// Append encodes r behind dst, with its payload, and returns the longer slice and the record's sum; r.Sum is ignored.
func Append(dst []byte, r Record) ([]byte, uint64) {
	start := len(dst)
	dst = append(dst, magic...)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(r.Size))
	for _, v := range []uint64{r.Number, r.Durable, uint64(r.Time), r.Boot, r.Prev, 0} {
		dst = binary.LittleEndian.AppendUint64(dst, v)
	}
	dst = Payload(dst, r.Number, r.Size)
	b := dst[start:]
	sum := sumOf(b)
	binary.LittleEndian.PutUint64(b[48:], sum)
	return dst, sum
}

// Payload appends the size bytes that belong to a record number.
func Payload(dst []byte, number uint64, size int) []byte {
	var word [8]byte
	x := number
	for size > 0 {
		// SplitMix64: no byte of a payload repeats the block before it, so a misplaced block cannot pass.
		x += 0x9e3779b97f4a7c15
		z := x
		z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		binary.LittleEndian.PutUint64(word[:], z^z>>31)
		n := min(size, len(word))
		dst = append(dst, word[:n]...)
		size -= n
	}
	return dst
}

// header reads the fixed part of a record and says whether it can be one.
func header(b []byte) (Record, bool) {
	if len(b) < HeaderSize || !bytes.Equal(b[:4], magic) {
		return Record{}, false
	}
	u := func(at int) uint64 { return binary.LittleEndian.Uint64(b[at:]) }
	size := binary.LittleEndian.Uint32(b[4:])
	r := Record{Number: u(8), Durable: u(16), Time: int64(u(24)), Boot: u(32), Prev: u(40), Sum: u(48), Size: int(size)}
	return r, size <= MaxPayload
}

// intact says whether b, one whole record, carries the sum and the payload that its header promises.
func intact(b []byte, r Record) bool {
	return sumOf(b) == r.Sum && bytes.Equal(b[HeaderSize:], Payload(make([]byte, 0, r.Size), r.Number, r.Size))
}

func sumOf(b []byte) uint64 {
	return crc64.Update(crc64.Update(0, table, b[:48]), table, b[HeaderSize:])
}
