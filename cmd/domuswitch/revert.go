package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/aymanbagabas/go-udiff"

	"xenlvm/lib/atomicfile"
	"xenlvm/lib/cli"
	"xenlvm/lib/fault"
	"xenlvm/lib/journal"
	"xenlvm/lib/mapping"
	"xenlvm/lib/run"
	"xenlvm/lib/step"
	"xenlvm/lib/xl"
	"xenlvm/lib/xlcfg"
)

// revert puts the configuration back that the newest apply replaced.
func (c *command) revert(ctx context.Context, e *cli.Env, args []string) error {
	d, release, err := c.begin(e, "revert", args[0])
	if err != nil {
		return err
	}
	defer release()
	out := result{DryRun: e.DryRun, Disks: []mapping.Line{}, Configs: []configResult{{Domain: d.name, Path: d.file.Path}}}
	back, err := c.goingBack(d)
	if err != nil {
		return err
	}
	var plan step.Plan
	if back == nil {
		e.Infof("nothing to do: %s has its previous disks in %s", d.name, d.file.Path)
	} else {
		if !c.offline {
			if err := c.mayGoBack(ctx, e, d, back); err != nil {
				return err
			}
		}
		plan = back.steps()
		out.Changed, out.Diff, out.Disks = true, back.diff(), back.lines
		out.Configs[0].Backup = d.journal.Path(back.backup)
	}
	if err := e.Apply(ctx, plan); err != nil {
		return err
	}
	return deliver(e, out, out.Disks)
}

// goingBack is the replacement that undoes the newest apply, nil if it is
// undone already.
func (c *command) goingBack(d *domain) (*replacement, error) {
	h := d.historyOf()
	switch {
	case !h.found:
		return nil, fault.Refuse("cannot revert %s: no change of %s is recorded in %s", d.name, d.file.Path, d.journal.Dir)
	case h.undone:
		return nil, nil
	}
	if err := d.file.Replaceable(); err != nil {
		return nil, err
	}
	path := d.journal.Path(h.applied.Backup)
	old, err := atomicfile.Read(path, xl.MaxConfig)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fault.Refuse("cannot revert %s: its previous configuration %s is gone", d.name, path)
	}
	if err != nil {
		return nil, err
	}
	if sum(old.Content) != h.applied.Before {
		return nil, fault.Refuse("cannot revert %s: %s is not what was put there (its SHA-256 differs)", d.name, path)
	}
	if !h.reversible && d.hasDisksOf(old, h.applied.Mappings) {
		return nil, nil
	}
	if !h.reversible && !c.overwrite {
		diff := udiff.Unified(d.file.Real, path, string(d.file.Content), string(old.Content))
		err := fault.Refuse("cannot revert %s: %s was edited since it was switched; this would be undone:\n%s", d.name, d.file.Path, diff)
		return nil, fault.Hint(err, "put the old one back all the same, and keep a copy of this one: domuswitch revert --overwrite %s", run.Quote(d.name))
	}
	lines := slices.Clone(h.applied.Mappings)
	for i := range lines {
		lines[i].State = mapping.Copied
	}
	return &replacement{d: d, kind: journal.KindReverted, content: old.Content, lines: lines}, nil
}

// hasDisksOf says whether the disks of lines are what they are in old: then the
// configuration was put back, and edited since.
func (d *domain) hasDisksOf(old *atomicfile.File, lines []mapping.Line) bool {
	before, err := xlcfg.Parse(old.Path, old.Content)
	if err != nil {
		return false
	}
	return !slices.ContainsFunc(lines, func(l mapping.Line) bool {
		was, errWas := before.Disk(l.VDev)
		is, errIs := d.cfg.Disk(l.VDev)
		return errWas != nil || errIs != nil || is.Target != was.Target
	})
}

// mayGoBack refuses to go back from disks that hold more than the old ones.
func (c *command) mayGoBack(ctx context.Context, e *cli.Env, d *domain, back *replacement) error {
	now, err := c.look(ctx, e, d.name)
	if err != nil {
		return err
	}
	check := checker{c: c, e: e, d: d, now: now}
	back.ready = check.domainUnchanged
	if c.yes {
		return nil
	}
	hint := fmt.Sprintf("give that up: domuswitch revert --yes %s", run.Quote(d.name))
	for _, l := range back.lines {
		if live, ok := now.liveDisk(l.VDev); ok && c.runs(live, l.Destination) {
			return fault.Hint(fault.Refuse("cannot revert %s: it runs on %s; from its next start on it would be without all that it has written there", d.name, l.Destination), "%s", hint)
		}
	}
	h := d.historyOf()
	if h.ran {
		return fault.Hint(fault.Refuse("cannot revert %s: it has run on its new disks; the old ones lack what it has written since", d.name), "%s", hint)
	}
	if h.booted {
		return fault.Hint(fault.Refuse("cannot revert %s: the host has booted since it was switched, and may have started it on its new disks", d.name), "%s", hint)
	}
	return nil
}
