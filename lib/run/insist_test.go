package run

import (
	"context"
	"errors"
	"testing"
)

// failing fails with these words, one after the other, and then answers.
type failing struct {
	words []string
	asked int
}

func (f *failing) Run(_ context.Context, c Cmd) (Result, error) {
	f.asked++
	if f.asked <= len(f.words) {
		if f.words[f.asked-1] == "" {
			return Result{}, ErrHangs
		}
		return Result{Code: 1}, &Error{Cmd: c, Code: 1, Stderr: f.words[f.asked-1], Err: errors.New("exit status 1")}
	}
	return Result{}, nil
}

func TestInsist(t *testing.T) {
	for _, tt := range []struct {
		name  string
		words []string
		asked int
		fails bool
	}{
		{"answers", nil, 1, false},
		{"fails once", []string{"busy"}, 2, false},
		{"fails twice", []string{"busy", "busy"}, 3, false},
		{"fails for good", []string{"busy", "busy", "busy", "busy"}, 3, true},
		{"an answer", []string{"xs: No such file"}, 1, true},
		{"hangs", []string{""}, 1, true},
	} {
		f := &failing{words: tt.words}
		if _, err := Insist(t.Context(), f, Cmd{}, "No such file"); (err != nil) != tt.fails || f.asked != tt.asked {
			t.Errorf("%s: %v after %d times; want an error: %t, %d times", tt.name, err, f.asked, tt.fails, tt.asked)
		}
	}
}
