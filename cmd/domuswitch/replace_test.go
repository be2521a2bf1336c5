package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"xenlvm/internal/fakehost"
	"xenlvm/lib/cli"
	"xenlvm/lib/fault"
	"xenlvm/lib/mapping"
	"xenlvm/lib/step"
)

const oldConfig = "name = 'vm3'\ndisk = [ 'file:/srv/vm3.img,xvda,w' ]\n"

// prepared is a domain and the change of its only disk, which is not made yet.
func prepared(t *testing.T) (*command, *replacement) {
	t.Helper()
	dir := t.TempDir()
	c := newCommand()
	c.config, c.stateDir, c.offline = filepath.Join(dir, "vm3.cfg"), filepath.Join(dir, "state"), true
	c.stat = fakehost.Stat
	if err := os.WriteFile(c.config, []byte(oldConfig), 0o600); err != nil {
		t.Fatal(err)
	}
	d := reopen(t, c)
	r := request{domain: "vm3", lines: []mapping.Line{{Domain: "vm3", VDev: "xvda", Destination: "/dev/vg0/vm3", State: mapping.Copied}}}
	change, err := c.change(t.Context(), nil, d, r, false)
	if err != nil {
		t.Fatal(err)
	}
	return c, change
}

func reopen(t *testing.T, c *command) *domain {
	t.Helper()
	d, release, err := c.begin(&cli.Env{}, "apply", "vm3")
	if err != nil {
		t.Fatal(err)
	}
	release()
	return d
}

// Whichever step fails or is interrupted: the old configuration, and nothing
// to revert.
func TestChangeFailsAtEveryStep(t *testing.T) {
	for n := range 3 {
		for name, fail := range map[string]func(context.CancelCauseFunc) error{
			"failed":      func(context.CancelCauseFunc) error { return errors.New("broken") },
			"interrupted": func(cancel context.CancelCauseFunc) error { cancel(fault.ErrInterrupted); return nil },
		} {
			c, change := prepared(t)
			ctx, cancel := context.WithCancelCause(t.Context())
			plan := append(change.steps(), step.Step{What: "go on", Do: func(context.Context) error { return nil }})
			plan = append(plan[:n:n], append(step.Plan{{What: "fail", Do: func(context.Context) error { return fail(cancel) }}}, plan[n:]...)...)
			err := plan.Run(ctx, nil)
			if want := map[string]fault.Status{"failed": fault.Failed, "interrupted": fault.Interrupted}[name]; fault.StatusOf(err) != want {
				t.Errorf("%s before step %d: status of %v", name, n, err)
			}
			d := reopen(t, c)
			if string(d.file.Content) != oldConfig {
				t.Errorf("%s before step %d: the configuration is %q", name, n, d.file.Content)
			}
			if h := d.historyOf(); h.found && (!h.undone || h.reversible) {
				t.Errorf("%s before step %d: history %+v", name, n, h)
			}
			if left, _ := filepath.Glob(d.journal.Path("config.*")); left != nil {
				t.Errorf("%s before step %d: %q was left", name, n, left)
			}
		}
	}
}

