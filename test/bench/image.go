package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"

	"xenlvm/lib/diskimg"
	"xenlvm/lib/extent"
	"xenlvm/lib/loopdev"
	"xenlvm/lib/mnt"
	"xenlvm/lib/run"
)

// block is the unit of changes and of what counts as old data, in bytes.
const block = 4096

// layout is where an image has random bytes and where zeros that are written;
// the rest are holes.
type layout struct{ random, zeros extent.Set }

func full(size int64, _ *rand.Rand) layout { return layout{random: extent.Whole(size)} }

// scattered is data in runs of 64 KiB to 4 MiB all over the image.
func scattered(size, allocated int64, r *rand.Rand) layout {
	var l layout
	for l.random.Bytes() < allocated {
		n := (1 + r.Int64N(64)) << 16
		l.random.Add(r.Int64N(size-n)/block*block, n)
	}
	return l
}

// halfZeros is runs of 64 KiB to 4 MiB, of random bytes and of zeros in turn.
func halfZeros(size int64, r *rand.Rand) layout {
	var l layout
	for off := int64(0); off < size; {
		n := min((1+r.Int64N(64))<<16, (size-off+1)/2)
		n = max(n, min(block, size-off))
		l.random.Add(off, n)
		l.zeros.Add(off+n, min(n, size-off-n))
		off += 2 * n
	}
	return l
}

func writeImage(ctx context.Context, path string, size int64, l layout, r *rand.Rand) error {
	return withFile(path, func(f *os.File) error {
		if err := f.Truncate(size); err != nil {
			return err
		}
		if err := writeNoise(ctx, f, l.random, r); err != nil {
			return err
		}
		buf := make([]byte, mib)
		for c := range l.zeros.Chunks(mib) {
			if _, err := f.WriteAt(buf[:c.Len], c.Off); err != nil {
				return err
			}
		}
		return nil
	})
}

// withFile opens path for writing, and waits until the disk has what was written.
func withFile(path string, write func(*os.File) error) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	err = write(f)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// noise is a stream of random bytes, faster than the disk.
func noise(r *rand.Rand) io.Reader {
	var seed [32]byte
	for i := range seed {
		seed[i] = byte(r.Uint32())
	}
	return rand.NewChaCha8(seed)
}

func writeNoise(ctx context.Context, f *os.File, where extent.Set, r *rand.Rand) error {
	buf, random := make([]byte, mib), noise(r)
	for c := range where.Chunks(mib) {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		_, _ = random.Read(buf[:c.Len]) // never fails
		if _, err := f.WriteAt(buf[:c.Len], c.Off); err != nil {
			return err
		}
	}
	return nil
}

// copyImage makes to a sparse copy of from and lets change change it.
func copyImage(ctx context.Context, from, to string, change func(*os.File, *image) error) error {
	src, err := openImage(from)
	if err != nil {
		return err
	}
	defer src.Close()
	return withFile(to, func(f *os.File) error {
		if err := f.Truncate(src.size); err != nil {
			return err
		}
		buf := make([]byte, mib)
		for c := range src.data.Chunks(mib) {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err := src.read(buf[:c.Len], c.Off); err != nil {
				return err
			}
			if _, err := f.WriteAt(buf[:c.Len], c.Off); err != nil {
				return err
			}
		}
		return change(f, src)
	})
}

// changeImage copies an image and changes n blocks of its data.
func changeImage(ctx context.Context, from, to string, n int64, r *rand.Rand) error {
	return copyImage(ctx, from, to, func(f *os.File, src *image) error {
		var blocks []int64
		for c := range src.data.Chunks(block) {
			blocks = append(blocks, c.Off)
		}
		var changed extent.Set
		for range max(n, 1) {
			changed.Add(blocks[r.IntN(len(blocks))], block)
		}
		return writeNoise(ctx, f, changed.Clip(src.size), r)
	})
}

// appendImage copies an image and adds n bytes at its end.
func appendImage(ctx context.Context, from, to string, n int64, r *rand.Rand) error {
	return copyImage(ctx, from, to, func(f *os.File, src *image) error {
		return writeNoise(ctx, f, extent.Of(extent.Range{Off: src.size, Len: n}), r)
	})
}

// writeFS makes an ext4 in a file, fills it, and deletes 60 % of that.
func writeFS(ctx context.Context, dir, path string, size int64, r *rand.Rand) (err error) {
	if err := withFile(path, func(f *os.File) error { return f.Truncate(size) }); err != nil {
		return err
	}
	if _, err := (run.Host{}).Run(ctx, run.Cmd{Name: "mkfs.ext4", Args: []string{"-q", "-F", path}, Effect: run.Change}); err != nil {
		return err
	}
	loop, err := loopdev.Attach(ctx, path, loopdev.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, loop.Detach(context.WithoutCancel(ctx))) }()
	m := mnt.Mount{Device: loop.Path, Point: filepath.Join(dir, "guest"), Type: "ext4", RW: true}
	if err := m.Do(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Undo()) }()
	return fill(ctx, m.Point, size, r)
}

// fill writes files of 64 KiB to 4 MiB until three quarters of size are written, and
// deletes three of five.
func fill(ctx context.Context, root string, size int64, r *rand.Rand) error {
	var files []string
	for written := int64(0); written < size*3/4; {
		n := (1 + r.Int64N(min(64, size/(4*mib)))) << 16
		folder := filepath.Join(root, fmt.Sprintf("folder-%d", len(files)%20))
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return err
		}
		path := filepath.Join(folder, fmt.Sprintf("file-%d", len(files)))
		f, err := os.Create(path)
		if err != nil {
			return err
		}
		if err := errors.Join(writeNoise(ctx, f, extent.Whole(n), r), f.Close()); err != nil {
			return err
		}
		files = append(files, path)
		written += n
	}
	r.Shuffle(len(files), func(i, j int) { files[i], files[j] = files[j], files[i] })
	for _, path := range files[:len(files)*3/5] {
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	return nil
}

// image is a source as it must arrive: its data, and zeros everywhere else.
type image struct {
	*os.File
	size int64
	data extent.Set
}

func openImage(path string) (*image, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	i := &image{File: f}
	info, err := f.Stat()
	if err == nil {
		i.size = info.Size()
		i.data, err = diskimg.DataOf(f, i.size)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return i, nil
}

// read fills b from off without touching holes, which would fill the page cache.
func (i *image) read(b []byte, off int64) error {
	clear(b)
	for r := range i.data.Intersect(extent.Of(extent.Range{Off: off, Len: int64(len(b))})).All() {
		if _, err := i.ReadAt(b[r.Off-off:][:r.Len], r.Off); err != nil {
			return err
		}
	}
	return nil
}
