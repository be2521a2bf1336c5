package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// debianMirror is the address of the Debian archive this host itself installs
// from, or "" to leave the choice to debootstrap (as on a host that is not
// Debian). The archive that carries the host's own release is asked for, because
// security and update archives do not carry whole suites.
func debianMirror(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "apt-get", "indextargets", "--format",
		"$(ORIGIN)\t$(SUITE)\t$(CODENAME)\t$(REPO_URI)", "Created-By: Packages").Output()
	if err != nil {
		return ""
	}
	return mirrorIn(string(out))
}

// mirrorIn picks the main Debian archive from apt's index targets, one per line
// as origin, suite, codename and address, separated by tabs.
func mirrorIn(targets string) string {
	for line := range strings.Lines(targets) {
		f := strings.Split(strings.TrimSpace(line), "\t")
		if len(f) != 4 || f[0] != "Debian" || strings.Contains(f[1], "-") || strings.Contains(f[2], "-") {
			continue
		}
		// debootstrap speaks http and file, not apt's mirror lists or tor.
		if strings.HasPrefix(f[3], "http") || strings.HasPrefix(f[3], "file:") {
			return f[3]
		}
	}
	return ""
}

// lock takes an exclusive lock in the cache, waiting for another lab that builds
// the same thing. The caller calls unlock.
func (l *lab) lock(name string) (unlock func(), err error) {
	return l.flock(name, 0)
}

// slot takes one of the host's places for a running lab, waiting for one to come
// free. With more labs than processors the emulated clocks miss interrupts: time
// runs slow in there, and what waits for it fails. The caller calls unlock.
func (l *lab) slot(ctx context.Context) (unlock func(), err error) {
	slots := runtime.NumCPU()
	if text := os.Getenv("XENLVM_LAB_JOBS"); text != "" {
		if slots, err = strconv.Atoi(text); err != nil || slots < 1 {
			return nil, fmt.Errorf("%w: XENLVM_LAB_JOBS=%s: want a positive number", errUsage, text)
		}
	}
	for waited := 0; ; waited++ { // seconds
		for n := range slots {
			unlock, err := l.flock(fmt.Sprintf("slot-%d", n), syscall.LOCK_NB)
			if !errors.Is(err, syscall.EWOULDBLOCK) {
				return unlock, err
			}
		}
		if waited%60 == 0 {
			l.logf("waiting for one of the %d labs on this host to end; XENLVM_LAB_JOBS in the environment allows another number", slots)
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (l *lab) flock(name string, flags int) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(l.cache, name+".lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|flags); err != nil {
		f.Close()
		return nil, &os.PathError{Op: "lock", Path: f.Name(), Err: err}
	}
	return func() { f.Close() }, nil
}

// exists reports whether path names something.
func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// terminalSize is "ROWS COLUMNS" of a terminal, or "".
func terminalSize(f *os.File) string {
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return ""
	}
	return fmt.Sprint(size.Row, " ", size.Col)
}
