package main

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/u-root/gobusybox/src/pkg/golang"
	"github.com/u-root/mkuimage/cpio"
	"github.com/u-root/mkuimage/uimage"
	"github.com/u-root/uio/llog"
)

// guestPackage is the DomU's init, relative to the harness.
const guestPackage = "guest"

// guest builds the DomU's initramfs into the file out: the guest program as
// /init, the modules for its disk in /lib/modules, and in /lib/modules/load
// their names in load order. It is cheap enough to be made for every run.
func (l *lab) guest(img image, out, tmp string) error {
	return l.initramfs(out, tmp,
		uimage.WithBinaryCommands("./"+guestPackage),
		uimage.WithInit(guestPackage),
		// xl shutdown and xl reboot reach the guest's kernel, which runs these.
		uimage.WithSymlink("sbin/poweroff", guestPackage),
		uimage.WithSymlink("sbin/reboot", guestPackage),
		uimage.WithFiles(filepath.Join(img.dir, modulesDir)+":lib/modules"),
	)
}

// bootInitramfs builds the initramfs that the dom0 boots with into the file out,
// from a dom0's file tree.
func (l *lab) bootInitramfs(tree, out, tmp string) error {
	init, modules := filepath.Join(tmp, "init"), filepath.Join(tmp, "boot-modules")
	if err := os.WriteFile(init, []byte(bootInit), 0o755); err != nil {
		return err
	}
	if err := takeModules(tree, modules, bootModules); err != nil {
		return err
	}
	return l.initramfs(out, tmp, uimage.WithFiles(init+":init", modules+":lib/modules",
		filepath.Join(tree, "bin/busybox")+":bin/busybox"))
}

// initramfs builds an initramfs with u-root's builder. tmp is for its own files.
func (l *lab) initramfs(out, tmp string, mods ...uimage.Modifier) error {
	base, err := cpio.ArchiveFromRecords([]cpio.Record{
		cpio.Directory("dev", 0o755), cpio.Directory("proc", 0o755), cpio.Directory("sys", 0o755),
		cpio.Directory("mnt", 0o755), cpio.Directory("root", 0o755), cpio.Directory("tmp", 0o1777),
		cpio.CharDev("dev/console", 0o600, 5, 1), cpio.CharDev("dev/null", 0o666, 1, 3),
	})
	if err != nil {
		return err
	}
	opts, err := uimage.OptionsFor(append(mods,
		uimage.WithReplaceEnv(golang.Default(golang.WithWorkingDir(l.dir()), golang.DisableCGO())),
		uimage.WithBaseArchive(base),
		uimage.WithSkipLDD(),
		uimage.WithTempDir(tmp),
		uimage.WithCPIOOutput(out))...)
	if err != nil {
		return err
	}
	if err := opts.Create(llog.New(slog.LevelWarn, l.logf)); err != nil {
		return fmt.Errorf("cannot build the initramfs %s: %w", filepath.Base(out), err)
	}
	return nil
}

// takeModules unpacks modules and their dependencies from tree's kernel into dir,
// and writes dir/load: their file names in load order, one a line.
func takeModules(tree, dir string, names []string) error {
	deps, err := filepath.Glob(filepath.Join(tree, "lib/modules/*/modules.dep"))
	if err != nil || len(deps) != 1 {
		return fmt.Errorf("cannot choose one kernel in /lib/modules: found %d", len(deps))
	}
	text, err := os.ReadFile(deps[0])
	if err != nil {
		return err
	}
	builtin, err := os.ReadFile(filepath.Join(filepath.Dir(deps[0]), "modules.builtin"))
	if err != nil {
		return err
	}
	paths, err := loadOrder(string(text), string(builtin), names)
	if err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	var load strings.Builder
	for _, p := range paths {
		name := strings.TrimSuffix(filepath.Base(p), ".xz")
		if err := unpack(filepath.Join(filepath.Dir(deps[0]), p), filepath.Join(dir, name)); err != nil {
			return err
		}
		fmt.Fprintln(&load, name)
	}
	return os.WriteFile(filepath.Join(dir, "load"), []byte(load.String()), 0o644)
}

// loadOrder resolves module names to paths, each after what it needs, through
// modules.dep (a line is "path: what it needs, nearest first") and
// modules.builtin (paths of what the kernel holds already).
func loadOrder(dep, builtin string, names []string) ([]string, error) {
	needs := map[string][]string{} // by path
	paths := map[string]string{}   // by name
	for line := range strings.Lines(dep) {
		if path, rest, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			paths[moduleName(path)], needs[path] = path, strings.Fields(rest)
		}
	}
	held := map[string]bool{}
	for path := range strings.FieldsSeq(builtin) {
		held[moduleName(path)] = true
	}
	var order []string
	for _, name := range names {
		path, ok := paths[name]
		if held[name] {
			continue
		}
		if !ok {
			return nil, fmt.Errorf("cannot find the module %s", name)
		}
		for _, p := range slices.Backward(append([]string{path}, needs[path]...)) {
			if !slices.Contains(order, p) {
				order = append(order, p)
			}
		}
	}
	return order, nil
}

// moduleName is a module's file name without .ko or .ko.xz.
func moduleName(path string) string {
	name, _, _ := strings.Cut(filepath.Base(path), ".")
	return name
}
