package fault

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"
)

func TestStatusOf(t *testing.T) {
	plain := errors.New("plain")
	tests := []struct {
		name string
		err  error
		want Status
	}{
		{"nil", nil, Done},
		{"plain", plain, Failed},
		{"refused, wrapped", fmt.Errorf("vm3: %w", Refuse("no")), Refused},
		{"usage", BadUsage("no"), Usage},
		{"hint keeps the status", Hint(Refuse("no"), "do this"), Refused},
		{"a leftover is the gravest", errors.Join(Refuse("no"), With(Left, plain)), Left},
		{"mismatch before failure", errors.Join(plain, With(Mismatch, plain)), Mismatch},
		{"a refusal when things were done already", With(Failed, Refuse("no")), Failed},
		{"cancelled", fmt.Errorf("copy: %w", context.Canceled), Interrupted},
		{"signal", fmt.Errorf("copy: %w", ErrInterrupted), Interrupted},
		{"interrupted, but not all undone", errors.Join(ErrInterrupted, With(Left, plain)), Left},
	}
	for _, tt := range tests {
		if got := StatusOf(tt.err); got != tt.want {
			t.Errorf("%s: StatusOf(%v) = %d; want %d", tt.name, tt.err, got, tt.want)
		}
	}
}

func TestNilStaysNil(t *testing.T) {
	if With(Left, nil) != nil || Hint(nil, "x") != nil {
		t.Error("an error appeared from nothing")
	}
}

func TestHints(t *testing.T) {
	inner := Hint(errors.New("cannot run lvs: not installed"), "apt-get install lvm2")
	err := errors.Join(Hint(inner, "then try again"), inner)
	want := []string{"then try again", "apt-get install lvm2"}
	if got := Hints(err); !slices.Equal(got, want) {
		t.Errorf("Hints = %q; want %q", got, want)
	}
}

func TestReason(t *testing.T) {
	no := errors.New("no")
	for _, err := range []error{no, &os.PathError{Op: "open", Path: "a", Err: no}, &os.LinkError{Op: "rename", Old: "a", New: "b", Err: no}} {
		if got := Reason(err); got != no {
			t.Errorf("Reason(%v) = %v", err, got)
		}
	}
	outer := fmt.Errorf("line 3: %w", &os.PathError{Op: "open", Path: "a", Err: no})
	if got := Reason(outer); got != outer {
		t.Errorf("what is around it is gone: %v", got)
	}
}
