package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/u-root/u-root/pkg/mount"
	"golang.org/x/sys/unix"

	"xenlvm/test/lab/record"
)

// maxBatch is how many records share one fsync when the disk is slower than the rate asked for.
const maxBatch = 256

// disk is one mounted filesystem with a log and files of our own.
type disk struct {
	name  string // xvda
	dir   string // where it is mounted
	files tree
	acked atomic.Uint64 // last acknowledged record

	mu  sync.Mutex // a commit or a verification at a time
	log *record.Log
}

// newDisk names a disk whose filesystem is, or will be, mounted at dir.
func newDisk(name, dir string) *disk {
	lab := filepath.Join(dir, "lab")
	return &disk{name: name, dir: dir, files: tree{dir: filepath.Join(lab, "files"), manifest: filepath.Join(lab, "files.json")}}
}

func (d *disk) logPath() string { return filepath.Join(d.dir, "lab", "records.log") }

// mount waits for the device and mounts whatever filesystem is on it.
func (d *disk) mount(ctx context.Context, limit time.Duration) error {
	if err := waitDevice(ctx, d.name, limit); err != nil {
		return err
	}
	mkdir := func() error { return os.MkdirAll(d.dir, 0o755) }
	if _, err := mount.TryMount("/dev/"+d.name, d.dir, "", 0, mkdir); err != nil {
		return fmt.Errorf("cannot mount %s: %w", d.name, err)
	}
	return nil
}

// check verifies the log and the files and says so. known is the highest record that is known elsewhere to be
// acknowledged. It returns whether the disk may be written to: nothing acknowledged is missing.
func (d *disk) check(con *console, known uint64) (rep record.Report, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	known = max(known, d.acked.Load())
	rep, err := record.VerifyFile(d.logPath())
	switch lost := rep.Lost(known); {
	case err != nil:
		con.lose("disk=%s count=1 acked=%d error=%q", d.name, known, err)
	case lost > 0:
		con.lose("disk=%s count=%d acked=%d %v", d.name, lost, known, rep)
	default:
		ok = true
		if rep.Tail > 0 {
			con.say("torn disk=%s bytes=%d reason=%q", d.name, rep.Tail, rep.Reason)
		}
		con.say("verified disk=%s records=%d last=%d bytes=%d", d.name, rep.Records, rep.Last, rep.Bytes)
	}
	good, bad, err := d.files.verify()
	for _, b := range bad {
		con.lose("disk=%s file=%s", d.name, b)
	}
	if err != nil {
		con.lose("disk=%s files: %v", d.name, err)
	}
	con.say("files disk=%s verified=%d bad=%d", d.name, good, len(bad))
	return rep, ok && err == nil && len(bad) == 0
}

// open continues the log behind what check found.
func (d *disk) open(rep record.Report, boot uint64, size int) error {
	err := os.MkdirAll(d.files.dir, 0o755)
	if err == nil {
		err = record.SyncDir(d.dir)
	}
	if err == nil {
		d.log, err = record.Open(d.logPath(), rep, boot, size)
	}
	if err != nil {
		return fmt.Errorf("cannot open log of %s: %w", d.name, err)
	}
	d.acked.Store(rep.Last)
	return nil
}

// write appends records until the context ends or anything is lost, rate of them per second, or without pause at 0.
func (d *disk) write(ctx context.Context, con *console, rate *atomic.Int64) {
	p := pace{}
	for ctx.Err() == nil && !con.isLost() {
		n, sleep := p.next(time.Now(), rate.Load())
		if n == 0 {
			time.Sleep(sleep)
			continue
		}
		d.mu.Lock()
		first, last, err := d.log.Commit(n, time.Now().UnixNano())
		d.mu.Unlock()
		if errors.Is(err, unix.ENOSPC) {
			con.say("full disk=%s last=%d", d.name, d.log.Last())
			// A delete may make room.
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
			continue
		}
		if err != nil {
			con.say("FAIL disk=%s write: %v", d.name, err)
			return
		}
		d.acked.Store(last)
		con.ack(d.name, first, last, time.Now().UnixNano())
	}
}

// pace spreads records evenly over time.
type pace struct {
	rate  int64
	start time.Time
	done  int64
}

// next returns how many records are due at now, or how long to sleep for the next. A backlog is written in batches and
// one above a batch is forgotten: after a pause the guest goes on at its rate.
func (p *pace) next(now time.Time, rate int64) (n int, sleep time.Duration) {
	if rate <= 0 {
		return 1, 0
	}
	if p.rate != rate {
		*p = pace{rate: rate, start: now}
	}
	due := int64(now.Sub(p.start).Seconds()*float64(rate)) + 1 - p.done
	if due > maxBatch {
		*p = pace{rate: rate, start: now}
		p.done = 1
		return maxBatch, 0
	}
	if due < 1 {
		next := p.start.Add(time.Duration(float64(p.done) / float64(rate) * float64(time.Second)))
		return 0, min(max(next.Sub(now), time.Millisecond), 100*time.Millisecond)
	}
	p.done += due
	return int(due), 0
}

// unmount closes the log and unmounts the filesystem.
func (d *disk) unmount() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var err error
	if d.log != nil {
		err = d.log.Close()
	}
	return errors.Join(err, mount.Unmount(d.dir, false, false))
}

// nextBoot returns the number of this boot, one above what the root disk says.
func (d *disk) nextBoot() uint64 {
	b, err := os.ReadFile(filepath.Join(d.dir, "lab", "boot"))
	if err != nil {
		return 1
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		return 1
	}
	return n + 1
}

// saveBoot stores the number of this boot on the root disk.
func (d *disk) saveBoot(n uint64) error {
	return writeFile(filepath.Join(d.dir, "lab", "boot"), fmt.Appendf(nil, "%d\n", n))
}
