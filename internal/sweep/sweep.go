// Package sweep runs a program with a fault in each of the external commands that it
// calls, one at a time, on a host of stand-ins (internal/fakehost). After each it asks
// what the program promises: an exit status that is true, one of two whole states, and
// that running it again completes the work.
package sweep

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"xenlvm/internal/fakehost"
)

// Plan is a command that is swept.
type Plan struct {
	Name  string
	Make  func(World)        // the host, and what was done on it before
	Run   []string           // the command
	Env   map[string]string  // paths below Dir
	Again [][]string         // what completes it when it was not done; nil: Run
	State func(World) string // of the host: what was changed, without numbers that differ each time
	// Undone says whether the host is as it was before, after a run with this status.
	// Nil: it must be the same.
	Undone func(status int, before, now string) bool
	// Whole says whether a host is in order whose command was killed. Nil: always.
	Whole func(w World) error
	// Settle does what a message says, and lets the moment pass that this takes.
	Settle    func(w World)
	Temporary []string // files below Dir that a killed run may leave: patterns

	// Calls are system calls that fail as well, those of the stand-ins among them: of each,
	// those on one of the paths below Dir, or all if there is none.
	Calls map[string][]string
	Lies  bool // writes that say they wrote, and did not, are among them: it reads back what it wrote
}

// sampled is how many points of a plan are run where not all are asked for.
const sampled = 8

// Run sweeps the plans. The programs are the commands of the test binary (testscript);
// with XENLVM_FULL=1 every point is run, else a sample of them.
func Run(t *testing.T, commands []string, plans []Plan) {
	total := 0
	for _, p := range plans {
		t.Run(p.Name, func(t *testing.T) { total += p.sweep(t, commands) })
	}
	t.Logf("%d points", total)
}

// point is a fault at a command, the name of a program that is missing, or a fault of
// a system call.
type point struct {
	at      int
	kind    fakehost.Fault
	missing string
	call    syscallFault
}

func (p point) String() string {
	switch {
	case p.missing != "":
		return "without " + p.missing
	case p.call.name != "":
		return p.call.String()
	}
	return fmt.Sprintf("command %d %s", p.at, p.kind)
}

func (p Plan) sweep(t *testing.T, commands []string) int {
	var before, after string
	var calls []string
	t.Run("without a fault", func(t *testing.T) {
		w := p.world(t, commands, "")
		before = p.State(w)
		if r := w.run(point{}, p.Run); r.status != 0 {
			t.Fatalf("%q: status %d\n%s", p.Run, r.status, r.said)
		}
		after = p.State(w)
		calls = w.calls()
	})
	if t.Failed() {
		return 0
	}
	points := p.points(t, calls)
	for _, at := range points {
		t.Run(at.String(), func(t *testing.T) {
			w := p.world(t, commands, at.missing)
			p.try(w, at, before, after)
		})
	}
	return len(points)
}

// points are those that are run: of commands that follow each other and are the same,
// as those that wait do, one.
func (p Plan) points(t *testing.T, calls []string) []point {
	var all []point
	if len(p.Calls) > 0 && needStrace(t) {
		for _, c := range syscallFaults(p.Calls, p.Lies) {
			all = append(all, point{call: c})
		}
	}
	names := map[string]bool{}
	for i, call := range calls {
		name, _, _ := strings.Cut(call, " ")
		names[name] = true
		if i > 1 && calls[i-1] == call && calls[i-2] == call {
			continue
		}
		for _, kind := range fakehost.Faults {
			all = append(all, point{at: i + 1, kind: kind})
		}
	}
	if os.Getenv("XENLVM_FULL") != "1" && len(all) > sampled {
		seed := rand.Uint64()
		t.Logf("%d of %d points, seed %d", sampled, len(all), seed)
		rand.New(rand.NewPCG(seed, 0)).Shuffle(len(all), func(i, k int) { all[i], all[k] = all[k], all[i] })
		all = all[:sampled]
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		all = append(all, point{missing: name})
	}
	return all
}

// try runs the command with a fault, judges, and runs it again without.
func (p Plan) try(w World, at point, before, after string) {
	r := w.run(at, p.Run)
	if at.missing == "" && !w.has(fakehost.FaultMark) {
		return // it waited less often this time, or has fewer calls of this kind
	}
	now := p.State(w)
	p.judge(w, at, r, now, before, after)
	if w.Failed() {
		return
	}
	w.restore(at.missing)
	if r.status == killed {
		w.clear(p.Temporary)
	}
	if p.Settle != nil {
		p.Settle(w)
	}
	again := p.Again
	if again == nil || now == after {
		again = [][]string{p.Run}
	}
	for _, args := range again {
		if r := w.run(point{}, args); r.status != 0 {
			w.Errorf("again: %q: status %d\n%s", args, r.status, r.said)
			return
		}
	}
	if now := p.State(w); now != after {
		w.Errorf("again: the state is\n%s\nwant\n%s", now, after)
	}
}

// judge compares what a run with a fault said with what it has done.
func (p Plan) judge(w World, at point, r result, now, before, after string) {
	wrong := func(format string, args ...any) {
		w.Helper()
		w.Errorf("%s: %s\nstatus %d, it said\n%s\nthe state is\n%s\nit was\n%s", r.faulty, fmt.Sprintf(format, args...), r.status, r.said, now, before)
	}
	if strings.Contains(r.said, "goroutine ") {
		wrong("a panic")
	}
	undone := now == before
	if p.Undone != nil {
		undone = p.Undone(r.status, before, now)
	}
	named := strings.Contains(r.said, r.faulty)
	switch r.status {
	case 0:
		if now != after {
			wrong("done, and not done; want\n%s", after)
		}
	case 1, 3:
		if !undone {
			wrong("not undone")
		}
		if at.kind != fakehost.Hangs && at.call.name == "" && !named {
			wrong("the command is not named")
		}
		if at.missing != "" && r.status != 3 {
			wrong("a program is missing, and that is no refusal")
		}
	case 4:
		if !strings.Contains(r.said, ": hint: ") {
			wrong("something is left, and no command clears it")
		}
	case 5:
		if at.call.fault != short {
			wrong("nothing was written but what should be")
		}
	case 130:
		if at.kind != fakehost.Hangs {
			wrong("nobody interrupted it")
		}
		if !undone {
			wrong("interrupted, and not undone")
		}
	case killed:
		if at.kind != fakehost.Kills {
			wrong("it was killed")
		}
	default:
		wrong("no exit status of ours")
	}
	if at.call.fault == "error=EINTR" && r.status != 0 {
		wrong("interrupted by a signal that was for nobody")
	}
	if p.Whole != nil {
		if err := p.Whole(w); err != nil {
			wrong("%v", err)
		}
	}
}
