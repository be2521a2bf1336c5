package main

import (
	"context"
	"errors"
	"io"
	"os"
	"testing"

	"xenlvm/internal/mantest"
	"xenlvm/lib/cli"
	"xenlvm/lib/fault"
	"xenlvm/lib/run"
)

func TestManPage(t *testing.T) { mantest.Check(t, tool(), "lvsnap.8") }

// noVolumes answers lvs.
type noVolumes struct{}

func (noVolumes) Run(context.Context, run.Cmd) (run.Result, error) {
	return run.Result{Stdout: []byte(`{"report":[{"lv":[{"vg_name":"vg0", "lv_name":"s", "origin":"o"}]}]}`)}, nil
}

// full is a standard output that takes nothing.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no space left on device") }

func TestRootNobodyReadsTheList(t *testing.T) {
	if os.Geteuid() != 0 || os.Getenv("XENLVM_ROOT_TESTS") != "1" {
		t.Skip("needs root and XENLVM_ROOT_TESTS=1")
	}
	for _, asJSON := range []bool{false, true} {
		e := &cli.Env{Tool: "lvsnap", Stdout: full{}, Stderr: io.Discard, Runner: noVolumes{}}
		e.JSON = asJSON
		if err := (&options{}).list(t.Context(), e, nil); fault.StatusOf(err) != fault.Left {
			t.Errorf("--json=%v: %v, status %d; want %d", asJSON, err, fault.StatusOf(err), fault.Left)
		}
	}
}
