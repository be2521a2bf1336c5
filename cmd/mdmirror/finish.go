package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"os"
	"path/filepath"

	"xenlvm/lib/cli"
	"xenlvm/lib/fault"
	"xenlvm/lib/mapping"
	"xenlvm/lib/mirror"
	"xenlvm/lib/run"
	"xenlvm/lib/step"
	"xenlvm/lib/xl"
)

// finish puts the domain onto the volumes. The configuration is changed first:
// as long as both members are equal it may name either, but from the switch on
// only the volume has everything, and a host that goes down then must come up on
// it.
func (c *command) finish(ctx context.Context, e *cli.Env, args []string) error {
	lines, done, err := c.mayFinish(ctx, e, args[0])
	if err != nil || done {
		return err
	}
	if used, err := c.used(e, args[0]); err != nil {
		return err
	} else if !used {
		return c.finishUnused(ctx, e, args[0], lines)
	}
	if err := c.configure(ctx, e, lines); err != nil {
		return err
	}
	t, release, err := c.begin(e, "finish", args[0])
	if err != nil {
		return err
	}
	defer release()
	h := mirror.Host{Run: e.Runner, Journal: t.journal}
	for _, k := range t.known {
		s, err := k.Look()
		if err != nil {
			return err
		}
		if s.Phase == mirror.Switched {
			continue // by a run that was killed then
		}
		err = c.configured(k)
		if err == nil {
			err = e.Apply(ctx, step.Plan{h.Switch(k.Disk)})
		}
		if err != nil {
			return fault.Hint(err, "the domain goes on as it was, but its configuration names %s: domuswitch revert --yes %s", k.Destination, run.Quote(t.domain))
		}
	}
	if err := c.takeDown(ctx, e, h, t.known); err != nil {
		return err
	}
	return present(e, true, t.lines(mapping.Switched, onto), nil)
}

// used says whether the domain has any of its mirrors open.
func (c *command) used(e *cli.Env, arg string) (bool, error) {
	t, release, err := c.begin(e, "look at", arg)
	if err != nil {
		return false, err
	}
	defer release()
	for _, k := range t.known {
		s, err := k.Look()
		if err != nil {
			return false, err
		}
		if s.Top.Open > 0 {
			return true, nil
		}
	}
	return false, nil
}

// finishUnused finishes the mirrors of a domain that does not run: nobody writes,
// so there is nothing to be switched, and the volumes are free for domuswitch when
// the mirrors are gone.
func (c *command) finishUnused(ctx context.Context, e *cli.Env, arg string, lines []mapping.Line) error {
	t, release, err := c.begin(e, "finish", arg)
	if err != nil {
		return err
	}
	err = c.takeDown(ctx, e, mirror.Host{Run: e.Runner, Journal: t.journal}, t.known)
	release()
	if err != nil {
		return err
	}
	if err := c.configure(ctx, e, lines); err != nil {
		return fault.Hint(err, "the mirrors are gone, and the volumes have everything: domuswitch apply %s %s=%s", run.Quote(t.domain), lines[0].VDev, lines[0].Destination)
	}
	for i := range lines {
		lines[i].State = mapping.Switched
	}
	return present(e, true, lines, nil)
}

// mayFinish checks that the volumes have everything, comparing them first unless
// that was done. The boolean says that there is nothing to do.
func (c *command) mayFinish(ctx context.Context, e *cli.Env, arg string) (lines []mapping.Line, done bool, err error) {
	t, release, err := c.begin(e, "finish", arg)
	if err != nil {
		return nil, false, err
	}
	defer release()
	if len(t.known) == 0 && t.ended {
		e.Infof("nothing to do: %s is not mirrored any more", t.domain)
		return nil, true, present(e, false, nil, nil)
	}
	if err := t.need(); err != nil {
		return nil, false, err
	}
	compare := false
	for _, k := range t.known {
		s, err := k.Look()
		if err != nil {
			return nil, false, err
		}
		if s.Phase != mirror.Switched && !s.Complete() {
			return nil, false, k.Unfit(s)
		}
		compare = compare || !k.Compared && s.Phase != mirror.Switched
	}
	if compare && !c.noVerify && !e.DryRun {
		if err := c.compare(ctx, e, t); err != nil {
			return nil, false, err
		}
	}
	h := mirror.Host{Run: e.Runner, Journal: t.journal}
	var plan step.Plan
	for _, k := range t.known {
		plan = append(plan, h.Unmark(k.Disk))
	}
	return t.lines(mapping.Synced, onto), false, e.Apply(ctx, plan)
}

