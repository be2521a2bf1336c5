package record

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
)

// Report is what a reading of a whole log found.
type Report struct {
	Records uint64 // intact records from the start on, in order
	Last    uint64 // number of the last of them, 0 for an empty log
	Boot    uint64 // boot count in the last of them
	Sum     uint64 // sum of the last of them
	Bytes   int64  // length of this intact part
	Tail    int64  // bytes behind it
	Reason  string // why the reading ended before the end of the file; "" when it did not
	After   uint64 // records behind the bad spot that are intact by themselves
	Durable uint64 // highest number that some intact record, before or behind the bad spot, calls acknowledged
}

// Lost returns how many acknowledged records are missing or damaged, given the highest number that is known outside the
// log to be acknowledged (0 when nobody knows). A tail that was never acknowledged is not a loss.
func (r Report) Lost(acked uint64) uint64 {
	floor := max(acked, r.Durable)
	if floor <= r.Last {
		return 0
	}
	return max(1, floor-r.Last-min(r.After, floor-r.Last))
}

// String is one line for a console: no newline, key=value words, the reason last.
func (r Report) String() string {
	s := fmt.Sprintf("records=%d last=%d bytes=%d", r.Records, r.Last, r.Bytes)
	if r.Reason != "" {
		s += fmt.Sprintf(" tail=%d after=%d durable=%d reason=%q", r.Tail, r.After, r.Durable, r.Reason)
	}
	return s
}

// Verify reads a log of size bytes and checks every record: magic, number, chain, sum and payload. Damage is in the
// report; the error is for a log that cannot be read.
func Verify(f io.ReaderAt, size int64) (Report, error) {
	var rep Report
	in := bufio.NewReaderSize(io.NewSectionReader(f, 0, size), 1<<20)
	var buf []byte
	for rep.Bytes < size {
		rec, whole, reason, err := next(in, buf[:0], size-rep.Bytes, rep)
		if err != nil {
			return rep, fmt.Errorf("cannot read record %d at offset %d: %w", rep.Last+1, rep.Bytes, err)
		}
		if reason != "" {
			rep.Reason = fmt.Sprintf("record %d at offset %d: %s", rep.Last+1, rep.Bytes, reason)
			rep.Tail = size - rep.Bytes
			return rep, searchAfter(f, size, &rep)
		}
		buf = whole
		rep.Records++
		rep.Last, rep.Boot, rep.Sum = rec.Number, rec.Boot, rec.Sum
		rep.Durable = max(rep.Durable, rec.Durable)
		rep.Bytes += int64(rec.Len())
	}
	return rep, nil
}

// next reads one record that must continue rep, of at most left bytes. reason says what is wrong with it, if anything.
func next(in *bufio.Reader, buf []byte, left int64, rep Report) (rec Record, whole []byte, reason string, err error) {
	if left < HeaderSize {
		return rec, buf, "cut off in the header", nil
	}
	head, err := in.Peek(HeaderSize)
	if err != nil {
		return rec, buf, "", noEOF(err)
	}
	rec, ok := header(head)
	switch {
	case !bytes.Equal(head[:4], magic):
		return rec, buf, "no magic", nil
	case !ok:
		return rec, buf, "impossible length", nil
	case int64(rec.Len()) > left:
		return rec, buf, "cut off in the payload", nil
	}
	buf = append(buf, make([]byte, rec.Len())...)
	if _, err := io.ReadFull(in, buf); err != nil {
		return rec, buf, "", noEOF(err)
	}
	switch {
	case !intact(buf, rec):
		return rec, buf, "sum or payload differs", nil
	case rec.Number != rep.Last+1:
		return rec, buf, fmt.Sprintf("has number %d", rec.Number), nil
	case rec.Prev != rep.Sum:
		return rec, buf, "does not continue the record before it", nil
	case rec.Durable >= rec.Number:
		return rec, buf, "claims to be acknowledged before it was written", nil
	}
	return rec, buf, "", nil
}

// searchAfter looks behind the intact part for records that are intact by themselves: they tell damage in the middle
// from a torn tail.
func searchAfter(f io.ReaderAt, size int64, rep *Report) error {
	const window = 4 << 20 // at least two longest records
	buf := make([]byte, min(window, size-rep.Bytes))
	// The search begins at the bad spot itself: the record there may be intact and only misplaced.
	for at := rep.Bytes; at < size; {
		n, err := f.ReadAt(buf[:min(int64(len(buf)), size-at)], at)
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("cannot read log behind offset %d: %w", at, err)
		}
		if n == 0 {
			return nil
		}
		used := scan(buf[:n], at+int64(n) >= size, rep)
		at += int64(used)
	}
	return nil
}

// scan counts the intact records in b and returns how many bytes of b are dealt with; the rest may be the beginning of
// a record that ends behind b, unless b is the end of the file.
func scan(b []byte, atEnd bool, rep *Report) int {
	pos := 0
	for {
		i := bytes.Index(b[pos:], magic)
		if i < 0 {
			break
		}
		pos += i
		rec, ok := header(b[pos:])
		fits := pos+HeaderSize <= len(b) && (!ok || pos+rec.Len() <= len(b))
		switch {
		case !fits && !atEnd:
			return pos
		case fits && ok && intact(b[pos:pos+rec.Len()], rec):
			rep.After++
			rep.Durable = max(rep.Durable, rec.Durable)
			pos += rec.Len()
		default:
			pos++
		}
	}
	if atEnd {
		return len(b)
	}
	return max(pos, len(b)-len(magic)+1)
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
