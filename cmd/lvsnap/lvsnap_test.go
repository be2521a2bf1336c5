package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
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

// groups answers vgs and lvs of a host that has the group vg0, and nothing in it.
type groups struct{}

func (groups) Run(_ context.Context, c run.Cmd) (run.Result, error) {
	row := ""
	if c.Name == "vgs" && strings.Contains(c.Line(), "vg0") {
		row = `{"vg_name":"vg0", "vg_size":"1", "vg_free":"1", "vg_extent_size":"1"}`
	}
	return run.Result{Stdout: fmt.Appendf(nil, `{"report":[{%q:[%s]}]}`, strings.TrimSuffix(c.Name, "s"), row)}, nil
}

// A volume group that is mistyped is not one without snapshots.
func TestRootUnknownGroup(t *testing.T) {
	if os.Geteuid() != 0 || os.Getenv("XENLVM_ROOT_TESTS") != "1" {
		t.Skip("needs root and XENLVM_ROOT_TESTS=1")
	}
	e := &cli.Env{Tool: "lvsnap", Stdout: io.Discard, Stderr: io.Discard, Runner: groups{}}
	o := &options{}
	for vg, want := range map[string]fault.Status{"vg0": fault.Done, "nosuchvg": fault.Refused} {
		if err := o.list(t.Context(), e, []string{vg}); fault.StatusOf(err) != want {
			t.Errorf("list %s: %v; want status %d", vg, err, want)
		}
		if err := o.remove(t.Context(), e, []string{vg + "/x"}); fault.StatusOf(err) != want {
			t.Errorf("remove %s/x: %v; want status %d", vg, err, want)
		}
	}
}
