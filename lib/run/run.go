// Package run runs external commands. It is the only place that does.
//
// Every command says whether it only asks (Query) or changes something
// (Change), so that a dry run can run the queries and print the changes.
// Commands are argv, never a shell's text; they run with LC_ALL=C, their
// standard output and error apart, and in a process group of their own: a ^C at
// the terminal must not hit lvcreate half-way. What may be stopped half-way
// (rsync) says so with Interruptible.
package run

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"xenlvm/lib/fault"
)

// Effect says what a command does to the system.
type Effect int

const (
	Query  Effect = iota // asks, changes nothing
	Change               // changes something
)

// Cmd is one external command.
type Cmd struct {
	Name          string
	Args          []string
	Stdin         io.Reader // nil: /dev/null
	Stdout        io.Writer // nil: captured in Result
	Effect        Effect
	OK            []int // exit codes beside 0 that are no error
	Interruptible bool  // gets SIGTERM when the context ends; others finish
}

// Result is what a command gave back.
type Result struct {
	Stdout []byte
	Stderr []byte // its last 4 KiB
	Code   int
}

// Runner runs commands; Host is the one that really does.
type Runner interface {
	Run(context.Context, Cmd) (Result, error)
}

// Error is a command that could not be run or gave a code that is not OK.
type Error struct {
	Cmd    Cmd
	Code   int // -1 when it did not run or was killed
	Stderr string
	Err    error
}

func (e *Error) Error() string {
	said := strings.TrimSpace(e.Stderr)
	if said == "" {
		return fmt.Sprintf("%s: %v", e.Cmd.Name, e.Err)
	}
	return fmt.Sprintf("%s: %v: %s", e.Cmd.Name, e.Err, strings.Join(strings.Fields(said), " "))
}

func (e *Error) Unwrap() error { return e.Err }

// Line is the command as a line for a POSIX shell.
func (c Cmd) Line() string { return Quote(append([]string{c.Name}, c.Args...)...) }

// Quote joins words into a line that a POSIX shell splits into the same words.
func Quote(words ...string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = quoteWord(w)
	}
	return strings.Join(quoted, " ")
}

func quoteWord(w string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_-+=./:,@%^", r)
	}
	if w != "" && strings.IndexFunc(w, func(r rune) bool { return !plain(r) }) < 0 {
		return w
	}
	return "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
}

// packages names the Debian package of each program that we call.
var packages = map[string]string{
	"lvs": "lvm2", "vgs": "lvm2", "pvs": "lvm2", "lvcreate": "lvm2", "lvremove": "lvm2",
	"lvchange": "lvm2", "lvextend": "lvm2", "dmsetup": "dmsetup", "mdadm": "mdadm",
	"rsync": "rsync", "xl": "xen-utils-common", "xenstore-ls": "xenstore-utils",
	"xenstore-read": "xenstore-utils", "qemu-img": "qemu-utils",
	"mkfs.ext2": "e2fsprogs", "mkfs.ext3": "e2fsprogs", "mkfs.ext4": "e2fsprogs", "mke2fs": "e2fsprogs",
	"dumpe2fs": "e2fsprogs", "tune2fs": "e2fsprogs", "mkfs.xfs": "xfsprogs", "xfs_admin": "xfsprogs",
	"xfs_db": "xfsprogs", "mkfs.btrfs": "btrfs-progs", "mkswap": "util-linux", "blkid": "util-linux",
	"thin_delta": "thin-provisioning-tools",
}

// Missing says that a program is not installed, and which Debian package has it.
// The error is a refusal: whoever calls Missing does so before the first change.
func Missing(name string) error {
	if _, err := exec.LookPath(name); err != nil {
		return notInstalled(name)
	}
	return nil
}

func notInstalled(name string) error {
	err := fault.Refuse("cannot run %s: it is not installed", name)
	if p, ok := packages[name]; ok {
		err = fault.Hint(err, "apt-get install %s", p)
	}
	return err
}

// stderrKept is how much of a command's standard error an Error quotes.
const stderrKept = 4096

// grace is what a command that is stopped gets between SIGTERM and SIGKILL.
const grace = 10 * time.Second

// slowAfter is when a user wants to know what we wait for.
const slowAfter = 30 * time.Second

// queryLimit is when a query has hung: LVM waits for whoever has its lock, and that
// may take minutes.
const queryLimit = 10 * time.Minute

// ErrHangs is the cause when a query did not end.
var ErrHangs = errors.New("it hangs")

