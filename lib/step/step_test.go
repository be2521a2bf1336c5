package step

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"xenlvm/lib/fault"
	"xenlvm/lib/run"
)

// plan is n steps of which the even ones are temporary; trace gets all calls.
func plan(n int, trace *[]string, failDo, failUndo int) Plan {
	var p Plan
	for i := range n {
		p = append(p, Step{
			What: fmt.Sprint("s", i), Line: fmt.Sprint("do ", i), UndoLine: fmt.Sprint("undo ", i),
			Temporary: i%2 == 0,
			Do: func(context.Context) error {
				*trace = append(*trace, fmt.Sprint("do ", i))
				if i == failDo {
					return errors.New("broken")
				}
				return nil
			},
			Undo: func(ctx context.Context) error {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				*trace = append(*trace, fmt.Sprint("undo ", i))
				if i == failUndo {
					return errors.New("stuck")
				}
				return nil
			},
		})
	}
	return p
}

func TestRunUndoesNewestFirst(t *testing.T) {
	for _, tt := range []struct {
		name             string
		failDo, failUndo int
		want             string
		status           fault.Status
		hints            []string
	}{
		{"success takes back the temporary", -1, -1, "do 0,do 1,do 2,do 3,undo 2,undo 0", fault.Done, nil},
		{"failure takes back all that was done", 2, -1, "do 0,do 1,do 2,undo 1,undo 0", fault.Failed, nil},
		{"failure of the first", 0, -1, "do 0", fault.Failed, nil},
		{"a stuck undo does not stop the others", 3, 1, "do 0,do 1,do 2,do 3,undo 2,undo 1,undo 0", fault.Left, []string{"undo 1"}},
		{"a stuck undo after success", -1, 2, "do 0,do 1,do 2,do 3,undo 2,undo 0", fault.Left, []string{"undo 2"}},
	} {
		var trace []string
		err := plan(4, &trace, tt.failDo, tt.failUndo).Run(t.Context(), nil)
		if got := strings.Join(trace, ","); got != tt.want {
			t.Errorf("%s: ran %s; want %s", tt.name, got, tt.want)
		}
		if got := fault.StatusOf(err); got != tt.status {
			t.Errorf("%s: status %d (%v); want %d", tt.name, got, err, tt.status)
		}
		if got := fault.Hints(err); !slices.Equal(got, tt.hints) {
			t.Errorf("%s: hints %q; want %q", tt.name, got, tt.hints)
		}
	}
}

// One that hangs does not keep the others from being undone. Time is synctest's.
func TestAnUndoThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var trace []string
		p := plan(3, &trace, 2, -1)
		p[1].Undo = func(context.Context) error { time.Sleep(24 * time.Hour); return nil }
		began := time.Now()
		err := p.Run(t.Context(), nil)
		if took := time.Since(began); took != undoLimit {
			t.Errorf("it took %s; want %s", took, undoLimit)
		}
		if got, want := strings.Join(trace, ","), "do 0,do 1,do 2,undo 0"; got != want {
			t.Errorf("ran %s; want %s", got, want)
		}
		if fault.StatusOf(err) != fault.Left || !strings.Contains(err.Error(), "cannot undo: s1: it hangs") || !slices.Equal(fault.Hints(err), []string{"undo 1"}) {
			t.Errorf("%v, hints %q; want what hangs, and its command", err, fault.Hints(err))
		}
		time.Sleep(24 * time.Hour) // until it is over
	})
}

func TestARefusalInTheMiddleIsAFailure(t *testing.T) {
	for at, want := range []fault.Status{fault.Refused, fault.Failed} {
		var trace []string
		p := plan(2, &trace, -1, -1)
		p[at].Do = func(context.Context) error { return fault.Refuse("no") }
		if got := fault.StatusOf(p.Run(t.Context(), nil)); got != want {
			t.Errorf("refused at step %d: status %d; want %d", at, got, want)
		}
	}
}

func TestRunStopsBetweenStepsWhenInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	var trace []string
	p := plan(3, &trace, -1, -1)
	p[1].Do = func(context.Context) error { cancel(fault.ErrInterrupted); return nil }
	err := p.Run(ctx, nil)
	if got, want := strings.Join(trace, ","), "do 0,undo 1,undo 0"; got != want {
		t.Errorf("ran %s; want %s", got, want)
	}
	if fault.StatusOf(err) != fault.Interrupted {
		t.Errorf("status of %v is not 130", err)
	}
}

func TestPrintIsTheOrderOfARun(t *testing.T) {
	var trace []string
	p := plan(4, &trace, -1, -1)
	var printed strings.Builder
	if err := p.Print(&printed); err != nil {
		t.Fatal(err)
	}
	if len(trace) != 0 {
		t.Fatalf("printing ran %q", trace)
	}
	if err := p.Run(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if got, want := printed.String(), strings.Join(trace, "\n")+"\n"; got != want {
		t.Errorf("printed\n%swant\n%s", got, want)
	}
}

func TestCommand(t *testing.T) {
	dir := t.TempDir() + "/d"
	s := Command(run.Host{}, "make a directory", run.Cmd{Name: "mkdir", Args: []string{dir}}, run.Cmd{Name: "rmdir", Args: []string{dir}})
	if s.Line != "mkdir "+dir || s.UndoLine != "rmdir "+dir {
		t.Errorf("lines %q, %q", s.Line, s.UndoLine)
	}
	if err := s.Do(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Undo(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Undo(t.Context()); err == nil {
		t.Error("the directory was still there to remove")
	}
}

type recorder []string

func (r *recorder) Started(n, total int, what string) {
	*r = append(*r, fmt.Sprintf("[%d/%d] %s", n, total, what))
}

func (r *recorder) Finished(n, total int, what string, _ time.Duration, err error) {
	*r = append(*r, fmt.Sprintf("[%d/%d] %s: %v", n, total, what, err))
}

func TestReporter(t *testing.T) {
	var trace []string
	var r recorder
	_ = plan(2, &trace, 1, -1).Run(t.Context(), &r)
	want := []string{"[1/2] s0", "[1/2] s0: <nil>", "[2/2] s1", "[2/2] s1: broken", "[1/1] undo: s0", "[1/1] undo: s0: <nil>"}
	if !slices.Equal(r, want) {
		t.Errorf("reported %q; want %q", r, want)
	}
	// What ends well is not called undone.
	r = nil
	_ = plan(1, &trace, -1, -1).Run(t.Context(), &r)
	if want := "[1/1] take back: s0"; !slices.Contains(r, want) {
		t.Errorf("reported %q; want %q", r, want)
	}
}