// A new configuration that may not survive a power cut is in place all the same, and
// revert needs the old one.
func TestBackupOfWhatMayNotLast(t *testing.T) {
	c, change := prepared(t)
	plan := change.steps()
	rewrite := plan[1].Do
	plan[1].Do = func(ctx context.Context) error {
		return errors.Join(rewrite(ctx), fault.With(fault.Left, errors.New("its directory cannot be synced")))
	}
	if err := plan.Run(t.Context(), nil); fault.StatusOf(err) != fault.Left {
		t.Errorf("status of %v", err)
	}
	d := reopen(t, c)
	back, err := c.goingBack(d)
	if err != nil || back == nil {
		t.Fatalf("no way back: %v", err)
	}
	if err := back.steps().Run(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if d = reopen(t, c); string(d.file.Content) != oldConfig {
		t.Errorf("the configuration is %q", d.file.Content)
	}
}

// Killed between any two steps: the configuration is the whole old or the whole
// new one, and the journal tells which.
func TestChangeKilledAtEveryStep(t *testing.T) {
	for n := range 3 {
		c, change := prepared(t)
		for _, s := range change.steps()[:n] {
			if err := s.Do(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		d := reopen(t, c)
		back, err := c.goingBack(d)
		switch {
		case n == 0 && fault.StatusOf(err) != fault.Refused, n > 0 && err != nil:
			t.Fatalf("after %d steps: %v", n, err)
		case n < 2 && (string(d.file.Content) != oldConfig || back != nil):
			t.Errorf("after %d steps: %q, to revert: %v", n, d.file.Content, back != nil)
		case n >= 2:
			if string(d.file.Content) != string(change.content) || back == nil {
				t.Fatalf("after %d steps: %q, to revert: %v", n, d.file.Content, back != nil)
			}
			if err := back.steps().Run(t.Context(), nil); err != nil {
				t.Fatal(err)
			}
			if got, _ := os.ReadFile(c.config); string(got) != oldConfig {
				t.Errorf("after %d steps, reverted: %q", n, got)
			}
		}
	}
}

// A change that fails and is undone hides none that was made before, neither
// there nor back.
func TestRevertAfterAnUndoneChange(t *testing.T) {
	apply := func(t *testing.T, c *command, device string, fails bool) {
		t.Helper()
		r := request{domain: "vm3", lines: []mapping.Line{{Domain: "vm3", VDev: "xvda", Destination: device, State: mapping.Copied}}}
		change, err := c.change(t.Context(), nil, reopen(t, c), r, false)
		if err != nil {
			t.Fatal(err)
		}
		plan := change.steps()
		if fails {
			plan = append(plan, step.Step{What: "fail", Do: func(context.Context) error { return errors.New("broken") }})
		}
		if err := plan.Run(t.Context(), nil); (err != nil) != fails {
			t.Fatal(err)
		}
	}
	// revert says whether there was something to do.
	revert := func(t *testing.T, c *command) bool {
		t.Helper()
		back, err := c.goingBack(reopen(t, c))
		if err == nil && back != nil {
			err = back.steps().Run(t.Context(), nil)
		}
		if err != nil {
			t.Fatal(err)
		}
		return back != nil
	}
	for name, again := range map[string]string{"the same device": "/dev/vg0/vm3", "another": "/dev/vg0/other"} {
		t.Run(name, func(t *testing.T) {
			c, _ := prepared(t)
			apply(t, c, "/dev/vg0/vm3", false)
			if !revert(t, c) {
				t.Error("there was nothing to revert")
			}
			apply(t, c, again, true)
			if revert(t, c) {
				t.Error("an undone change was reverted")
			}
			apply(t, c, "/dev/vg0/vm3", false)
			if again != "/dev/vg0/vm3" {
				apply(t, c, again, true)
			}
			if !revert(t, c) || revert(t, c) {
				t.Error("the change that was made was not reverted, or twice")
			}
			if got, _ := os.ReadFile(c.config); string(got) != oldConfig {
				t.Errorf("the configuration is %q", got)
			}
		})
	}
}

func TestSomebodyElseEdits(t *testing.T) {
	c, change := prepared(t)
	const theirs = oldConfig + "memory = 512\n"
	if err := os.WriteFile(c.config, []byte(theirs), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := change.steps().Run(t.Context(), nil); fault.StatusOf(err) != fault.Failed {
		t.Errorf("status of %v", err)
	}
	if got, _ := os.ReadFile(c.config); string(got) != theirs {
		t.Errorf("the configuration is %q", got)
	}
}

// What a dry run prints does the same when it is pasted into a shell.
func TestDryRunLinesWork(t *testing.T) {
	for _, program := range []string{"sh", "install", "patch"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip(err)
		}
	}
	c, change := prepared(t)
	var lines strings.Builder
	if err := change.steps().Print(&lines); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("sh", "-e", "-c", lines.String()).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s\n%s", err, out, lines.String())
	}
	if got, _ := os.ReadFile(c.config); string(got) != string(change.content) {
		t.Errorf("the lines made %q; want %q", got, change.content)
	}
	if got, _ := os.ReadFile(change.d.journal.Path(change.backup)); string(got) != oldConfig {
		t.Errorf("the backup holds %q", got)
	}
}
