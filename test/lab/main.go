// Command lab runs a real Xen host, with LVM and md, inside QEMU.
//
// It builds a dom0 image from Debian packages once, boots Xen, dom0 and an empty
// disk for a volume group, puts this checkout's programs in, runs a scenario
// script as root, and brings back its output, its status, the logs and the
// timing. The demo, the tests and the benchmarks all run through it.
//
// Start it through scripts/lab, which installs what it needs.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
)

const usage = `usage: lab COMMAND [FLAGS]

  lab run [--suite S] [--no-xen] [--verbose] [--keep DIR] [--gotest PKG] SCENARIO [-- ARGS]
        run a scenario; the last line on stdout is one JSON object
  lab shell [--suite S] [--no-xen] [--gotest PKG]
        open a console in the lab; it powers off when the shell ends
  lab build [--suite S]
        build the suite's image, unless it is cached, and print its folder
  lab list
        print the scenarios

  --suite S     bookworm (Xen 4.17, default) or trixie (Xen 4.20)
  --no-xen      boot the plain Debian kernel: faster, enough for LVM and md
  --verbose     show the whole console, not only the scenario's output
  --keep DIR    copy the console log, the output and the logs to DIR
  --gotest PKG  compile a package's tests into /lab/tests (repeatable)

Environment: XENLVM_LAB_CACHE (images), XENLVM_LAB_TIME_FACTOR (scales every
time limit), XENLVM_LAB_JOBS (labs at once on this host, by default one for each
processor), XENLVM_LAB_KVM=1 (use KVM, which is never detected).
`

// errUsage is a command line that names nothing the lab can do.
var errUsage = errors.New("usage")

func main() {
	// QEMU is started with a parent death signal, which follows the thread
	// that forked it, not the process. Keep that thread.
	runtime.LockOSThread()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	interrupted := ctx.Err() != nil
	stop()
	switch {
	case err == nil:
		return
	case errors.Is(err, flag.ErrHelp):
		fmt.Print(usage)
		return
	case errors.Is(err, errUsage):
		fmt.Fprintf(os.Stderr, "lab: %v\n%s", err, usage)
		os.Exit(2)
	case interrupted:
		fmt.Fprintln(os.Stderr, "lab: interrupted")
		os.Exit(130)
	}
	fmt.Fprintf(os.Stderr, "lab: %v\n", err)
	os.Exit(1)
}

// options are the flags of every command; each command reads its own.
type options struct {
	suite   string
	noXen   bool
	verbose bool
	keep    string
	gotest  []string
}

// run dispatches one command line. It writes data to stdout and everything
// else to stderr.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) == 0 {
		return fmt.Errorf("%w: no command", errUsage)
	}
	if slices.Contains([]string{"help", "-h", "-help", "--help"}, args[0]) {
		return flag.ErrHelp
	}
	opt, words, rest, err := parse(args[1:])
	if err != nil {
		return err
	}
	lab, err := newLab(stderr)
	if err != nil {
		return err
	}
	suite, err := suiteByName(opt.suite)
	if err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	want := 0
	if args[0] == "run" {
		want = 1
	}
	if len(words) != want || (want == 0 && len(rest) > 0) {
		return fmt.Errorf("%w: %s takes %d argument(s)", errUsage, args[0], want)
	}
	switch args[0] {
	case "run":
		return lab.run(ctx, suite, words[0], rest, opt, stdout)
	case "shell":
		return lab.shell(ctx, suite, opt)
	case "build":
		img, err := lab.image(ctx, suite)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(stdout, img.dir)
		return err
	case "list":
		return lab.list(stdout)
	}
	return fmt.Errorf("%w: unknown command %q", errUsage, args[0])
}

// parse reads flags anywhere on the line: words are the positional arguments,
// rest is what follows "--".
func parse(args []string) (opt options, words, rest []string, err error) {
	if i := slices.Index(args, "--"); i >= 0 {
		args, rest = args[:i], args[i+1:]
	}
	fs := flag.NewFlagSet("lab", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.StringVar(&opt.suite, "suite", "bookworm", "")
	fs.BoolVar(&opt.noXen, "no-xen", false, "")
	fs.BoolVar(&opt.verbose, "verbose", false, "")
	fs.StringVar(&opt.keep, "keep", "", "")
	fs.Func("gotest", "", func(s string) error {
		opt.gotest = append(opt.gotest, s)
		return nil
	})
	for {
		if err := fs.Parse(args); err != nil {
			if errors.Is(err, flag.ErrHelp) {
				return opt, nil, nil, err
			}
			return opt, nil, nil, fmt.Errorf("%w: %w", errUsage, err)
		}
		if fs.NArg() == 0 {
			return opt, words, rest, nil
		}
		words = append(words, fs.Arg(0))
		args = fs.Args()[1:]
	}
}

// lab is one checkout with its cache of images.
type lab struct {
	root   string // checkout
	cache  string // images, keyed by their recipe
	stderr io.Writer
}

// newLab finds the checkout that scripts/lab belongs to, and the cache.
func newLab(stderr io.Writer) (*lab, error) {
	root := os.Getenv("XENLVM_LAB_ROOT")
	if root == "" {
		return nil, errors.New("cannot find the checkout: start the lab by scripts/lab")
	}
	cache := os.Getenv("XENLVM_LAB_CACHE")
	if cache == "" {
		dir, err := os.UserCacheDir()
		if err != nil {
			return nil, fmt.Errorf("cannot find a cache folder: %w", err)
		}
		cache = filepath.Join(dir, "xenlvm-lab")
	}
	cache, err := filepath.Abs(cache)
	if err != nil {
		return nil, err
	}
	return &lab{root: root, cache: cache, stderr: stderr}, os.MkdirAll(cache, 0o755)
}

// dir is the harness's own source folder.
func (l *lab) dir() string { return filepath.Join(l.root, "test", "lab") }

// logf tells the user what the lab is doing.
func (l *lab) logf(format string, args ...any) {
	fmt.Fprintf(l.stderr, "lab: "+format+"\n", args...)
}
