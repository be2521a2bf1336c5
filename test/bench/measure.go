package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"xenlvm/lib/fault"
)

// sample is one run of one tool.
type sample struct {
	seconds float64 // with the flush of the destination
	cpu     float64 // seconds of all its processes, in user and kernel mode
	rss     int64   // the most memory that its processes had at a time
	read    int64   // by read(2) and its relatives, whatever cached it
	wrote   int64   // by write(2) and its relatives
	device  int64   // that the destination got, zeros included
	again   repeated
	verdict verdict
}

// repeated is what an interrupted run and the next one took more than a run without
// an interruption.
type repeated struct {
	seconds     float64
	read, wrote int64 // bytes
}

// measure runs argv to its end and flushes t. A tool that fails is no error, but
// its sample's verdict. memory is the file to be in for a limit, "" for none.
// killAfter, if not 0, kills it then: that is no failure.
func measure(ctx context.Context, argv []string, t *target, scratch, memory string, killAfter time.Duration) (sample, error) {
	become := []string{"/usr/bin/env"} // finds the program in PATH and becomes it
	if memory != "" {
		become = []string{"/bin/sh", "-c", `echo $$ >"$0" && exec "$@"`, memory}
	}
	argv = append(become, argv...)
	before, err := t.written()
	if err != nil {
		return sample{}, err
	}
	began := time.Now()
	p, err := launch(argv, scratch)
	if err != nil {
		return sample{}, err
	}
	s, err := p.wait(ctx, killAfter)
	if err != nil {
		return s, err
	}
	if err := t.flush(); err != nil {
		return s, err
	}
	s.seconds = time.Since(began).Seconds()
	after, err := t.written()
	s.device = after - before
	return s, err
}

// process is a running tool. lib/run is for commands whose result counts; here it
// is what they cost, which the kernel tells until they are waited for.
type process struct {
	*os.Process
	log *os.File
}

// launch starts argv in a process group of its own; scratch/log takes its output.
func launch(argv []string, scratch string) (*process, error) {
	log, err := os.Create(filepath.Join(scratch, "log"))
	if err != nil {
		return nil, err
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, errors.Join(err, log.Close())
	}
	defer null.Close()
	p, err := os.StartProcess(argv[0], argv, &os.ProcAttr{
		Dir: scratch, Env: append(os.Environ(), "LC_ALL=C"), Files: []*os.File{null, log, log},
		Sys: &syscall.SysProcAttr{Setpgid: true},
	})
	if err != nil {
		return nil, errors.Join(err, log.Close())
	}
	return &process{p, log}, nil
}

func (p *process) kill() { _ = syscall.Kill(-p.Pid, syscall.SIGKILL) } // it may have ended

// wait waits for the process and reads what the kernel counted. When ctx ends the
// process is killed.
func (p *process) wait(ctx context.Context, killAfter time.Duration) (sample, error) {
	defer p.log.Close()
	defer context.AfterFunc(ctx, p.kill)()
	if killAfter > 0 {
		defer time.AfterFunc(killAfter, p.kill).Stop()
	}
	ended := make(chan error, 1)
	go func() {
		for {
			err := unix.Waitid(unix.P_PID, p.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
			if err != unix.EINTR {
				ended <- err
				return
			}
		}
	}()
	s := sample{rss: groupMemory(p.Pid)}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-ended:
			return p.account(ctx, s, killAfter > 0, err)
		case <-tick.C:
			s.rss = max(s.rss, groupMemory(p.Pid))
		}
	}
}

// account reads the counters of the process, which has ended, and lets it go.
func (p *process) account(ctx context.Context, s sample, killed bool, err error) (sample, error) {
	io, ioErr := os.ReadFile(fmt.Sprintf("/proc/%d/io", p.Pid))
	state, waitErr := p.Wait()
	if err := errors.Join(err, ioErr, waitErr); err != nil {
		return s, err
	}
	if ctx.Err() != nil {
		return s, fault.With(fault.Interrupted, context.Cause(ctx))
	}
	counters := fields(string(io))
	s.read, s.wrote = counters["rchar"], counters["wchar"]
	s.cpu = (state.UserTime() + state.SystemTime()).Seconds()
	if !state.Success() && !killed {
		s.verdict = verdict{state: failed, why: state.String() + lastLine(p.log.Name())}
	}
	return s, nil
}

// groupMemory is what the processes of a group have in memory now, each at its
// peak. The kernel's own count (ru_maxrss) begins with that of our program.
func groupMemory(group int) int64 {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0
	}
	var sum int64
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if g, err := unix.Getpgid(pid); err != nil || g != group {
			continue
		}
		status, err := os.ReadFile("/proc/" + e.Name() + "/status")
		if err == nil {
			sum += fields(string(status))["VmHWM"] << 10
		}
	}
	return sum
}

// fields reads lines "name: number unit".
func fields(text string) map[string]int64 {
	m := map[string]int64{}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(line, ":")
		if words := strings.Fields(value); len(words) > 0 {
			if n, err := strconv.ParseInt(words[0], 10, 64); err == nil {
				m[name] = n
			}
		}
	}
	return m
}

// lastLine is the last line of a log that is no hint.
func lastLine(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	last := ""
	for line := range strings.Lines(string(b)) {
		if line = strings.TrimSpace(line); line != "" && !strings.Contains(line, ": hint: ") {
			last = ": " + line
		}
	}
	return last
}

// limitMemory makes a control group with so much memory. It returns the file by
// which a process enters it; remove deletes the empty group.
func limitMemory(bytes int64) (procs string, remove func() error, err error) {
	const root = "/sys/fs/cgroup"
	name := fmt.Sprintf("xenlvm-bench-%d", os.Getpid())
	for dir, knob := range map[string]string{filepath.Join(root, "memory", name): "memory.limit_in_bytes", filepath.Join(root, name): "memory.max"} {
		if _, err := os.Stat(filepath.Dir(dir) + "/cgroup.procs"); err != nil {
			continue
		}
		if err := os.Mkdir(dir, 0o755); err != nil {
			return "", nil, err
		}
		if err := os.WriteFile(filepath.Join(dir, knob), []byte(strconv.FormatInt(bytes, 10)), 0); err == nil {
			return filepath.Join(dir, "cgroup.procs"), func() error { return os.Remove(dir) }, nil
		}
		_ = os.Remove(dir) // made above, and empty
	}
	return "", nil, errors.New("no control groups with a memory controller")
}
