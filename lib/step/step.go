// Package step is a plan: changes in order, each with its inverse beside it.
//
// A plan is made from queries alone. Printed, it is a dry run: every change as a
// line that can be pasted into a shell. Run, it does the same changes; when one
// fails or the context ends, what was done is undone, newest first. Undoing
// never stops at the first error: what could not be undone is listed in a
// LeftError, each with the command that clears it.
package step

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"xenlvm/lib/fault"
	"xenlvm/lib/run"
)

// Step is one change and its inverse.
type Step struct {
	What string // for people: "create snapshot vg0/images-snap"
	Line string // the same for a shell; may be empty when Do only checks
	Do   func(context.Context) error

	// Undo takes the change back. Nil: there is nothing to take back, or what
	// the step made is worth keeping (an LV half copied: the rerun goes on).
	// A Do that fails must have cleaned up after itself.
	Undo     func(context.Context) error
	UndoLine string

	// Temporary steps are taken back at the end of a plan that succeeded, too:
	// mounts, loops, snapshots.
	Temporary bool
}

// Command is the step that runs c; undo, if it has a name, is its inverse.
func Command(r run.Runner, what string, c, undo run.Cmd) Step {
	c.Effect, undo.Effect = run.Change, run.Change
	s := Step{What: what, Line: c.Line(), Do: func(ctx context.Context) error {
		_, err := r.Run(ctx, c)
		return err
	}}
	if undo.Name != "" {
		s.UndoLine = undo.Line()
		s.Undo = func(ctx context.Context) error {
			_, err := r.Run(ctx, undo)
			return err
		}
	}
	return s
}

// Plan is steps in the order in which they run.
type Plan []Step

// Print writes the lines of all steps, then those that take the temporary ones
// back: what a run that succeeds does, in its order.
func (p Plan) Print(w io.Writer) error {
	var b strings.Builder
	for _, s := range p {
		if s.Line != "" {
			fmt.Fprintln(&b, s.Line)
		}
	}
	for i := len(p) - 1; i >= 0; i-- {
		if p[i].Temporary && p[i].UndoLine != "" {
			fmt.Fprintln(&b, p[i].UndoLine)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Reporter is told how a plan goes. Took is zero when a step starts.
type Reporter interface {
	Started(n, total int, what string)
	Finished(n, total int, what string, took time.Duration, err error)
}

// Leftover is something that could not be taken back.
type Leftover struct {
	What string // "create snapshot vg0/images-snap"
	Line string // the command that clears it
	Err  error
}

// LeftError lists what is left. Its exit status is fault.Left.
type LeftError struct {
	Leftovers []Leftover
}

func (e *LeftError) Error() string {
	lines := make([]string, len(e.Leftovers))
	for i, l := range e.Leftovers {
		lines[i] = fmt.Sprintf("cannot undo: %s: %v", l.What, l.Err)
	}
	return strings.Join(lines, "\n")
}

// undoLimit bounds the undoing of one step: it must end even where a device hangs.
// Unmounting writes back what was cached, and lvremove may discard: long enough
// for these.
const undoLimit = 10 * time.Minute

// Run runs the plan. A nil Reporter reports nowhere.
func (p Plan) Run(ctx context.Context, rep Reporter) error {
	var done Plan
	var failed error
	for i, s := range p {
		if failed = context.Cause(ctx); failed != nil {
			break
		}
		if failed = doStep(ctx, rep, s, i+1, len(p)); failed != nil {
			break
		}
		done = append(done, s)
	}
	if len(done) > 0 {
		// What a step refuses then is no refusal: others were done, and undone.
		failed = fault.With(fault.Failed, failed)
	}
	return errors.Join(failed, undo(ctx, rep, done, failed == nil))
}

func doStep(ctx context.Context, rep Reporter, s Step, n, total int) error {
	if rep != nil {
		rep.Started(n, total, s.What)
	}
	mayKill()
	began := time.Now()
	err := s.Do(ctx)
	if rep != nil {
		rep.Finished(n, total, s.What, time.Since(began), err)
	}
	return err
}

// undo takes back what was done, newest first: all of it after a failure, the
// temporary steps after success. The context's end does not reach it.
func undo(ctx context.Context, rep Reporter, done Plan, success bool) error {
	var left []Leftover
	ctx = context.WithoutCancel(ctx)
	for i := len(done) - 1; i >= 0; i-- {
		s := done[i]
		if s.Undo == nil || success && !s.Temporary {
			continue
		}
		word := "undo: "
		if success { // which is no failure
			word = "take back: "
		}
		inverse := Step{What: word + s.What, Do: func(ctx context.Context) error { return limited(ctx, s.Undo) }}
		if err := doStep(ctx, rep, inverse, i+1, len(done)); err != nil {
			left = append(left, Leftover{What: s.What, Line: s.UndoLine, Err: err})
		}
	}
	if left == nil {
		return nil
	}
	err := fault.With(fault.Left, &LeftError{left})
	// The hint added last is shown first, and what was done last goes first.
	for _, l := range slices.Backward(left) {
		if l.Line != "" {
			err = fault.Hint(err, "%s", l.Line)
		}
	}
	return err
}

// limited undoes until undoLimit. What hangs then is left to itself, never killed:
// an lvremove stopped half-way is worse than one that comes to its end late.
func limited(ctx context.Context, undo func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, undoLimit)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- undo(ctx) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("it hangs: not finished after %s, and left to itself", undoLimit)
	}
}
