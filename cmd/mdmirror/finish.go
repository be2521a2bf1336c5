package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"

	"xenlvm/lib/cli"
	"xenlvm/lib/fault"
	"xenlvm/lib/mapping"
	"xenlvm/lib/mirror"
	"xenlvm/lib/run"
	"xenlvm/lib/step"
)

// finish puts the domain onto the volumes. The configuration is changed first:
// as long as both members are equal it may name either, but from the switch on
// only the volume has everything, and a host that goes down then must come up on
// it. Of a disk that the domain does not write to, nothing is to be switched, and
// its volume is free for domuswitch only when its mirror is gone.
func (c *command) finish(ctx context.Context, e *cli.Env, args []string) error {
	t, release, err := c.begin(e, "finish", args[0])
	if err != nil {
		return err
	}
	defer release()
	if len(t.known) == 0 && t.ended {
		e.Infof("nothing to do: %s is not mirrored any more", t.domain)
		return present(e, false, nil, nil)
	}
	if err := t.need(); err != nil {
		return err
	}
	used, unused, err := c.mayFinish(ctx, e, t)
	if err != nil {
		return err
	}
	h := mirror.Host{Run: e.Runner, Journal: t.journal}
	if err := c.takeDown(ctx, e, h, unused, nil); err != nil {
		return err
	}
	release() // domuswitch takes the lock
	if err := c.configure(ctx, e, h, t); err != nil {
		if len(unused) > 0 {
			err = fault.Hint(err, "the mirror of %s is taken down already: mdmirror status %s", unused[0].Disk, run.Quote(t.domain))
		}
		return err
	}
	_, again, err := c.begin(e, "finish", args[0])
	if err != nil {
		return err
	}
	defer again()
	for _, k := range used {
		err := c.configured(k)
		if err == nil || e.DryRun {
			err = e.Apply(ctx, step.Plan{h.Switch(k.Disk)})
		}
		if err != nil {
			return c.notSwitched(t, k, err)
		}
	}
	var end step.Plan
	for _, k := range t.known {
		end = append(append(end, h.Forget(k.Disk)), h.End(k.Disk)...)
	}
	if err := c.takeDown(ctx, e, h, used, end); err != nil {
		return err
	}
	return present(e, true, t.lines(mapping.Switched, onto), nil)
}

// mayFinish checks that the volumes have everything, comparing them first unless
// that was done and holds. It tells the mirrors that the domain writes to from the
// others.
func (c *command) mayFinish(ctx context.Context, e *cli.Env, t *target) (used, unused []mirror.Known, err error) {
	h := mirror.Host{Run: e.Runner, Journal: t.journal}
	if err := h.NotRenamed(ctx, t.known); err != nil {
		return nil, nil, err
	}
	var compare []mirror.Known
	for _, k := range t.known {
		s, err := k.Look()
		if err != nil {
			return nil, nil, err
		}
		over, err := c.over(ctx, e, k, s)
		switch {
		case err != nil:
			return nil, nil, err
		case over:
			unused = append(unused, k)
		case s.Phase == mirror.Partly || !s.Complete():
			return nil, nil, c.unfit(t, k, s)
		case s.Top.Open > 0:
			used = append(used, k)
			user, err := h.User(ctx, k.Disk)
			if err != nil {
				return nil, nil, err
			}
			if (user == 0 || k.Compared != user) && !c.noVerify {
				compare = append(compare, k)
			}
		default:
			if err := h.Alone(ctx, k.Disk, s); err != nil {
				return nil, nil, err
			}
			unused = append(unused, k)
			if s.Phase == mirror.Synced || !c.noVerify { // again, and always: the domain may have run beside it
				compare = append(compare, k)
			}
		}
	}
	if !e.DryRun {
		err = c.compare(ctx, e, t, compare)
	}
	return used, unused, err
}

// over says whether a finish that was killed had put a disk onto its volume for
// good: nothing but the volume is written to, or can be from the next start on.
func (c *command) over(ctx context.Context, e *cli.Env, k mirror.Known, s mirror.State) (bool, error) {
	switch {
	case s.Phase == mirror.Switched:
		return true, nil
	case s.Top.Open > 0, s.Array != nil && !s.Complete(), c.configured(k) != nil:
		return false, nil
	}
	return k.Unmarked(ctx, e.Runner)
}

// configure has domuswitch put the volumes into the configuration of the domain,
// and into what Xen restarts it from. Until then they are marked.
func (c *command) configure(ctx context.Context, e *cli.Env, h mirror.Host, t *target) error {
	var plan step.Plan
	for _, k := range t.known {
		if unmarked, err := k.Unmarked(ctx, e.Runner); err != nil {
			return err
		} else if !unmarked {
			plan = append(plan, h.Unmark(k))
		}
	}
	args := []string{"apply", "-", "--xen-dir", c.xenDir, "--state-dir", c.stateDir}
	if c.config != "" {
		args = append(args, "--config", c.config)
	}
	var in bytes.Buffer
	if err := mapping.Write(&in, t.lines(mapping.Synced, onto)); err != nil {
		return err
	}
	text := in.String()
	cmd := run.Cmd{Name: domuswitch(), Args: args, Stdin: &in, Effect: run.Change}
	s := step.Command(e.Runner, "put the volumes into the configuration", cmd, run.Cmd{})
	s.Line = run.Quote("printf", "%s", text) + " | " + run.Quote(append([]string{"domuswitch"}, args...)...)
	return e.Apply(ctx, append(plan, s))
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
	target, volume, err := c.names(k)
	if err == nil && !volume {
		err = fault.Refuse("cannot switch %s to %s: its configuration names %s", k.Disk, k.Destination, target)
	}
	return err
}

// names is what the configuration has as the disk, and whether that is the volume.
func (c *command) names(k mirror.Known) (target string, volume bool, err error) {
	path, err := c.configFile(k.Domain)
	if err != nil {
		return "", false, err
	}
	return k.Configured(path)
}

// takeDown removes what was made for the mirrors, and does then what ends them.
func (c *command) takeDown(ctx context.Context, e *cli.Env, h mirror.Host, all []mirror.Known, end step.Plan) error {
	plan, err := h.TakeDownAll(all)
	if err != nil {
		return err
	}
	return e.Apply(ctx, append(plan, end...))
}