// configure has domuswitch put the volumes into the configuration of the domain,
// and into what Xen restarts it from.
func (c *command) configure(ctx context.Context, e *cli.Env, lines []mapping.Line) error {
	args := []string{"apply", "-", "--xen-dir", c.xenDir, "--state-dir", c.stateDir}
	if c.config != "" {
		args = append(args, "--config", c.config)
	}
	var in bytes.Buffer
	if err := mapping.Write(&in, lines); err != nil {
		return err
	}
	text := in.String()
	cmd := run.Cmd{Name: domuswitch(), Args: args, Stdin: &in, Effect: run.Change}
	s := step.Command(e.Runner, "put the volumes into the configuration", cmd, run.Cmd{})
	s.Line = run.Quote("printf", "%s", text) + " | " + run.Quote(append([]string{"domuswitch"}, args...)...)
	return e.Apply(ctx, step.Plan{s})
}

// domuswitch is the program beside this one, else the one in PATH.
func domuswitch() string {
	if self, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(self), "domuswitch")
		if _, err := os.Stat(beside); err == nil {
			return beside
		}
	}
	return "domuswitch"
}

// configured refuses to switch to a volume that the configuration does not name.
func (c *command) configured(k mirror.Known) error {
	target, err := c.configuredTarget(k)
	if err != nil {
		return err
	}
	a, errA := filepath.EvalSymlinks(target)
	b, errB := filepath.EvalSymlinks(k.Destination)
	if err := errors.Join(errA, errB); err != nil || a != b {
		return fault.Refuse("cannot switch %s to %s: its configuration names %s", k.Disk, k.Destination, target)
	}
	return nil
}

// configuredTarget is what the configuration has as the disk.
func (c *command) configuredTarget(k mirror.Known) (string, error) {
	path := c.config
	if path == "" {
		var err error
		if path, err = xl.FindConfig(c.xenDir, k.Domain); err != nil {
			return "", err
		}
	}
	config, err := xl.ReadConfig(path)
	if err != nil {
		return "", err
	}
	disk, err := config.Disk(k.VDev)
	return disk.Target, fault.With(fault.Refused, err)
}

// takeDown removes what was made for the mirrors.
func (c *command) takeDown(ctx context.Context, e *cli.Env, h mirror.Host, all []mirror.Known) error {
	var plan step.Plan
	for _, k := range all {
		steps, err := h.TakeDown(k.Disk)
		if err != nil {
			return err
		}
		plan = append(plan, steps...)
	}
	return e.Apply(ctx, plan)
}

// abort puts the domain back onto its images.
func (c *command) abort(ctx context.Context, e *cli.Env, args []string) error {
	t, release, err := c.begin(e, "abort", args[0])
	if err != nil {
		return err
	}
	defer release()
	if len(t.known) == 0 {
		e.Infof("nothing to do: %s is not mirrored", t.domain)
		return present(e, false, nil, nil)
	}
	h := mirror.Host{Run: e.Runner, Journal: t.journal}
	var back step.Plan
	for _, k := range t.known {
		s, err := c.mayAbort(k)
		if err != nil {
			return err
		}
		if _, err := os.Stat(k.Destination); err == nil {
			// From here on it is not equal any more.
			back = append(back, h.Mark(k.Disk))
		}
		if s.Array != nil && s.Top.Name != "" {
			one, err := h.Return(k.Disk)
			if err != nil {
				return err
			}
			back = append(back, one)
		}
	}
	dom, up, err := xl.Find(ctx, e.Runner, t.domain)
	if err != nil {
		return err
	}
	if up && len(back) > 0 {
		path := c.config
		if path == "" {
			if path, err = xl.FindConfig(c.xenDir, t.domain); err != nil {
				return err
			}
		}
		update := xl.ConfigUpdate(dom.Number(), path)
		back = append(back, step.Command(e.Runner, "have Xen restart "+t.domain+" from "+path, update, run.Cmd{}))
	}
	if err := e.Apply(ctx, back); err != nil {
		return err
	}
	if err := c.takeDown(ctx, e, h, t.known); err != nil {
		return err
	}
	for _, k := range t.known {
		if k.Destination != "" {
			e.Infof("%s is kept, and is not complete", k.Destination)
		}
	}
	return present(e, true, t.lines(mapping.Planned, func(k mirror.Known) string { return cmp.Or(k.Destination, k.Path()) }), nil)
}

// mayAbort refuses to go back to an image that has not everything.
func (c *command) mayAbort(k mirror.Known) (mirror.State, error) {
	s, err := k.Look()
	if err != nil {
		return s, err
	}
	target, err := c.configuredTarget(k)
	if err != nil {
		return s, err
	}
	a, errA := filepath.EvalSymlinks(target)
	b, errB := filepath.EvalSymlinks(k.Destination)
	if s.Phase == mirror.Switched || k.Destination != "" && errA == nil && errB == nil && a == b {
		return s, fault.Hint(fault.Refuse("cannot abort the mirror of %s: it runs on %s, or will from its next start on", k.Disk, k.Destination),
			"complete it: mdmirror finish %s", run.Quote(k.Domain))
	}
	if s.Array != nil && !s.Intact() {
		return s, k.Unfit(s)
	}
	return s, nil
}
