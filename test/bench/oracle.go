package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"xenlvm/lib/extent"
	"xenlvm/lib/loopdev"
	"xenlvm/lib/mnt"
	"xenlvm/lib/run"
	"xenlvm/lib/treesum"
)

// What an oracle says of a destination.
const (
	identical  = "identical"  // byte by byte
	sameFiles  = "filesystem" // sound, and every file, but not every byte
	wrong      = "wrong"      //
	failed     = "failed"     // the tool said so itself
	unmeasured = "none"       // nothing to judge: a bound
)

// verdict is about one destination.
type verdict struct {
	state string
	stale int64 // bytes that are still the old ones, in whole blocks
	why   string
}

// judge compares a destination with its image, past the page cache. Tools that
// know the file system may leave its free blocks as they were, unless strict; ours
// never leave old data in them.
func judge(ctx context.Context, s scene, t tool, destination, dir string) (verdict, error) {
	v, err := compareBytes(ctx, s.image, destination)
	if err != nil || v.state == identical || !s.fs || !(t.fs || t.aware) {
		return v, err
	}
	if (s.strict || t.aware) && v.stale > 0 {
		v.why = fmt.Sprintf("%d old bytes are left", v.stale)
		return v, nil
	}
	v.why, err = compareFiles(ctx, s.image, destination, dir)
	if v.why == "" && err == nil {
		v.state = sameFiles
	}
	return v, err
}

// compareBytes reads both from end to end.
func compareBytes(ctx context.Context, source, destination string) (verdict, error) {
	src, err := openImage(source)
	if err != nil {
		return verdict{}, err
	}
	defer src.Close()
	dst, err := os.OpenFile(destination, os.O_RDONLY|unix.O_DIRECT, 0)
	if err != nil {
		return verdict{}, err
	}
	defer dst.Close()
	var differ, stale, first atomic.Int64
	first.Store(-1)
	err = inParallel(ctx, extent.Whole(src.size), func(b []byte, off int64) error {
		want := make([]byte, len(b)) // the collector gives it back: one at a time for each of two
		if err := src.read(want, off); err != nil {
			return err
		}
		if _, err := dst.ReadAt(b, off); err != nil {
			return fmt.Errorf("cannot read destination at %d: %w", off, err)
		}
		if bytes.Equal(b, want) {
			return nil
		}
		for at := 0; at < len(b); at += block {
			end := min(at+block, len(b))
			if bytes.Equal(b[at:end], want[at:end]) {
				continue
			}
			differ.Add(int64(end - at))
			first.CompareAndSwap(-1, off+int64(at))
			if isOld(b[at:end]) {
				stale.Add(int64(end - at))
			}
		}
		return nil
	})
	v := verdict{state: identical, stale: stale.Load()}
	if n := differ.Load(); n > 0 {
		v.state = wrong
		v.why = fmt.Sprintf("%d bytes differ, such as those at %d", n, first.Load())
	}
	return v, err
}

func isOld(b []byte) bool { return bytes.Count(b, []byte{oldByte}) == len(b) }

// compareFiles checks the destination's file system and compares its tree with
// the image's. The string says what is wrong.
func compareFiles(ctx context.Context, source, destination, dir string) (why string, err error) {
	if _, err := (run.Host{}).Run(ctx, run.Cmd{Name: "e2fsck", Args: []string{"-f", "-n", destination}}); err != nil {
		return "e2fsck is not content", ctx.Err()
	}
	loop, err := loopdev.Attach(ctx, source, loopdev.Options{ReadOnly: true, Label: "xenlvm-bench-source"})
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, loop.Detach(context.WithoutCancel(ctx))) }()
	var mounts [2]mnt.Mount
	for i, device := range []string{loop.Path, destination} {
		m := mnt.Mount{Device: device, Point: filepath.Join(dir, fmt.Sprintf("tree-%d", i)), Type: "ext4", Data: mnt.ReadOnly("ext4")}
		if err := m.Do(); err != nil {
			return "", err
		}
		defer func() { err = errors.Join(err, m.Undo()) }()
		mounts[i] = m
	}
	report, err := treesum.Compare(ctx, mounts[0].Point, mounts[1].Point, treesum.Options{Limit: 1})
	if err != nil || report.Equal() {
		return "", err
	}
	return report.Differences[0].String(), nil
}
