// Package fault gives errors the two things a caller at the shell needs: an
// exit status and, where there is one, a hint that says what to do next.
//
// The statuses are the same for all programs of the family; docs/exit-status.md is the
// table for readers. An error without a status of its own means Failed.
package fault

import (
	"context"
	"errors"
	"fmt"
	"os"
)

// Status is an exit status of the family of programs.
type Status int

// The exit statuses. A status that is not in this list means failure.
const (
	Done        Status = 0   // done, or nothing to do
	Failed      Status = 1   // failed, everything undone
	Usage       Status = 2   // the command line cannot be understood
	Refused     Status = 3   // a check refused, nothing was touched
	Left        Status = 4   // failed, and something is left; each leftover is named
	Mismatch    Status = 5   // verification found a difference
	Interrupted Status = 130 // interrupted, everything undone

	// Of the verbs called status alone, as mdadm --detail --test tells such things apart.
	Recovering Status = 10 // the second member is being filled, or a run is at work
	Degraded   Status = 11 // a member is missing, or failed; something is half-way
	Broken     Status = 12 // no member has everything
)

// ErrInterrupted is the cause of a context that a signal ended.
var ErrInterrupted = errors.New("interrupted")

type statusError struct {
	error
	status Status
}

func (e statusError) Unwrap() error { return e.error }

type hintError struct {
	error
	hint string
}

func (e hintError) Unwrap() error { return e.error }

// With gives err the exit status s. It keeps a nil error nil.
func With(s Status, err error) error {
	if err == nil {
		return nil
	}
	return statusError{err, s}
}

// Refuse is an error of a check that ran before the first change.
func Refuse(format string, args ...any) error {
	return statusError{fmt.Errorf(format, args...), Refused}
}

// BadUsage is an error in the command line.
func BadUsage(format string, args ...any) error {
	return statusError{fmt.Errorf(format, args...), Usage}
}

// Hint adds a line that says what to do next. It keeps a nil error nil.
func Hint(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return hintError{err, fmt.Sprintf(format, args...)}
}

// Reason is err without the operation and the path that package os puts in front, for
// a message that names both itself.
func Reason(err error) error {
	switch e := err.(type) {
	case *os.PathError:
		return e.Err
	case *os.LinkError:
		return e.Err
	}
	return err
}

// severity orders statuses for StatusOf: a leftover needs hands, so it is
// reported before anything else; a mismatch before a plain failure. A refusal
// behind a failure was one of a check that came too late to touch nothing.
var severity = []Status{Left, Mismatch, Interrupted, Failed, Usage, Refused, Broken, Degraded, Recovering}

// StatusOf is the exit status of err: the gravest of all errors joined in it.
func StatusOf(err error) Status {
	if err == nil {
		return Done
	}
	found := map[Status]bool{}
	walk(err, func(e error) {
		if s, ok := e.(statusError); ok {
			found[s.status] = true
		}
	})
	if errors.Is(err, ErrInterrupted) || errors.Is(err, context.Canceled) {
		found[Interrupted] = true
	}
	for _, s := range severity {
		if found[s] {
			return s
		}
	}
	return Failed
}

// Hints are the hints of all errors joined in err, outermost first, each once.
func Hints(err error) []string {
	var hints []string
	seen := map[string]bool{}
	walk(err, func(e error) {
		if h, ok := e.(hintError); ok && !seen[h.hint] {
			seen[h.hint] = true
			hints = append(hints, h.hint)
		}
	})
	return hints
}

func walk(err error, visit func(error)) {
	if err == nil {
		return
	}
	visit(err)
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		walk(e.Unwrap(), visit)
	case interface{ Unwrap() []error }:
		for _, one := range e.Unwrap() {
			walk(one, visit)
		}
	}
}
