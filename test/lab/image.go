package main

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/ulikunitz/xz"
)

// rootSize is the size of the dom0 root file system. The file is sparse.
const rootSize = "4G"

// image is a built dom0 in the cache. Nothing writes to it: runs go through a
// throwaway layer.
type image struct {
	suite suite
	dir   string
}

// Files of an image, relative to its folder.
const (
	rootDisk   = "root.img"
	xenKernel  = "xen"
	linux      = "vmlinuz"
	initrd     = "initrd.cpio"
	modulesDir = "modules" // the guest's modules, unpacked
)

// image returns the suite's dom0 image, building it when the cache has none for
// this recipe.
func (l *lab) image(ctx context.Context, s suite) (image, error) {
	img := image{suite: s, dir: filepath.Join(l.cache, "image-"+s.key())}
	if exists(img.dir) {
		return img, nil
	}
	unlock, err := l.lock("image-" + s.name)
	if err != nil {
		return image{}, err
	}
	defer unlock()
	if exists(img.dir) { // another lab built it while we waited
		return img, nil
	}
	start := time.Now()
	if err := l.buildImage(ctx, img); err != nil {
		return image{}, fmt.Errorf("cannot build the %s image: %w", s.name, err)
	}
	l.logf("built %s in %.0f s", img.dir, time.Since(start).Seconds())
	return img, nil
}

// buildImage fills a temporary folder beside img.dir and renames it last.
func (l *lab) buildImage(ctx context.Context, img image) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("debootstrap needs root")
	}
	tmp, err := os.MkdirTemp(l.cache, "building-")
	if err != nil {
		return err
	}
	// Nothing is ever mounted below tmp in this mount namespace (see
	// debootstrap), so removing it cannot reach outside.
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()

	out, tree := filepath.Join(tmp, "image"), filepath.Join(tmp, "tree")
	if err := os.Mkdir(out, 0o755); err != nil {
		return err
	}
	if err := l.debootstrap(ctx, img.suite, tree); err != nil {
		return err
	}
	if err := finishTree(tree); err != nil {
		return err
	}
	if err := takeKernels(tree, out, img.suite); err != nil {
		return err
	}
	if err := l.bootInitramfs(tree, filepath.Join(out, initrd), tmp); err != nil {
		return err
	}
	if err := takeModules(tree, filepath.Join(out, modulesDir), guestModules); err != nil {
		return err
	}
	if err := makeExt4(ctx, filepath.Join(out, rootDisk), tree, rootSize); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(out, "recipe"), []byte(img.suite.recipe()), 0o644); err != nil {
		return err
	}
	return os.Rename(out, img.dir)
}

// debootstrap installs the suite's packages into tree. It mounts /proc and /sys
// there, so it gets namespaces of its own: whatever happens to it, its mounts and
// its processes end with it.
func (l *lab) debootstrap(ctx context.Context, s suite, tree string) error {
	args := []string{"--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc",
		"debootstrap", "--variant=minbase", "--include=" + strings.Join(s.packages(), ","), s.name, tree}
	if mirror := debianMirror(ctx); mirror != "" {
		args = append(args, mirror)
	}
	l.logf("building the %s dom0 image, once, in about three minutes: %s", s.name, strings.Join(args[7:], " "))
	out, err := exec.CommandContext(ctx, "unshare", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("debootstrap: %w\n%s", err, lastLines(string(out), 15))
	}
	return nil
}

// finishTree makes the tree bootable by our init and drops what only dpkg needs.
func finishTree(tree string) error {
	files := map[string]string{
		"etc/hostname": "lab\n",
		"etc/hosts":    "127.0.0.1 localhost lab\n",
		"etc/fstab":    "",
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(tree, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(tree, "lab-init"), []byte(labInit), 0o755); err != nil {
		return err
	}
	for _, dir := range []string{"var/cache/apt/archives", "var/lib/apt/lists"} {
		if err := os.RemoveAll(filepath.Join(tree, dir)); err != nil {
			return err
		}
	}
	return nil
}

// takeKernels copies the hypervisor and the kernel out of tree. QEMU wants the
// hypervisor as the plain multiboot ELF.
func takeKernels(tree, out string, s suite) error {
	boot := filepath.Join(tree, "boot")
	for name, pattern := range map[string]string{
		xenKernel: "xen-" + s.xen + "-amd64.gz", linux: "vmlinuz-*",
	} {
		found, err := filepath.Glob(filepath.Join(boot, pattern))
		if err != nil {
			return err
		}
		if len(found) != 1 {
			return fmt.Errorf("cannot choose one %s in /boot: found %d", pattern, len(found))
		}
		if err := unpack(found[0], filepath.Join(out, name)); err != nil {
			return err
		}
	}
	return nil
}

// unpack copies a file into a new one, decompressing .gz and .xz.
func unpack(from, to string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	var r io.Reader = src
	switch filepath.Ext(from) {
	case ".gz":
		r, err = gzip.NewReader(src)
	case ".xz":
		r, err = xz.NewReader(src)
	}
	if err != nil {
		return fmt.Errorf("cannot unpack %s: %w", from, err)
	}
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, r)
	return errors.Join(err, dst.Close())
}

// makeExt4 makes a file system of the given size in a new file, holding tree
// (or nothing, for ""). It needs neither a mount nor root.
func makeExt4(ctx context.Context, file, tree, size string) error {
	args := []string{"-q", "-t", "ext4", "-E", "root_owner=0:0"}
	if tree != "" {
		args = append(args, "-d", tree)
	}
	out, err := exec.CommandContext(ctx, "mke2fs", append(args, file, size)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("cannot make %s: mke2fs: %w: %s", file, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// lastLines returns the last n lines of text.
func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
