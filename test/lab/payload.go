package main

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// payload makes the read-only disk that the dom0 mounts at /lab:
//
//	init, lib.sh    the lab's side of the dom0
//	env             what this run is, as shell assignments
//	scenario.sh     what to run
//	bin/            our programs, static
//	scripts/        our scripts
//	guest.cpio      the DomU's initramfs (with Xen)
//	tests/PACKAGE/  a package's compiled tests and their testdata
//
// env's values are quoted here; tmp is a folder of this run.
func (l *lab) payload(ctx context.Context, img image, s scenario, env map[string]string, args []string, tmp string) (string, error) {
	tree := filepath.Join(tmp, "payload")
	for _, dir := range []string{"bin", "tests"} {
		if err := os.MkdirAll(filepath.Join(tree, dir), 0o755); err != nil {
			return "", err
		}
	}
	if err := os.CopyFS(tree, os.DirFS(filepath.Join(l.dir(), "dom0"))); err != nil {
		return "", err
	}
	if err := os.CopyFS(filepath.Join(tree, "scripts"), os.DirFS(filepath.Join(l.root, "scripts"))); err != nil {
		return "", err
	}
	if s.path != "" {
		if err := unpack(s.path, filepath.Join(tree, "scenario.sh")); err != nil {
			return "", err
		}
	}
	if err := os.WriteFile(filepath.Join(tree, "env"), []byte(shellEnv(env, args)), 0o644); err != nil {
		return "", err
	}
	if err := l.programs(ctx, filepath.Join(tree, "bin")); err != nil {
		return "", err
	}
	for _, pkg := range s.gotest {
		if err := l.tests(ctx, pkg, filepath.Join(tree, "tests")); err != nil {
			return "", err
		}
	}
	if s.xen {
		if err := l.guest(img, filepath.Join(tree, "guest.cpio"), tmp); err != nil {
			return "", err
		}
	}
	size, err := treeSize(tree)
	if err != nil {
		return "", err
	}
	disk := filepath.Join(tmp, "payload.img")
	return disk, makeExt4(ctx, disk, tree, fmt.Sprintf("%dM", size>>20*5/4+32))
}

// programs builds this checkout's commands, and the lab's own judge, into bin. With
// the tag faultinject a scenario can have them killed right before any step
// (XENLVM_KILL_AT, lib/step), which no signal from outside hits that surely.
func (l *lab) programs(ctx context.Context, bin string) error {
	mains, err := filepath.Glob(filepath.Join(l.root, "cmd/*/main.go"))
	if err != nil {
		return err
	}
	for _, main := range append(mains, filepath.Join(l.dir(), "judge/main.go")) {
		if err := goTool(ctx, filepath.Dir(main), "build", "-tags=faultinject", "-o", bin+"/", "."); err != nil {
			return err
		}
	}
	return nil
}

// tests compiles a package's tests into dir/PACKAGE, with their testdata, which
// tests expect to find in their working folder.
func (l *lab) tests(ctx context.Context, pkg, dir string) error {
	rel := path.Clean(pkg)
	if !filepath.IsLocal(rel) {
		return fmt.Errorf("%w: --gotest %s: want a package of this checkout, such as ./lib/lvm", errUsage, pkg)
	}
	dir = filepath.Join(dir, rel)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := goTool(ctx, l.root, "test", "-c", "-o", filepath.Join(dir, path.Base(rel)+".test"), "./"+rel); err != nil {
		return err
	}
	data := filepath.Join(l.root, rel, "testdata")
	if !exists(data) {
		return nil
	}
	return os.CopyFS(filepath.Join(dir, "testdata"), os.DirFS(data))
}

// goTool runs the go command in dir for static binaries.
func goTool(ctx context.Context, dir string, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot build %s: go %s: %w\n%s", dir, strings.Join(args, " "), err, out)
	}
	return nil
}

// shellEnv writes exported shell assignments, and the scenario's arguments as
// the positional parameters.
func shellEnv(env map[string]string, args []string) string {
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(env)) {
		fmt.Fprintf(&b, "export %s=%s\n", k, shellQuote(env[k]))
	}
	b.WriteString("set --")
	for _, a := range args {
		b.WriteString(" " + shellQuote(a))
	}
	b.WriteString("\n")
	return b.String()
}

func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// treeSize adds up the files below dir, in bytes.
func treeSize(dir string) (total int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			total += info.Size()
		}
		return err
	})
	return total, err
}
