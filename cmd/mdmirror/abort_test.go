package main

import (
	"errors"
	"slices"
	"testing"

	"xenlvm/lib/fault"
	"xenlvm/lib/mirror"
)

// A switch that was interrupted goes on: what is configured is right.
func TestNotSwitched(t *testing.T) {
	k := mirror.Known{Disk: mirror.Disk{Domain: "vm3", VDev: "xvda"}}
	err := newCommand().notSwitched(&target{}, k, fault.ErrInterrupted)
	if got := fault.Hints(err); !slices.Equal(got, []string{"the domain goes on as it was; go on: mdmirror finish vm3"}) || !errors.Is(err, fault.ErrInterrupted) {
		t.Errorf("%v, hints %q", err, got)
	}
}
