package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"xenlvm/lib/fault"
	"xenlvm/lib/host"
	"xenlvm/lib/loopdev"
	"xenlvm/lib/mnt"
	"xenlvm/lib/run"
	"xenlvm/lib/units"
)

// imagesSize is the nominal size of the file system of the images, which takes
// only what they take.
const imagesSize = 256 * gib

// mountImages makes and mounts a file system for images, in a sparse file of dir.
// Images lie on a device of their own, as on a host: imgconv refuses to write to a
// loop device that lies on the disk of its source. Nothing of it is cached twice.
func mountImages(ctx context.Context, dir string) (point string, unmount func() error, err error) {
	file := filepath.Join(dir, "images.ext4")
	if err := withFile(file, func(f *os.File) error { return f.Truncate(imagesSize) }); err != nil {
		return "", nil, err
	}
	mkfs := run.Cmd{Name: "mkfs.ext4", Args: []string{"-q", "-F", "-O", "^has_journal", "-T", "largefile4", "-E", "lazy_itable_init=1", file}, Effect: run.Change}
	if _, err := (run.Host{}).Run(ctx, mkfs); err != nil {
		return "", nil, err
	}
	loop, err := loopdev.Attach(ctx, file, loopdev.Options{Direct: true, Label: "xenlvm-bench-images"})
	if err != nil {
		return "", nil, err
	}
	detach := func() error { return loop.Detach(context.WithoutCancel(ctx)) }
	m := mnt.Mount{Device: loop.Path, Point: filepath.Join(dir, "images"), Type: "ext4", RW: true, Data: "noinit_itable"}
	if err := m.Do(); err != nil {
		return "", nil, errors.Join(err, detach())
	}
	return m.Point, func() error {
		if err := m.Undo(); err != nil {
			return err
		}
		return detach()
	}, nil
}

// mountRAM mounts a file system in memory that holds a destination of that size.
func mountRAM(ctx context.Context, point string, size int64) (mnt.Mount, error) {
	m := mnt.Mount{Device: "xenlvm-bench", Point: point, Type: "tmpfs", RW: true, Data: fmt.Sprintf("size=%d", size+16*mib)}
	free, err := host.MemoryAvailable(ctx)
	if err == nil && int64(free) < size+gib {
		err = fault.Refuse("cannot hold a destination of %s in memory: %s are available", units.Bytes(size), free)
	}
	if err != nil {
		return m, err
	}
	return m, m.Do()
}

// removeTree removes dir, unless something is still mounted below it: its files
// would go with it.
func removeTree(dir string) error {
	mounts, err := mnt.List()
	if err != nil {
		return err
	}
	for _, m := range mounts {
		if strings.HasPrefix(m.Point, dir+"/") {
			return fmt.Errorf("cannot remove %s: %s is still mounted", dir, m.Point)
		}
	}
	return os.RemoveAll(dir)
}
