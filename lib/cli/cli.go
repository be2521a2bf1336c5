// Package cli is what the programs share at the shell: flags that work
// anywhere on the line, with environment and configuration file behind them;
// messages and progress on standard error; data or one JSON object on standard
// output; signals; exit statuses.
//
// The rules for messages: lower case, no period at the end, the program's name
// in front; what to do next is a line of its own that begins with "hint:".
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"xenlvm/lib/fault"
	"xenlvm/lib/run"
	"xenlvm/lib/step"
)

// Tool is one program. A program without verbs has one Verb without a name.
type Tool struct {
	Name    string
	Summary string
	Flags   func(*flag.FlagSet) // those of all verbs
	Verbs   []Verb

	// Deliberate flags count only on the command line, never from the
	// environment or the configuration file: those that allow a loss.
	Deliberate []string
}

// Verb is one thing that a program does.
type Verb struct {
	Name     string
	Args     string // the positionals as the usage shows them
	Min, Max int    // how many positionals; Max -1: any number
	Summary  string
	Flags    []string // the names of the flags that it takes
	Run      func(context.Context, *Env, []string) error
}

// Env is what a running program has of the world.
type Env struct {
	Tool   string
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
	Runner run.Runner

	JSON, DryRun, Quiet, Verbose bool

	emitted bool
	onLine  map[string]bool
}

// Given says whether the flag was given on the command line.
func (e *Env) Given(flag string) bool { return e.onLine[flag] }

// Main runs a tool with the process's arguments and returns its exit status.
func Main(t Tool) int {
	ctx, stop := signals(t.Name)
	defer stop()
	e := &Env{Tool: t.Name, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}
	return int(t.Exec(ctx, e, os.Args[1:]))
}

// patience is how many times somebody at a terminal asks, the first one included,
// before what is not undone yet is left.
const patience = 3

// signals makes a context that the first SIGINT, SIGTERM, SIGHUP or SIGQUIT ends,
// so that everything gets undone. As undoing may hang, the third one of those that
// have a key ends the process. The others are no impatience: timeout(1) sends its
// signal to the command and then to its group, and a terminal that goes away sends
// two SIGHUPs.
func signals(name string) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	c := make(chan os.Signal, 4)
	signal.Notify(c, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT)
	if !signal.Ignored(syscall.SIGHUP) { // nohup
		signal.Notify(c, syscall.SIGHUP)
	}
	// A reader of our output that went away, or a limit on file sizes, must not
	// kill us half-way: the write's error is reported, and everything undone.
	signal.Ignore(syscall.SIGPIPE, syscall.SIGXFSZ)
	go func() {
		asked := 0
		for s := range c {
			key := s == syscall.SIGINT || s == syscall.SIGQUIT
			if key {
				asked++
			}
			switch {
			case ctx.Err() == nil:
				fmt.Fprintf(os.Stderr, "%s: %v: undoing, please wait; a third SIGINT ends at once and may leave things behind\n", name, s)
				cancel(fault.ErrInterrupted)
			case asked >= patience:
				// The defaults are not waited for: a signal that comes while they are
				// put back is lost, and a shell's background job may ignore it.
				_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			case key && asked == patience-1:
				fmt.Fprintf(os.Stderr, "%s: still undoing, please wait; one more SIGINT ends at once\n", name)
			}
		}
	}()
	return ctx, func() { signal.Stop(c); close(c) }
}

