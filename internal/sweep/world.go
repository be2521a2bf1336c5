package sweep

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"xenlvm/internal/fakehost"
)

// World is a host of stand-ins. All that it has is below Dir.
type World struct {
	*testing.T
	Dir string
	Env []string
	bin string // with the stand-ins and the program
}

// patience is when a program hangs.
const patience = time.Minute

func (p Plan) world(t *testing.T, commands []string, missing string) World {
	w := World{T: t, Dir: t.TempDir()}
	w.bin = filepath.Join(w.Dir, "bin")
	self, err := os.Executable()
	if err == nil {
		err = os.Mkdir(w.bin, 0o755)
	}
	for _, name := range commands {
		err = errors.Join(err, os.Symlink(self, filepath.Join(w.bin, name)))
	}
	if err != nil {
		t.Fatal(err)
	}
	w.Env = append(os.Environ(), "WORK="+w.Dir, "PATH="+w.bin)
	for name, path := range p.Env {
		w.Env = append(w.Env, name+"="+filepath.Join(w.Dir, path))
	}
	p.Make(w)
	if err := os.RemoveAll(filepath.Join(w.Dir, "calls")); err != nil {
		t.Fatal(err)
	}
	if missing != "" {
		if err := os.Rename(filepath.Join(w.bin, missing), filepath.Join(w.Dir, "missing")); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// restore puts back a program that was missing.
func (w World) restore(missing string) {
	if missing == "" {
		return
	}
	if err := os.Rename(filepath.Join(w.Dir, "missing"), filepath.Join(w.bin, missing)); err != nil {
		w.Fatal(err)
	}
}

// clear removes what a killed run may leave.
func (w World) clear(patterns []string) {
	for _, pattern := range patterns {
		found, err := filepath.Glob(filepath.Join(w.Dir, pattern))
		for _, f := range found {
			err = errors.Join(err, os.RemoveAll(f))
		}
		if err != nil {
			w.Fatal(err)
		}
	}
}

func (w World) has(name string) bool {
	_, err := os.Stat(filepath.Join(w.Dir, name))
	return err == nil
}

// Write writes a file below Dir, with $WORK in its text replaced.
func (w World) Write(name, text string) {
	w.Helper()
	path := filepath.Join(w.Dir, name)
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		err = os.WriteFile(path, []byte(strings.ReplaceAll(text, "$WORK", w.Dir)), 0o644)
	}
	if err != nil {
		w.Fatal(err)
	}
}

// Read is a file below Dir, with Dir in its text replaced; "" if there is none.
func (w World) Read(name string) string {
	b, err := os.ReadFile(filepath.Join(w.Dir, name))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		w.Fatal(err)
	}
	return strings.ReplaceAll(string(b), w.Dir, "$WORK")
}

// Done runs a command that must succeed.
func (w World) Done(args ...string) {
	w.Helper()
	if r := w.run(point{}, args); r.status != 0 {
		w.Fatalf("%q: status %d\n%s", args, r.status, r.said)
	}
}

func (w World) calls() []string {
	return strings.Split(strings.TrimSpace(w.Read("calls")), "\n")
}

// killed is the status of a program that was killed.
const killed = 128 + int(syscall.SIGKILL)

// result is how a run ended.
type result struct {
	status int
	said   string
	faulty string // the program that had the fault
}

// run runs a command, and interrupts it when a fault hangs.
func (w World) run(at point, args []string) result {
	w.Helper()
	var said bytes.Buffer
	expanded := make([]string, len(args))
	for i, a := range args {
		expanded[i] = strings.ReplaceAll(a, "$WORK", w.Dir)
	}
	cmd := exec.CommandContext(w.Context(), filepath.Join(w.bin, expanded[0]), expanded[1:]...)
	cmd.Args[0] = expanded[0]
	if at.call.name != "" {
		cmd = at.call.command(w, cmd.Path, expanded[1:])
		defer at.call.mark(w)
	}
	cmd.Env = w.Env
	if at.kind != "" {
		cmd.Env = append(slices.Clone(w.Env), fmt.Sprintf("FAKEHOST_FAULT=%d:%s", at.at, at.kind))
	}
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		w.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	hangs, deadline := time.NewTicker(2*time.Millisecond), time.NewTimer(patience)
	defer hangs.Stop()
	defer deadline.Stop()
	for interrupted := false; ; {
		select {
		case err := <-ended:
			return result{status: status(w, err), said: said.String(), faulty: w.faulty(at)}
		case <-deadline.C:
			_ = cmd.Process.Kill()
			w.Fatalf("%q, %s: it hangs", args, at)
		case <-hangs.C:
			if interrupted || at.kind != fakehost.Hangs || !w.has("hangs") {
				continue
			}
			interrupted = true
			if err := cmd.Process.Signal(os.Interrupt); err != nil {
				w.Fatal(err)
			}
			w.Write("go-on", "")
		}
	}
}

func status(w World, err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case !errors.As(err, &exit):
		w.Fatal(err)
	case exit.ExitCode() < 0:
		return 128 + int(exit.Sys().(syscall.WaitStatus).Signal())
	}
	return exit.ExitCode()
}

// faulty is the program that has the fault.
func (w World) faulty(at point) string {
	calls := w.calls()
	if at.missing != "" || at.at < 1 || at.at > len(calls) {
		return at.missing
	}
	name, _, _ := strings.Cut(calls[at.at-1], " ")
	return name
}
