package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"xenlvm/internal/fakehost"
	"xenlvm/lib/cli"
	"xenlvm/lib/fault"
	"xenlvm/lib/run"
	"xenlvm/lib/step"
	"xenlvm/lib/xl"
)

// Interrupted between two steps: a guest that writes without connected disks
// stays once it was let run, and is destroyed before.
func TestStartUndoneAtEveryStep(t *testing.T) {
	for n, stays := range map[int]bool{1: false, 2: false, 3: false, 4: true} {
		dir := t.TempDir()
		t.Setenv("WORK", dir)
		config := "name = 'vm3'\ntype = 'hvm'\ndisk = [ 'phy:/dev/vg0/a,xvda,w' ]\n"
		host := `{"xl": {"unconnected": ["xvda"]}, "last_id": 4, "devices": {"/dev/vg0/a": {"size": 1, "major": 253, "minor": 10, "lv": "vg0/a"}}}`
		err := errors.Join(os.WriteFile(filepath.Join(dir, "vm3.cfg"), []byte(config), 0o600), os.WriteFile(filepath.Join(dir, "host.json"), []byte(host), 0o600))
		if err != nil {
			t.Fatal(err)
		}
		c := onFakeHost()
		c.config, c.stateDir = filepath.Join(dir, "vm3.cfg"), dir
		e := &cli.Env{Runner: run.Host{}}
		d, release, err := c.begin(e, "start", "vm3")
		if err != nil {
			t.Fatal(err)
		}
		defer release()
		s := c.starting(e, d, d.disks, xl.CreatePaused(d.file.Path))
		plan, err := s.plan()
		if err != nil {
			t.Fatal(err)
		}
		broken := errors.New("broken")
		plan = append(plan[:n:n], step.Step{What: "fail", Do: func(context.Context) error { return broken }})
		err = s.explain(plan.Run(t.Context(), nil))
		if !errors.Is(err, broken) || strings.Contains(err.Error(), "left as it is") != stays {
			t.Errorf("after %d steps: %v", n, err)
		}
		now, err := fakehost.Load()
		if err != nil {
			t.Fatal(err)
		}
		if (len(now.Domains) == 1) != stays || stays && now.Domains[0].State != "" {
			t.Errorf("after %d steps: %d domains", n, len(now.Domains))
		}
		if d.records, err = d.journal.Read(); err != nil {
			t.Fatal(err)
		}
		undone := 0
		for _, r := range d.records {
			if r.Kind == "start-undone" {
				undone++
			}
		}
		if want := len(d.records) / 2; stays && undone > 0 || !stays && undone != want {
			t.Errorf("after %d steps: %d of %d records undo a start", n, undone, len(d.records))
		}
	}
}

// A result that cannot be printed is told of by the exit status of what was done,
// and the next run prints it.
func TestFullStdout(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer full.Close()
	for _, args := range [][]string{{"stop", "vm3", "--json"}, {"start", "vm3", "--json"}, {"restart", "vm3", "xvda=/dev/vg0/a", "--json"}} {
		dir := t.TempDir()
		t.Setenv("WORK", dir)
		config := "name = 'vm3'\ndisk = [ 'phy:/dev/vg0/b,xvda,w' ]\n"
		host := `{"last_id": 4, "devices": {"/dev/vg0/a": {"size": 1, "major": 253, "minor": 10, "lv": "vg0/a"}, "/dev/vg0/b": {"size": 1, "major": 253, "minor": 11, "lv": "vg0/b"}}}`
		err := errors.Join(os.WriteFile(filepath.Join(dir, "vm3.cfg"), []byte(config), 0o600), os.WriteFile(filepath.Join(dir, "host.json"), []byte(host), 0o600))
		if err != nil {
			t.Fatal(err)
		}
		do := func(stdout io.Writer, args ...string) (fault.Status, string) {
			var stderr bytes.Buffer
			e := &cli.Env{Tool: "domuswitch", Stdout: stdout, Stderr: &stderr}
			return onFakeHost().tool().Exec(t.Context(), e, append(args, "--xen-dir", dir)), stderr.String()
		}
		t.Setenv("DOMUSWITCH_STATE_DIR", filepath.Join(dir, "state"))
		if s, said := do(full, args...); s != fault.Left || !strings.Contains(said, "done, but the result cannot be printed: ") || !strings.Contains(said, "hint: run it again") {
			t.Errorf("%q: status %d, %s", args, s, said)
		}
		if s, said := do(io.Discard, args...); s != fault.Done {
			t.Errorf("%q once more: status %d, %s", args, s, said)
		}
	}
}
