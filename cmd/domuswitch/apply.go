package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
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
	asked, err := requests(e, args)
	if err != nil {
		return err
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
		change, err := c.change(ctx, e, d, r)
		if err != nil {
			return err
		}
		cr := configResult{Domain: d.name, Path: d.file.Path}
		if bytes.Equal(change.content, d.file.Content) {
			e.Infof("nothing to do: %s has these disks in %s", d.name, d.file.Path)
		} else {
			plan = append(plan, change.steps()...)
			cr.Backup = d.journal.Path(change.backup)
			out.Diff += change.diff()
		}
		out.Configs = append(out.Configs, cr)
		out.Disks = append(out.Disks, change.lines...)
	}
	if err := e.Apply(ctx, plan); err != nil {
		return err
	}
	out.Changed = len(plan) > 0
	switch {
	case e.JSON:
		return e.Emit(out)
	case e.DryRun:
		return nil
	}
	return mapping.Write(e.Stdout, out.Disks)
}

// change makes the new configuration of one domain and checks it.
func (c *command) change(ctx context.Context, e *cli.Env, d *domain, r request) (*replacement, error) {
	edited := d.cfg
	var lines []mapping.Line
	for _, l := range r.lines {
		disk, err := d.cfg.Disk(l.VDev)
		if err != nil {
			return nil, refused(err)
		}
		if edited, err = edited.SetDisk(l.VDev, l.Destination); err != nil {
			return nil, refused(err)
		}
		l.VDev, l.State = disk.VDev, mapping.Switched
		if l.Source == "" {
			l.Source = d.sourceOf(disk)
		}
		lines = append(lines, l)
	}
	change := &replacement{d: d, kind: journal.KindApplied, content: edited.Bytes(), lines: lines,
		ready: func(context.Context) error { return nil }}
	if bytes.Equal(change.content, d.file.Content) {
		return change, nil
	}
	if err := d.file.Replaceable(); err != nil {
		return nil, err
	}
	if c.offline {
		return change, nil
	}
	check := checker{c: c, e: e, d: d, byHand: r.byHand}
	if err := check.all(ctx, r.lines); err != nil {
		return nil, err
	}
	change.ready, change.running = check.domainUnchanged, check.now.up
	return change, checkWithXL(ctx, e.Runner, d, edited)
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
	// Not beside the configuration: xendomains starts what lies in auto.
	f, err := os.CreateTemp("", "domuswitch-*.cfg")
	if err != nil {
		return fmt.Errorf("cannot check the new configuration: %w", err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(edited.Bytes())
	if closing := f.Close(); err == nil {
		err = closing
	}
	if err != nil {
		return fmt.Errorf("cannot check the new configuration: %w", err)
	}
	got, err := xl.DryParse(ctx, r, f.Name())
	if err != nil {
		return fault.Refuse("cannot use the new %s: xl refuses it: %s", d.file.Path, strings.ReplaceAll(err.Error(), f.Name(), d.file.Path))
	}
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
