// Command judge reads the console logs of lab guests (command guest says what is in them) and tells whether anything that
// a guest acknowledged was lost.
//
//	judge [--gap 1s] [--window START_NS,END_NS]... FILE...
//
// prints one JSON object and exits 0 if nothing is lost, every domain verified its disks at least once, and none failed
// in its last boot. Files of one domain (guest-vm3.log, and guest-vm3--incoming.log which a migration leaves) are read as
// one, ordered by the stamps in their lines.
//
//	judge --wait-records N [--from BYTES] [--timeout 60s] FILE...
//	judge --wait-text TEXT [--from BYTES] [--timeout 60s] FILE...
//
// wait until N further records are acknowledged, or a line holds TEXT, after now, or after the first BYTES of each file.
//
// Exit status: 0 nothing lost, 1 something lost or an error, 2 usage.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"time"
)

// errLost is the verdict that something is lost or unproven; the JSON object says what.
var errLost = errors.New("something is lost or was never verified")

// errUsage is a command line that makes no sense.
var errUsage = errors.New("usage: judge [--gap 1s] [--window START,END] | --wait-records N | --wait-text TEXT [--from BYTES] [--timeout 60s] FILE")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err == nil {
		return
	}
	fmt.Fprintf(os.Stderr, "judge: %v\n", err)
	if errors.Is(err, errUsage) {
		os.Exit(2)
	}
	os.Exit(1)
}

// options are the flags.
type options struct {
	gap     time.Duration // shortest pause to list
	windows []window
	records uint64 // to wait for
	text    string // to wait for
	from    int64  // where in each file waiting starts, in bytes; -1 for the end
	timeout time.Duration
}

// run judges or waits, and writes one JSON object to w.
func run(ctx context.Context, args []string, w io.Writer) error {
	opt, files, err := parseArgs(args)
	if err != nil {
		return err
	}
	if opt.records > 0 || opt.text != "" {
		return wait(ctx, opt, files, w)
	}
	domains, err := judgeFiles(files, opt)
	if err != nil {
		return err
	}
	v := newVerdict(domains)
	out := json.NewEncoder(w)
	out.SetIndent("", "  ")
	if err := out.Encode(v); err != nil {
		return err
	}
	if !v.OK {
		return errLost
	}
	return nil
}

// parseArgs reads flags anywhere on the line; what is no flag is a file.
func parseArgs(args []string) (opt options, files []string, err error) {
	set := flag.NewFlagSet("judge", flag.ContinueOnError)
	set.SetOutput(io.Discard)
	set.DurationVar(&opt.gap, "gap", time.Second, "")
	set.Uint64Var(&opt.records, "wait-records", 0, "")
	set.StringVar(&opt.text, "wait-text", "", "")
	set.Int64Var(&opt.from, "from", -1, "")
	set.DurationVar(&opt.timeout, "timeout", time.Minute, "")
	set.Func("window", "", func(s string) error {
		from, to, _ := strings.Cut(s, ",")
		start, err1 := strconv.ParseInt(from, 10, 64)
		end, err2 := strconv.ParseInt(to, 10, 64)
		opt.windows = append(opt.windows, window{Start: start, End: end})
		if err := errors.Join(err1, err2); err != nil || end < start {
			return errors.New("not START,END in nanoseconds")
		}
		return nil
	})
	for {
		if err := set.Parse(args); err != nil {
			return opt, nil, fmt.Errorf("%w\n%w", err, errUsage)
		}
		if set.NArg() == 0 {
			break
		}
		files = append(files, set.Arg(0))
		args = set.Args()[1:]
	}
	if len(files) == 0 {
		return opt, nil, errUsage
	}
	return opt, files, nil
}
