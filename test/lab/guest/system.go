package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/u-root/u-root/pkg/mount"
	"golang.org/x/sys/unix"
)

// modulesDir holds uncompressed kernel modules, and a file named load that lists them in the order to load them in.
const modulesDir = "/lib/modules"

// prepare makes an initramfs a system: pseudo filesystems, kernel modules, the names that the kernel runs to shut down.
// It does as much of it as it can.
func prepare() error {
	var errs []error
	for _, m := range []struct{ fs, dir string }{{"devtmpfs", "/dev"}, {"proc", "/proc"}, {"sysfs", "/sys"}} {
		mkdir := func() error { return os.MkdirAll(m.dir, 0o755) }
		if _, err := mount.Mount(m.fs, m.dir, m.fs, "", 0, mkdir); err != nil && !errors.Is(err, unix.EBUSY) {
			errs = append(errs, err)
		}
	}
	// Kernel messages below an error would be spliced into our lines.
	if err := os.WriteFile("/proc/sys/kernel/printk", []byte("4"), 0); err != nil {
		errs = append(errs, err)
	}
	for _, name := range []string{"/sbin/poweroff", "/sbin/reboot"} {
		os.MkdirAll(filepath.Dir(name), 0o755) // Symlink reports it
		if err := os.Symlink("/init", name); err != nil && !errors.Is(err, os.ErrExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(append(errs, loadModules(modulesDir))...)
}

// loadModules inserts the modules that dir/load lists, one a line. No list is no error: a kernel may have all built in.
func loadModules(dir string) error {
	list, err := os.Open(filepath.Join(dir, "load"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer list.Close()
	var errs []error
	in := bufio.NewScanner(list)
	for in.Scan() {
		name := strings.TrimSpace(in.Text())
		if name == "" || strings.HasPrefix(name, "#") {
			continue
		}
		if !strings.HasSuffix(name, ".ko") {
			name += ".ko"
		}
		if err := loadModule(filepath.Join(dir, name)); err != nil {
			errs = append(errs, fmt.Errorf("cannot load module %s: %w", name, err))
		}
	}
	return errors.Join(append(errs, in.Err())...)
}

func loadModule(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return nil
}

// kernelRelease is what uname -r prints.
func kernelRelease() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}

// waitDevice waits until /dev/name is a block device. The error names the block devices that are there.
func waitDevice(ctx context.Context, name string, limit time.Duration) error {
	deadline := time.Now().Add(limit)
	for {
		var st unix.Stat_t
		if unix.Stat("/dev/"+name, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFBLK {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("cannot find device %s within %v: there is %s", name, limit, blockDevices())
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func blockDevices() string {
	paths, _ := filepath.Glob("/sys/class/block/*") // the pattern is well formed
	for i, p := range paths {
		paths[i] = filepath.Base(p)
	}
	if len(paths) == 0 {
		return "no block device"
	}
	return strings.Join(paths, " ")
}

// swapOn uses a device as swap if it carries a swap signature.
func swapOn(device string) error {
	f, err := os.Open(device)
	if err != nil {
		return err
	}
	defer f.Close()
	sig := make([]byte, 10)
	if _, err := f.ReadAt(sig, int64(os.Getpagesize()-len(sig))); err != nil {
		return err
	}
	if string(sig) != "SWAPSPACE2" {
		return fmt.Errorf("cannot swap on %s: it carries no swap signature", device)
	}
	path, err := unix.BytePtrFromString(device)
	if err != nil {
		return err
	}
	return swapCall(path)
}

// trim discards what the filesystem mounted at dir does not use and returns the number of bytes.
func trim(dir string) (uint64, error) {
	d, err := os.Open(dir)
	if err != nil {
		return 0, err
	}
	defer d.Close()
	return fitrim(d.Fd())
}