// Host runs commands on this machine. Log, when set, is told of each; Slow of one
// that has run for SlowAfter, but for those that take as long as a disk is large.
type Host struct {
	Log  func(c Cmd, took time.Duration, err error)
	Slow func(c Cmd)

	SlowAfter  time.Duration // 0: half a minute
	QueryLimit time.Duration // 0: ten minutes
	Grace      time.Duration // 0: ten seconds; what SIGTERM gets, and what SIGKILL gets then
}

// Run runs c to its end. A query stops with the context, or when it hangs; a change
// that is not Interruptible is never started after the context ended, and never
// stopped.
func (h Host) Run(ctx context.Context, c Cmd) (Result, error) {
	if ctx.Err() != nil {
		return Result{Code: -1}, context.Cause(ctx)
	}
	began := time.Now()
	res, err := h.run(ctx, c)
	if h.Log != nil {
		h.Log(c, time.Since(began), err)
	}
	return res, err
}

func (h Host) run(ctx context.Context, c Cmd) (Result, error) {
	path, err := exec.LookPath(c.Name)
	if err != nil {
		return Result{Code: -1}, notInstalled(c.Name)
	}
	stoppable := c.Interruptible || c.Effect == Query
	if !stoppable {
		ctx = context.WithoutCancel(ctx)
		mayKill()
	}
	if c.Effect == Query {
		limit := cmp.Or(h.QueryLimit, queryLimit)
		limited, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("%w: no answer after %s", ErrHangs, limit))
		defer cancel()
		ctx = limited
	}
	cmd := exec.CommandContext(ctx, path, c.Args...)
	cmd.Args[0] = c.Name
	cmd.Env = environment(os.Environ())
	cmd.Stdin = c.Stdin
	var stdout bytes.Buffer
	stderr := tail{max: stderrKept}
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if c.Stdout != nil {
		cmd.Stdout = c.Stdout
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = h.grace()
	if stoppable {
		// A copy must not outlive us, even if we are killed. The kernel ties
		// the death signal to the thread, so the thread is held meanwhile.
		cmd.SysProcAttr.Pdeathsig = syscall.SIGTERM
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
	}
	if h.Slow != nil && !c.Interruptible {
		defer time.AfterFunc(cmp.Or(h.SlowAfter, slowAfter), func() { h.Slow(c) }).Stop()
	}
	ended, err := h.wait(ctx, cmd)
	if !ended {
		return Result{Code: -1}, fmt.Errorf("%s: %w, and cannot be killed", c.Name, stopped(ctx, c))
	}
	res := Result{Stdout: stdout.Bytes(), Stderr: stderr.buf, Code: cmd.ProcessState.ExitCode()}
	if ctx.Err() != nil {
		return res, fmt.Errorf("%s: %w", c.Name, stopped(ctx, c))
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) && slices.Contains(c.OK, res.Code) {
		err = nil
	}
	if err != nil {
		return res, &Error{Cmd: c, Code: res.Code, Stderr: string(stderr.buf), Err: err}
	}
	return res, nil
}

func (h Host) grace() time.Duration { return cmp.Or(h.Grace, grace) }

// wait runs cmd. It is false when cmd has not ended although it was killed: whoever
// reads a suspended device cannot be, and what it wrote so far must not be read.
func (h Host) wait(ctx context.Context, cmd *exec.Cmd) (ended bool, err error) {
	if err := cmd.Start(); err != nil {
		return true, err
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	select {
	case err := <-done:
		return true, err
	case <-ctx.Done():
	}
	select {
	case err := <-done:
		return true, err
	case <-time.After(3 * h.grace()): // SIGTERM, SIGKILL, and what its end takes
		return false, nil
	}
}

// stopped is why a command was stopped, and how to find out what it waits for.
func stopped(ctx context.Context, c Cmd) error {
	err := context.Cause(ctx)
	if errors.Is(err, ErrHangs) {
		err = fault.Hint(err, "ps -C %s -o pid,stat,wchan,args; dmsetup info -c -o name,suspended", Quote(c.Name))
	}
	return err
}

// environment is env with the C locale, and with lvm2 told not to complain of
// inherited descriptors on standard error.
func environment(env []string) []string {
	kept := slices.DeleteFunc(env, func(kv string) bool {
		return strings.HasPrefix(kv, "LC_") || strings.HasPrefix(kv, "LANG") || strings.HasPrefix(kv, "RSYNC_")
	})
	return append(kept, "LC_ALL=C", "LVM_SUPPRESS_FD_WARNINGS=1")
}

// tail keeps the last max bytes written to it.
type tail struct {
	buf []byte
	max int
}

func (t *tail) Write(p []byte) (int, error) {
	t.buf = append(t.buf, p...)
	if over := len(t.buf) - t.max; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
	return len(p), nil
}
