package run

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"
)

// tries is how often a question is asked, and between is the time between two times.
const (
	tries   = 3
	between = 100 * time.Millisecond
)

// Insist runs a query, and again when it fails: what was begun, perhaps with a domain
// that is stopped, is not given up for one question without an answer. An error whose
// text has one of the answers is one.
func Insist(ctx context.Context, r Runner, c Cmd, answers ...string) (Result, error) {
	for try := 1; ; try++ {
		res, err := r.Run(ctx, c)
		var failed *Error
		answered := errors.As(err, &failed) && slices.ContainsFunc(answers, func(a string) bool { return strings.Contains(failed.Stderr, a) })
		// What did not run at all, or hung, will do so again.
		if failed == nil || answered || try == tries {
			return res, err
		}
		select {
		case <-ctx.Done():
			return res, err
		case <-time.After(between):
		}
	}
}
