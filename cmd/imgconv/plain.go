package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"xenlvm/lib/blkdev"
	"xenlvm/lib/blockcopy"
	"xenlvm/lib/cli"
	"xenlvm/lib/diskimg"
	"xenlvm/lib/extent"
	"xenlvm/lib/fault"
	"xenlvm/lib/host"
	"xenlvm/lib/run"
	"xenlvm/lib/units"
)

// target is an opened destination.
type target struct {
	f     *os.File
	made  bool // the file was not there
	empty bool // nothing that could be lost
}

// runPlain copies one image or device onto another. What the destination holds
// is read and compared first, if it holds anything: only blocks that differ are
// written.
func (o *options) runPlain(ctx context.Context, e *cli.Env, source, destination string, rate int64) error {
	src, err := o.openSource(source)
	if err != nil {
		return err
	}
	defer src.Close()
	if e.DryRun {
		return o.dryPlain(e, src, source, destination)
	}
	t, err := openTarget(ctx, src, source, destination)
	if err != nil {
		return err
	}
	defer t.f.Close()
	began := time.Now()
	stats, changed, err := o.copyPlain(ctx, e, src, t, rate)
	if err != nil {
		if t.made {
			err = errors.Join(err, os.Remove(destination))
		}
		return err
	}
	if !changed {
		e.Infof("nothing to do: %s is equal to %s", destination, source)
	} else {
		e.Infof("read %s, wrote %s, made %s zero of %s", units.Bytes(stats.BytesRead), units.Bytes(stats.BytesWritten), units.Bytes(stats.BytesZeroed), units.Bytes(stats.Size))
	}
	if e.JSON {
		return e.Emit(map[string]any{"changed": changed, "source": source, "destination": destination, "bytes_read": stats.BytesRead,
			"bytes_written": stats.BytesWritten, "bytes_zeroed": stats.BytesZeroed, "size_bytes": stats.Size, "method": "blocks", "seconds": time.Since(began).Seconds()})
	}
	return nil
}

func (o *options) openSource(path string) (diskimg.Source, error) {
	info, err := diskimg.Probe(path)
	if err != nil {
		return nil, fault.With(fault.Refused, err)
	}
	format := o.format
	if format == "" {
		format = string(diskimg.Raw)
		if info.Format == diskimg.Qcow2 {
			return nil, fault.Hint(fault.Refuse("cannot copy %s: it looks like a qcow2 image", path), "say --format qcow2 if it is one and you trust it; a guest can make its raw disk look so")
		}
	}
	if err := diskimg.CheckFormat(info, format); err != nil {
		return nil, fault.With(fault.Refused, err)
	}
	src, err := diskimg.OpenSource(path, format)
	return src, fault.With(fault.Refused, err)
}

