package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"xenlvm/lib/blkdev"
	"xenlvm/lib/directio"
	"xenlvm/lib/extent"
	"xenlvm/lib/host"
	"xenlvm/lib/loopdev"
	"xenlvm/lib/units"
)

// oldByte is what a destination is full of before a copy.
const oldByte = 0xA5

// kind is what a destination is like.
type kind struct {
	ram    bool // in memory, where zeros are really written
	direct bool // past the page cache of its disk, as a logical volume is
	still  bool // the kernel is told that it does not turn
}

// target is the destination: a loop device over a file of its own, written from
// end to end unless sparse.
type target struct {
	file string
	size int64
	loop *loopdev.Device
}

// newTarget makes the file and attaches it.
func newTarget(ctx context.Context, dir string, size int64, k kind) (*target, error) {
	if err := host.NeedSpace(ctx, dir, units.Bytes(size)); err != nil {
		return nil, err
	}
	t := &target{file: filepath.Join(dir, "target"), size: size}
	if err := withFile(t.file, func(f *os.File) error { return f.Truncate(size) }); err != nil {
		return nil, err
	}
	var err error
	t.loop, err = loopdev.Attach(ctx, t.file, loopdev.Options{Direct: k.direct, Label: "xenlvm-bench"})
	if err == nil && k.still {
		knob := filepath.Join("/sys/block", filepath.Base(t.loop.Path), "queue/rotational")
		if err = os.WriteFile(knob, []byte("0"), 0); err != nil {
			err = errors.Join(err, t.remove(ctx))
		}
	}
	return t, err
}

// remove detaches the device, even after an interruption, and deletes the file.
func (t *target) remove(ctx context.Context) error {
	if err := t.loop.Detach(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	return os.Remove(t.file)
}

// fill makes the destination a copy of the image base, "" for none, with the old
// byte behind it. A new sparse file is full of zeros, and gets base's data only.
func (t *target) fill(ctx context.Context, base string, sparse bool) error {
	known := extent.Set{}
	if base != "" {
		src, err := openImage(base)
		if err != nil {
			return err
		}
		defer src.Close()
		known = extent.Whole(src.size)
		what := known
		if sparse {
			what = src.data.Align(directio.Align).Clip(src.size)
		}
		if err := writeAll(ctx, t.loop.Path, what, src.read); err != nil {
			return err
		}
	}
	if sparse {
		return nil
	}
	old := bytes.Repeat([]byte{oldByte}, int(mib))
	return writeAll(ctx, t.loop.Path, extent.Whole(t.size).Subtract(known), func(b []byte, _ int64) error {
		copy(b, old)
		return nil
	})
}

// writeAll writes ranges of a device past the page cache, two requests at a time,
// and waits until the device has them. content fills a request's bytes.
func writeAll(ctx context.Context, device string, what extent.Set, content func(b []byte, off int64) error) error {
	f, err := os.OpenFile(device, os.O_WRONLY|unix.O_DIRECT, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := inParallel(ctx, what, func(b []byte, off int64) error {
		if err := content(b, off); err != nil {
			return err
		}
		_, err := f.WriteAt(b, off)
		return err
	}); err != nil {
		return err
	}
	return f.Sync()
}

// inParallel calls do for requests of at most 1 MiB of what, two at a time, each
// with an aligned buffer. The first error ends it.
func inParallel(ctx context.Context, what extent.Set, do func(b []byte, off int64) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	work := make(chan extent.Range)
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			buf := directio.Buffer(int(mib))
			for r := range work {
				if err := do(buf[:r.Len], r.Off); err != nil {
					cancel(err)
					return
				}
			}
		})
	}
feed:
	for r := range what.Chunks(mib) {
		select {
		case work <- r:
		case <-ctx.Done():
			break feed
		}
	}
	close(work)
	wg.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// flush waits until the destination has everything that was written to it.
func (t *target) flush() error {
	f, err := os.OpenFile(t.loop.Path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// written is how many bytes were written to the device, zeros included.
func (t *target) written() (int64, error) {
	d, err := blkdev.Stat(t.loop.Path)
	if err != nil {
		return 0, err
	}
	n, err := d.Written()
	return n * int64(units.Sector), err
}

// readThrough reads what of f, so that it is in the page cache, and says how much.
func readThrough(ctx context.Context, f *os.File, what extent.Set) (int64, error) {
	var n atomic.Int64
	err := inParallel(ctx, what, func(b []byte, off int64) error {
		got, err := f.ReadAt(b, off)
		n.Add(int64(got))
		return err
	})
	return n.Load(), err
}

// dropCaches empties the page cache of the machine.
func dropCaches() error {
	unix.Sync()
	return os.WriteFile("/proc/sys/vm/drop_caches", []byte("3\n"), 0)
}
