// Command bench measures imgconv, its engine and the tools of others on the same
// work, in shuffled order, and judges every result: a wrong one has no time.
//
// It is started by scripts/bench, which builds what it measures. It starts itself
// again as a child ("engine", "bound") for what has no program of its own.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	"xenlvm/lib/fault"
	"xenlvm/lib/host"
	"xenlvm/lib/units"
)

// options are what the command line says.
type options struct {
	quick     bool
	dir, out  string
	imgconv   string
	rounds    int
	seed      uint64
	workloads []string // "" for all
	tools     []string // patterns; "" for all
	sizes     map[string]int64
	target    kind
	warm      bool
	cold      bool
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	context.AfterFunc(ctx, stop) // a second signal ends the process
	err := start(ctx, os.Args[1:], os.Stdout)
	if ctx.Err() != nil {
		err = fault.With(fault.Interrupted, errors.Join(errors.New("interrupted"), err))
	}
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		for _, h := range fault.Hints(err) {
			fmt.Fprintf(os.Stderr, "bench: hint: %s\n", h)
		}
		os.Exit(int(fault.StatusOf(err)))
	}
}

func start(ctx context.Context, args []string, stdout io.Writer) error {
	if len(args) > 0 && (args[0] == "engine" || args[0] == "bound") {
		return child(ctx, args)
	}
	o, err := parse(args)
	if err != nil {
		return err
	}
	if err := host.NeedRoot("attach loop devices and drop caches"); err != nil {
		return err
	}
	if o.dir, err = os.MkdirTemp(o.dir, "xenlvm-bench-"); err != nil {
		return err
	}
	// Directories and files, no mounts: what is mounted below is unmounted by
	// whoever mounted it, and if that failed its files must not be deleted.
	defer func() {
		if err := removeTree(o.dir); err != nil {
			fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		}
	}()
	rows, err := newBench(o).run(ctx)
	printTable(stdout, rows) // hours may have passed before an error
	if err != nil {
		return err
	}
	return errors.Join(writeReports(o.out, rows), failures(rows))
}

// parse reads the flags.
func parse(args []string) (options, error) {
	o := options{sizes: map[string]int64{}}
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	var workloads, tools, cache, target string
	f.BoolVar(&o.quick, "quick", false, "small sizes, one round, warm: for correctness, not for times")
	f.StringVar(&o.dir, "dir", "", "make the temporary folder in `DIR`, on the disk to measure")
	f.StringVar(&o.out, "out", "bin", "write bench.json and bench.svg into `DIR`")
	f.StringVar(&o.imgconv, "imgconv", "bin/imgconv", "the `PROGRAM` to measure")
	f.IntVar(&o.rounds, "rounds", 0, "repeat everything `N` times (default 7, quick 1)")
	f.Uint64Var(&o.seed, "seed", 0, "`NUMBER` for contents and order (default: a new one, which is printed)")
	f.StringVar(&workloads, "workloads", "", "`LIST` such as B1,B5 (default: all)")
	f.StringVar(&tools, "tools", "", "`LIST` of names or patterns such as imgconv,qemu-img*,bound* (default: all that are installed)")
	f.StringVar(&cache, "cache", "both", "`STATE` of the page cache before a first copy: warm, cold or both")
	f.StringVar(&target, "target", "disk", "`WHAT` the loop device of the destination lies on: disk, direct (past the page cache, as a volume does) or ram")
	f.BoolVar(&o.target.still, "still", false, "tell the kernel that the disk of the destination does not turn, which virtual ones do not say")
	f.Func("sizes", "`LIST` of image sizes such as B1=4G,B2=512M", func(s string) error { return parseSizes(s, o.sizes) })
	f.SetOutput(io.Discard) // main says what is wrong
	if err := f.Parse(args); errors.Is(err, flag.ErrHelp) {
		f.SetOutput(os.Stdout)
		f.PrintDefaults()
		return o, err
	} else if err != nil {
		return o, fault.With(fault.Usage, err)
	}
	if f.NArg() > 0 {
		return o, fault.BadUsage("unknown argument %s", f.Arg(0))
	}
	o.warm, o.cold = cache != "cold", cache != "warm" && !o.quick
	o.target.ram, o.target.direct = target == "ram", target == "direct"
	if !oneOf(cache, "warm", "cold", "both") || !oneOf(target, "disk", "direct", "ram") || o.rounds < 0 {
		return o, fault.BadUsage("cannot use --cache %s --target %s --rounds %d", cache, target, o.rounds)
	}
	if o.quick {
		o.warm, o.rounds = true, cmp.Or(o.rounds, 1)
	}
	o.rounds = cmp.Or(o.rounds, 7)
	for o.seed == 0 {
		o.seed = uint64(rand.Uint32())
	}
	o.workloads, o.tools = split(workloads), split(tools)
	for _, w := range o.workloads {
		if _, known := defaultSizes[w]; !known {
			return o, fault.BadUsage("unknown workload %s", w)
		}
	}
	for _, p := range o.tools {
		if _, err := path.Match(p, ""); err != nil {
			return o, fault.BadUsage("cannot read pattern %s: %w", p, err)
		}
	}
	var err error
	if o.imgconv, err = filepath.Abs(o.imgconv); err == nil {
		_, err = os.Stat(o.imgconv)
	}
	return o, fault.With(fault.Refused, err)
}

func oneOf(s string, of ...string) bool {
	return strings.Contains(" "+strings.Join(of, " ")+" ", " "+s+" ")
}

func split(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' })
}

// parseSizes reads "B1=4G,B2=512M" into sizes.
func parseSizes(s string, sizes map[string]int64) error {
	for _, one := range split(s) {
		name, size, _ := strings.Cut(one, "=")
		if _, known := defaultSizes[name]; !known {
			return fmt.Errorf("unknown workload %s", name)
		}
		n, err := units.Parse(size)
		if err != nil {
			return err
		}
		if n < 16<<20 {
			return fmt.Errorf("size %s is less than 16 MiB", size)
		}
		sizes[name] = int64(n.RoundUp(1 << 20))
	}
	return nil
}
