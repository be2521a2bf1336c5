package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// errNotOK is a run that ended, but not well; the result says why.
var errNotOK = errors.New("the run is not ok")

// resultSize is the room for what a run hands back, as a tar.
const resultSize = 1 << 30

// run boots the lab, runs one scenario and prints its result.
func (l *lab) run(ctx context.Context, su suite, name string, args []string, opt options, stdout io.Writer) error {
	s, err := l.scenario(name)
	if err != nil {
		return err
	}
	factor, err := timeFactor()
	if err != nil {
		return err
	}
	s.xen = s.xen && !opt.noXen
	s.gotest = append(s.gotest, opt.gotest...)

	res := result{Scenario: s.name, Suite: su.name, Xen: s.xen}
	if err := l.perform(ctx, su, s, args, opt, factor, &res); err != nil {
		if ctx.Err() != nil || errors.Is(err, errUsage) {
			return err
		}
		res.OK, res.Error = false, err.Error()
	}
	line, err := res.line()
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintln(stdout, line); err != nil {
		return err
	}
	if !res.OK {
		return fmt.Errorf("%w: %s", errNotOK, res.Error)
	}
	return nil
}

// perform does the run and fills res. What it makes on the host is in a temporary
// folder that it removes, and in opt.keep.
func (l *lab) perform(ctx context.Context, su suite, s scenario, args []string, opt options, factor float64, res *result) (err error) {
	tmp, err := os.MkdirTemp("", "xenlvm-lab-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	out := opt.keep
	if out == "" {
		out = filepath.Join(tmp, "out")
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(out, "console.log"))
	if err != nil {
		return err
	}
	defer log.Close()

	m, err := l.assemble(ctx, su, s, args, tmp, map[string]string{"LAB_MODE": "run", "LAB_TIME_FACTOR": fmt.Sprint(factor)})
	if err != nil {
		return err
	}
	unlock, err := l.slot(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	l.logf("booting %s for %s", res.Suite, s.name)
	t, err := l.boots(ctx, m, s, log, opt, factor)
	res.BootSeconds = seconds(t.ready)
	if err != nil {
		return err
	}
	res.Seconds = seconds(t.done - t.ready)
	if err := untar(m.result, out); err != nil {
		return err
	}
	if err := res.read(out); err != nil {
		return err
	}
	if res.OK && t.boots < s.boots {
		return fmt.Errorf("the scenario ended in boot %d, and declares boots=%d", t.boots, s.boots)
	}
	if res.leftoverText != "" {
		l.logf("left behind:\n%s", res.leftoverText)
	}
	return nil
}

// boots runs the machine until its scenario is done, and again with the same disks
// each time that the scenario has the host go down, which it does as often as it
// declares. The times are those of all boots together.
func (l *lab) boots(ctx context.Context, m machine, s scenario, log io.Writer, opt options, factor float64) (sum times, err error) {
	left := time.Duration(float64(s.limit) * factor)
	for boot := 1; ; boot++ {
		sum.boots = boot
		m.env = fmt.Sprintf("LAB_BOOT=%d LAB_LIMIT=%d", boot, int(left.Seconds()))
		t, err := l.bootTwice(ctx, m, log, opt, factor, left)
		sum.ready += t.ready
		sum.done += t.done
		left -= t.done - t.ready
		crashed := errors.Is(err, errCrash)
		switch {
		case crashed && boot == s.boots:
			return sum, fmt.Errorf("%w in boot %d, and declares boots=%[2]d", err, boot)
		case crashed && left < time.Second: // timeout(1) takes 0 for no limit
			return sum, fmt.Errorf("the scenario did not end: time limit in boot %d", boot)
		case crashed:
			l.logf("the host went down after %.1f s; boot %d of %d", (t.done - t.ready).Seconds(), boot+1, s.boots)
		case err != nil && boot > 1:
			return sum, fmt.Errorf("boot %d: %w", boot, err)
		default:
			return sum, err
		}
	}
}

// bootTwice runs the machine, and once more if it did not get as far as its
// scenario: an emulated machine misses an interrupt now and then, mostly while
// its kernel calibrates a clock, and nothing of ours has run by then.
func (l *lab) bootTwice(ctx context.Context, m machine, log io.Writer, opt options, factor float64, limit time.Duration) (times, error) {
	t, err := l.boot(ctx, m, log, opt, factor, limit)
	if errors.Is(err, errBoot) && ctx.Err() == nil {
		l.logf("%v; trying once more", err)
		t, err = l.boot(ctx, m, log, opt, factor, limit)
	}
	return t, err
}

// boot runs the machine, and shows the end of its console if that goes wrong.
func (l *lab) boot(ctx context.Context, m machine, log io.Writer, opt options, factor float64, limit time.Duration) (times, error) {
	cons := newConsole(log, l.stderr, opt.verbose)
	t, err := m.boot(ctx, cons, factor, limit)
	err = errors.Join(err, cons.Close())
	if err != nil && !errors.Is(err, errCrash) && ctx.Err() == nil && !opt.verbose {
		fmt.Fprintf(l.stderr, "%s\n", cons.last())
		l.logf("above: the last that the console said")
	}
	return t, err
}

// assemble makes a machine for a scenario, with everything it needs in tmp.
func (l *lab) assemble(ctx context.Context, su suite, s scenario, args []string, tmp string, env map[string]string) (machine, error) {
	img, err := l.image(ctx, su)
	if err != nil {
		return machine{}, err
	}
	m := machine{image: img, xen: s.xen, mem: s.mem, dom0Mem: s.dom0Mem, root: filepath.Join(tmp, "root.qcow2"), result: filepath.Join(tmp, "result.img")}
	if err := layer(ctx, img, m.root); err != nil {
		return machine{}, err
	}
	if m.disks, err = emptyDisks(tmp, s.vg); err != nil {
		return machine{}, err
	}
	env["LAB_SUITE"], env["LAB_SCENARIO"], env["LAB_XEN"] = su.name, s.name, yesNo(s.xen)
	for i := range m.disks {
		env["LAB_DISKS"] += fmt.Sprintf("/dev/vd%c ", firstDisk+i)
	}
	if m.payload, err = l.payload(ctx, img, s, env, args, tmp); err != nil {
		return machine{}, err
	}
	return m, sparse(m.result, resultSize)
}

// shell opens a console in the lab on the user's terminal.
func (l *lab) shell(ctx context.Context, su suite, opt options) (err error) {
	tmp, err := os.MkdirTemp("", "xenlvm-lab-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	s := defaults()
	s.name, s.xen, s.gotest = "shell", !opt.noXen, opt.gotest
	m, err := l.assemble(ctx, su, s, nil, tmp, map[string]string{
		"LAB_MODE": "shell", "LAB_TIME_FACTOR": "1", "LAB_TERM": os.Getenv("TERM"), "LAB_SIZE": terminalSize(os.Stdin),
	})
	if err != nil {
		return err
	}
	unlock, err := l.slot(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	l.logf("booting; the lab powers off when its shell ends (Ctrl-D)")
	cmd := m.command(ctx)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("QEMU ended: %w", err)
	}
	return nil
}

// seconds rounds a duration for people.
func seconds(d time.Duration) float64 {
	return float64(d.Round(100*time.Millisecond)) / float64(time.Second)
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
