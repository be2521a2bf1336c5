package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"xenlvm/lib/cli"
	"xenlvm/lib/fault"
	"xenlvm/lib/journal"
	"xenlvm/lib/mapping"
	"xenlvm/lib/run"
	"xenlvm/lib/step"
	"xenlvm/lib/xl"
	"xenlvm/lib/xlcfg"
)

// result is what apply and revert report with --json.
type result struct {
	Changed bool           `json:"changed"`
	DryRun  bool           `json:"dry_run"`
	Disks   []mapping.Line `json:"disks"`
	Configs []configResult `json:"configs"`
	Diff    string         `json:"diff"`
}

type configResult struct {
	Domain string `json:"domain"`
	Path   string `json:"path"`
	Backup string `json:"backup,omitempty"` // only where something was replaced
}

// apply puts other devices into the configurations of one or more domains. All
// are checked before the first is touched.
func (c *command) apply(ctx context.Context, e *cli.Env, args []string) error {
	states := ready
	trial := e.DryRun && slices.Equal(args, []string{"-"})
	if trial {
		states = append(slices.Clone(ready), mapping.Planned)
	}
	asked, err := requests(e, "apply", args, states)
	if err != nil {
		return err
	}
	if c.offline && c.keepBackDoor {
		return fault.BadUsage("--keep-back-door makes a snapshot, and --offline looks at no device")
	}
	if c.config != "" && len(asked) > 1 {
		return fault.BadUsage("--config names the configuration of one domain, and there are %d", len(asked))
	}
	out := result{DryRun: e.DryRun, Disks: []mapping.Line{}}
	var plan step.Plan
	for _, r := range asked {
		d, release, err := c.begin(e, "apply", r.domain)
		if err != nil {
			return err
		}
		defer release()
		change, err := c.change(ctx, e, d, r, trial)
		if err != nil {
			return err
		}
		cr := configResult{Domain: d.name, Path: d.file.Path}
		if steps := change.steps(); len(steps) == 0 {
			e.Infof("nothing to do: %s has these disks in %s", d.name, d.file.Path)
		} else {
			plan = append(plan, steps...)
			out.Diff += change.diff()
			if change.backup != "" {
				cr.Backup = d.journal.Path(change.backup)
			}
		}
		out.Configs = append(out.Configs, cr)
		out.Disks = append(out.Disks, change.lines...)
	}
	if err := e.Apply(ctx, plan); err != nil {
		return err
	}
	out.Changed = len(plan) > 0
	return deliver(e, out, out.Disks)
}

// deliver prints what was done: the lines, or with --json the document that has them.
func deliver(e *cli.Env, doc any, lines []mapping.Line) error {
	switch {
	case e.JSON:
		return e.Delivered(e.Emit(doc))
	case e.DryRun:
		return nil
	}
	return e.Delivered(mapping.Write(e.Stdout, lines))
}

// change makes the new configuration of one domain and checks it.
func (c *command) change(ctx context.Context, e *cli.Env, d *domain, r request, trial bool) (*replacement, error) {
	edited, lines, err := d.edit(r.lines)
	if err != nil {
		return nil, err
	}
	change := &replacement{d: d, kind: journal.KindApplied, content: edited.Bytes(), lines: lines}
	same := bytes.Equal(change.content, d.file.Content)
	if same && (c.offline || !slices.ContainsFunc(r.lines, func(l mapping.Line) bool { return l.State == mapping.Synced })) {
		return change, nil
	}
	if err := d.file.Replaceable(); err != nil || c.offline {
		return change, err
	}
	check := &checker{c: c, e: e, d: d, byHand: r.byHand, trial: trial}
	moves, err := check.all(ctx, r.lines)
	if err != nil {
		return nil, err
	}
	change.ready, change.running = check.domainUnchanged, check.now.up
	if c.keepBackDoor && !same {
		if err := change.keepBackDoors(ctx, check, moves); err != nil {
			return nil, err
		}
	}
	if change.then, err = check.restartsFrom(moves, edited); err != nil || same {
		return change, err
	}
	return change, checkWithXL(ctx, e.Runner, d, edited)
}

// edit is the configuration with the disks of lines on their destinations, and
// the lines of a change that is made.
func (d *domain) edit(lines []mapping.Line) (*xlcfg.File, []mapping.Line, error) {
	edited := d.cfg
	var made []mapping.Line
	for _, l := range lines {
		disk, err := d.cfg.Disk(l.VDev)
		if err != nil {
			return nil, nil, refused(err)
		}
		if edited, err = edited.SetDisk(l.VDev, l.Destination); err != nil {
			return nil, nil, refused(err)
		}
		made = append(made, d.switched(l, disk))
	}
	return edited, made, nil
}

// switched is the line of a disk that is on its destination.
func (d *domain) switched(l mapping.Line, disk xlcfg.Disk) mapping.Line {
	l.VDev, l.State = disk.VDev, mapping.Switched
	if l.Source == "" {
		l.Source = d.sourceOf(disk)
	}
	return l
}

// sourceOf is where the disk came from: what it was switched from, or what the
// configuration says.
func (d *domain) sourceOf(disk xlcfg.Disk) string {
	if h := d.historyOf(); h.reversible {
		for _, l := range h.applied.Mappings {
			if l.VDev == disk.VDev && l.Destination == disk.Target {
				return l.Source
			}
		}
	}
	return disk.Target
}

// checkWithXL lets xl itself read the new configuration. Beside the disks that
// were switched nothing may differ, and those as intended.
func checkWithXL(ctx context.Context, r run.Runner, d *domain, edited *xlcfg.File) error {
	want, err := edited.Disks()
	if err != nil {
		return refused(err)
	}
	parsed, err := parseWithXL(ctx, r, d, edited)
	if err != nil {
		return err
	}
	got := parsed.Disks
	if len(got) != len(want) {
		return fault.Refuse("cannot use the new %s: xl finds %d disks in it, not %d", d.file.Path, len(got), len(want))
	}
	for i, k := range want {
		if got[i].VDev != k.VDev || got[i].Path != k.Target {
			return fault.Refuse("cannot use the new %s: xl reads disk %s as %s on %s, not %s", d.file.Path, k.VDev, got[i].VDev, got[i].Path, k.Target)
		}
	}
	return nil
}

// parseWithXL is a configuration as xl reads it.
func parseWithXL(ctx context.Context, r run.Runner, d *domain, edited *xlcfg.File) (xl.Libxl, error) {
	// Not beside the configuration: xendomains starts what lies in auto.
	f, err := os.CreateTemp("", "domuswitch-*.cfg")
	if err != nil {
		return xl.Libxl{}, fmt.Errorf("cannot check the new configuration: %w", err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(edited.Bytes())
	if err = errors.Join(err, f.Close()); err != nil {
		return xl.Libxl{}, fmt.Errorf("cannot check the new configuration: %w", err)
	}
	parsed, err := xl.DryParse(ctx, r, f.Name())
	if err != nil {
		return parsed, fault.Refuse("cannot use the new %s: xl refuses it: %s", d.file.Path, strings.ReplaceAll(err.Error(), f.Name(), d.file.Path))
	}
	return parsed, nil
}