// openTarget opens the destination for us alone, and refuses what must not be
// written to.
func openTarget(ctx context.Context, from diskimg.Source, source, path string) (*target, error) {
	var src, dst unix.Stat_t
	if err := unix.Stat(source, &src); err != nil {
		return nil, fault.Refuse("cannot open %s: %w", source, err)
	}
	err := unix.Stat(path, &dst)
	switch {
	case errors.Is(err, unix.ENOENT):
		return createTarget(ctx, from, path)
	case err != nil:
		return nil, fault.Refuse("cannot open %s: %w", path, err)
	case src.Dev == dst.Dev && src.Ino == dst.Ino:
		return nil, fault.Refuse("cannot copy %s onto itself", source)
	case dst.Mode&unix.S_IFMT == unix.S_IFBLK:
		return openDevice(&src, path, from.Size())
	case dst.Mode&unix.S_IFMT != unix.S_IFREG:
		return nil, fault.Refuse("cannot copy to %s: it is neither a block device nor a regular file", path)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, fault.Refuse("cannot open %s: %w", path, err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fault.Refuse("cannot copy to %s: another run has it", path)
	}
	return &target{f: f, empty: dst.Size == 0}, nil
}

func createTarget(ctx context.Context, from diskimg.Source, path string) (*target, error) {
	if filepath.Dir(path) == "/dev" || filepath.Dir(filepath.Dir(path)) == "/dev" {
		return nil, fault.Refuse("cannot find the device %s", path)
	}
	data, err := from.Data()
	if err != nil {
		return nil, err
	}
	if err := host.NeedSpace(ctx, filepath.Dir(path), units.Bytes(data.Bytes())); err != nil {
		return nil, fault.With(fault.Refused, err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fault.Refuse("cannot create %s: %w", path, err)
	}
	return &target{f: f, made: true, empty: true}, nil
}

func openDevice(src *unix.Stat_t, path string, size int64) (*target, error) {
	dev, err := blkdev.Stat(path)
	if err != nil {
		return nil, err
	}
	sourceDev := blkdev.NumberOf(src.Dev)
	if src.Mode&unix.S_IFMT == unix.S_IFBLK {
		sourceDev = blkdev.NumberOf(src.Rdev)
	}
	switch {
	case dev.DependsOn(sourceDev):
		return nil, fault.Refuse("cannot copy to %s: it is, or is built on, the device %s that holds the source", path, sourceDev)
	case dev.Size < units.Bytes(size):
		return nil, fault.Refuse("cannot copy to %s: the source is %d bytes, the device only %d", path, size, dev.Size)
	}
	if err := dev.Idle(); err != nil {
		return nil, err
	}
	f, err := blkdev.OpenExclusive(path, os.O_RDWR)
	if err != nil {
		return nil, err
	}
	info, err := diskimg.ProbeFile(f)
	if err != nil {
		f.Close()
		return nil, fault.With(fault.Refused, err)
	}
	return &target{f: f, empty: info.Kind == diskimg.Blank}, nil
}

// copyPlain compares, copies and verifies. The boolean says whether the
// destination was written to.
func (o *options) copyPlain(ctx context.Context, e *cli.Env, src diskimg.Source, t *target, rate int64) (blockcopy.Stats, bool, error) {
	phase := func(what string) (blockcopy.Options, *cli.Progress) {
		p := e.Progress(what)
		return blockcopy.Options{BytesPerSecond: rate, Progress: func(now blockcopy.Progress) { p.Update(now.Read, now.Total) }}, p
	}
	opts, p := phase("compare")
	before, equal, err := t.compare(ctx, src, opts)
	p.Done()
	if err != nil || equal {
		return blockcopy.Stats{Size: src.Size()}, false, err
	}
	if !t.empty && !o.overwrite {
		return blockcopy.Stats{}, false, fault.Hint(fault.Refuse("cannot copy to %s: it holds other data", t.f.Name()),
			"--overwrite makes it equal to the source; only blocks that differ are written")
	}
	opts, p = phase("copy")
	opts.Before = before
	stats, sums, err := blockcopy.Copy(ctx, t.f, src, opts)
	p.Done()
	if err == nil {
		err = src.Unchanged()
	}
	if err != nil {
		return stats, true, err
	}
	opts, p = phase("verify")
	err = blockcopy.Verify(ctx, t.f, sums, nil, opts)
	p.Done()
	var m *blockcopy.MismatchError
	if errors.As(err, &m) {
		err = fault.With(fault.Mismatch, fmt.Errorf("cannot trust %s: %w", t.f.Name(), err))
	}
	return stats, true, err
}

// compare reads a destination that holds something, and the source. The digests
// are nil when there is nothing to compare.
func (t *target) compare(ctx context.Context, src diskimg.Source, o blockcopy.Options) (*blockcopy.Digests, bool, error) {
	size, err := t.f.Seek(0, io.SeekEnd)
	if t.empty || err != nil || size < src.Size() {
		return nil, false, err
	}
	sums, err := blockcopy.Scan(ctx, t.f, src.Size(), o)
	if err != nil {
		return nil, false, err
	}
	differ, err := blockcopy.Differ(ctx, src, sums, o)
	if err != nil || !differ.Empty() {
		return sums, false, err
	}
	// Behind the image, a larger destination must be zero, and a file not larger.
	err = blockcopy.Verify(ctx, t.f, sums, new(extent.Of(extent.Range{Off: src.Size(), Len: size - src.Size()})), o)
	var m *blockcopy.MismatchError
	if errors.As(err, &m) {
		return sums, false, nil
	}
	return sums, true, err
}

// dryPlain checks what can be checked without opening the destination for
// writing, and prints the one line that there is.
func (o *options) dryPlain(e *cli.Env, src diskimg.Source, source, destination string) error {
	line := []string{e.Tool}
	if o.overwrite {
		line = append(line, "--overwrite")
	}
	if o.format != "" {
		line = append(line, "--format", o.format)
	}
	if e.JSON {
		return e.Emit(map[string]any{"changed": true, "source": source, "destination": destination, "size_bytes": src.Size(), "method": "blocks"})
	}
	_, err := fmt.Fprintln(e.Stdout, run.Quote(append(line, "--", source, destination)...))
	return err
}
