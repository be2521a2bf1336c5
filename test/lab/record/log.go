package record

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// VerifyFile reads the log at path. A log that does not exist is an empty one.
func VerifyFile(path string) (Report, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return Report{}, nil
	}
	if err != nil {
		return Report{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return Report{}, err
	}
	return Verify(f, info.Size())
}

// Log is a log open for appending. Its methods must not be called at the same time.
type Log struct {
	f       *os.File
	end     int64
	sum     uint64
	last    uint64 // last record written
	boot    uint64
	size    int
	broken  error // set once a write or fsync failed: what the disk holds is unknown from then on
	scratch []byte
}

// Open continues the log at path behind what rep, the result of VerifyFile, found intact; a torn tail is cut off, which
// is why a caller must have ruled out a loss before. boot is stored in every record, size is the payload length in bytes.
func Open(path string, rep Report, boot uint64, size int) (*Log, error) {
	if size < 0 || size > MaxPayload {
		return nil, fmt.Errorf("cannot write records of %d bytes: a payload has 0 to %d", size, MaxPayload)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	err = f.Truncate(rep.Bytes)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = SyncDir(filepath.Dir(path))
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return &Log{f: f, end: rep.Bytes, sum: rep.Sum, last: rep.Last, boot: boot, size: size}, nil
}

// Last is the number of the last acknowledged record, 0 when there is none.
func (l *Log) Last() uint64 { return l.last }

// Commit appends n records with one write and one fsync. When it returns without error, the records first to last are
// acknowledged. After an error that leaves the disk's content unknown, every further call fails with the same error; an
// error that is syscall.ENOSPC leaves the log as it was.
func (l *Log) Commit(n int, now int64) (first, last uint64, err error) {
	if l.broken != nil {
		return 0, 0, l.broken
	}
	buf, sum := l.scratch[:0], l.sum
	for i := range n {
		r := Record{Number: l.last + 1 + uint64(i), Durable: l.last, Time: now, Boot: l.boot, Prev: sum, Size: l.size}
		buf, sum = Append(buf, r)
	}
	l.scratch = buf
	if _, err := l.f.WriteAt(buf, l.end); err != nil {
		if terr := l.f.Truncate(l.end); terr != nil {
			l.broken = errors.Join(err, terr)
			return 0, 0, l.broken
		}
		return 0, 0, err
	}
	if err := l.f.Sync(); err != nil {
		l.broken = err
		return 0, 0, err
	}
	first = l.last + 1
	l.end += int64(len(buf))
	l.sum = sum
	l.last += uint64(n)
	return first, l.last, nil
}

// Verify reads the log again from the disk's own copy as far as the page cache lets it; the caller drops the cache.
func (l *Log) Verify() (Report, error) {
	info, err := l.f.Stat()
	if err != nil {
		return Report{}, err
	}
	return Verify(l.f, info.Size())
}

// Close closes the file. Everything acknowledged is on the disk already.
func (l *Log) Close() error { return l.f.Close() }

// SyncDir makes a created, renamed or removed name in dir durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