// Exec runs a tool with args and reports its error on e.Stderr.
func (t Tool) Exec(ctx context.Context, e *Env, args []string) fault.Status {
	err := t.exec(ctx, e, args)
	if errors.Is(err, flag.ErrHelp) {
		err = t.printUsage(e.Stdout)
	}
	status := fault.StatusOf(err)
	if err == nil {
		return status
	}
	for line := range strings.SplitSeq(err.Error(), "\n") {
		e.Printf("%s", line)
	}
	hints := append([]string{}, fault.Hints(err)...)
	if status == fault.Usage {
		hints = append(hints, fmt.Sprintf("try '%s --help'", t.Name))
		e.JSON = e.JSON || slices.Contains(args, "--json") // behind what cannot be understood
	}
	for _, h := range hints {
		e.Printf("hint: %s", h)
	}
	if e.JSON && !e.emitted {
		_ = e.Emit(map[string]any{"changed": status == fault.Left, "failed": true, "msg": err.Error(), "status": status, "hints": hints})
	}
	return status
}

func (t Tool) exec(ctx context.Context, e *Env, args []string) error {
	verb, rest, err := t.parse(e, args, os.Environ())
	if err != nil {
		return err
	}
	if verb == nil {
		_, err := fmt.Fprintf(e.Stdout, "%s %s\n", t.Name, Version())
		return err
	}
	if e.Runner == nil {
		e.Runner = run.Host{Log: e.logCommand, Slow: e.logSlow}
	}
	return verb.Run(ctx, e, rest)
}

func (e *Env) logCommand(c run.Cmd, took time.Duration, err error) {
	if e.Verbose {
		e.Printf("ran %s (%s)", c.Line(), took.Round(time.Millisecond))
	}
}

// logSlow says what a program waits for that seems to hang.
func (e *Env) logSlow(c run.Cmd) {
	if c.Effect == run.Query {
		e.Printf("still waiting for %s; an interrupt ends it", c.Line())
		return
	}
	e.Printf("still waiting for %s, which must not be stopped half-way; three interrupts end %s and leave it to itself: when it has ended, run the same command again", c.Line(), e.Tool)
}

// Printf writes one message line to standard error. Control characters are
// escaped: names may come from a guest.
func (e *Env) Printf(format string, args ...any) {
	fmt.Fprintf(e.Stderr, "%s: %s\n", e.Tool, Printable(fmt.Sprintf(format, args...)))
}

// Infof is a Printf that --quiet silences.
func (e *Env) Infof(format string, args ...any) {
	if !e.Quiet {
		e.Printf(format, args...)
	}
}

// Printable is s with its control characters escaped as in Go source.
func Printable(s string) string {
	var b strings.Builder
	for _, r := range s {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == '\ufffd' {
			fmt.Fprintf(&b, "%q", r)
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

// Emit prints the one JSON object of a run with --json.
func (e *Env) Emit(v any) error {
	e.emitted = true
	out := json.NewEncoder(e.Stdout)
	out.SetEscapeHTML(false)
	return out.Encode(v)
}

// Delivered gives err, which printing the result of finished work returned, its
// status and hint: the work is not undone. In a dry run there is no work.
func (e *Env) Delivered(err error) error {
	if err == nil || e.DryRun {
		return err
	}
	return fault.Hint(fault.With(fault.Left, fmt.Errorf("done, but the result cannot be printed: %w", err)), "run it again: it does what is left to do, and prints the result")
}

// Apply prints the plan in a dry run, and runs it otherwise. With --json a dry
// run prints nothing here: its one object comes from the caller.
func (e *Env) Apply(ctx context.Context, p step.Plan) error {
	if e.DryRun {
		if e.JSON {
			return nil
		}
		return p.Print(e.Stdout)
	}
	return p.Run(ctx, reporter{e})
}

type reporter struct{ e *Env }

func (r reporter) Started(n, total int, what string) {
	if r.e.Verbose {
		r.e.Infof("[%d/%d] %s", n, total, what)
	}
}

func (r reporter) Finished(n, total int, what string, took time.Duration, err error) {
	if err == nil {
		r.e.Infof("[%d/%d] %s (%s)", n, total, what, took.Round(10*time.Millisecond))
	}
}

// Version is the version that the build recorded, or "devel".
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "devel"
	}
	return strings.Trim(info.Main.Version, "()")
}
