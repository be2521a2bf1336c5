package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"xenlvm/lib/cli"
	"xenlvm/lib/convert"
	"xenlvm/lib/fault"
	"xenlvm/lib/journal"
	"xenlvm/lib/run"
	"xenlvm/lib/step"
)

// purge deletes what a move has left for the way back: images, backups of the
// configuration, back doors, and what was kept of the copies. Nothing else does.
func (c *command) purge(ctx context.Context, e *cli.Env, args []string) error {
	d, release, err := c.begin(e, "purge", args[0])
	if err != nil {
		return err
	}
	defer release()
	p := &purging{c: c, e: e, d: d, all: d.movesMade(), items: []kept{}}
	if len(p.all) == 0 {
		return fault.Refuse("cannot purge %s: no move of a disk to where its configuration has it is recorded in %s", d.name, d.journal.Dir)
	}
	plan, err := p.plan(ctx)
	if err != nil {
		return err
	}
	if len(p.items) == 0 && p.recorded() {
		e.Infof("nothing to do: nothing is kept of the move of %s", d.name)
		return p.deliver(false)
	}
	if err := p.over(ctx); err != nil {
		return err
	}
	if err := p.agreed(); err != nil {
		return err
	}
	if err := e.Apply(ctx, plan); err != nil {
		return fault.Hint(err, "run the same command again: it goes on")
	}
	return p.deliver(true)
}

// purging is purge at work.
type purging struct {
	c     *command
	e     *cli.Env
	d     *domain
	all   []moved // oldest first
	items []kept  // that will be deleted
	now   present
}

// plan finds what is kept, each checked to be what the journal says. The order: what
// only helps the way back goes first, the record that it is over comes last. Killed at
// any point, the next purge finds the rest.
func (p *purging) plan(ctx context.Context) (step.Plan, error) {
	doors, err := p.backDoors(ctx)
	if err != nil {
		return nil, err
	}
	snapshots, err := p.snapshots(ctx)
	if err != nil {
		return nil, err
	}
	var images step.Plan
	if !p.c.keepImage {
		if images, err = p.images(ctx); err != nil {
			return nil, err
		}
	}
	files, err := p.files()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, i := range p.items {
		names = append(names, i.Name)
	}
	write := func(what, kind string) step.Step {
		return step.Step{What: what, Do: func(context.Context) error { return p.d.journal.Append(kind, journal.Purge{Names: names}) }}
	}
	return slices.Concat(step.Plan{write("write down what is deleted", journal.KindPurging)}, doors, snapshots, images, files,
		step.Plan{write("write down that the move of "+p.d.name+" is over for good", journal.KindPurged)}), nil
}

// recorded says whether a purge of the newest move has come to its end.
func (p *purging) recorded() bool {
	_, ok := journal.Last(p.d.records[p.all[len(p.all)-1].index:], journal.KindPurged, nil)
	return ok
}

func (p *purging) backDoors(ctx context.Context) (step.Plan, error) {
	all, err := p.c.backDoorsOf(ctx, p.e.Runner, p.d)
	if err != nil {
		return nil, err
	}
	for _, s := range all {
		if s.half {
			return nil, fault.Hint(fault.Refuse("cannot purge %s: a way back has begun, and %s is half-written", p.d.name, s.Image.Path), "complete it: domuswitch revert %s", run.Quote(p.d.name))
		}
		if s.snapshot.Name != "" {
			p.items = append(p.items, kept{Kind: "back door", Name: s.Snapshot, Size: int64(s.snapshot.COW)})
		}
	}
	return p.d.dropBackDoors(ctx, p.e.Runner)
}

// snapshots are what the copies have left: those, and clones.
func (p *purging) snapshots(ctx context.Context) (step.Plan, error) {
	plan, err := convert.DropBases(ctx, p.e.Runner, p.d.name, p.d.records)
	for _, s := range plan {
		if spec, ok := strings.CutPrefix(s.What, "remove snapshot "); ok {
			p.items = append(p.items, kept{Kind: "base", Name: spec})
		}
	}
	return plan, err
}

// files are what is kept beside the journal.
func (p *purging) files() (step.Plan, error) {
	var plan step.Plan
	for _, pattern := range []string{"config.*", "*.digests", "*.used", "*.partial", "*.bitmap"} {
		found, err := filepath.Glob(p.d.journal.Path(pattern))
		if err != nil {
			return nil, err
		}
		for _, path := range found {
			info, err := os.Lstat(path)
			if err != nil || !info.Mode().IsRegular() {
				continue
			}
			kind := "digests"
			if pattern == "config.*" {
				kind = "backup"
			}
			p.items = append(p.items, kept{Kind: kind, Name: path, Size: info.Size()})
			plan = append(plan, removal(path))
		}
	}
	return plan, nil
}

func removal(path string) step.Step {
	return step.Step{What: "delete " + path, Line: run.Quote("rm", path), Do: func(context.Context) error { return os.Remove(path) }}
}

// agreed asks whoever is at the terminal.
func (p *purging) agreed() error {
	for _, i := range p.items {
		p.e.Printf("deletes: %s (%s)", i.Name, i)
	}
	if p.c.yes || p.e.DryRun {
		return nil
	}
	yes, err := p.e.Confirm(fmt.Sprintf("%s cannot go back then; delete all this?", p.d.name))
	if err == nil && !yes {
		err = fault.Refuse("cannot purge %s: it was not agreed to", p.d.name)
	}
	return fault.Hint(err, "without a question: domuswitch purge --yes %s", run.Quote(p.d.name))
}

func (p *purging) deliver(changed bool) error {
	if !p.e.JSON {
		return nil
	}
	return p.e.Delivered(p.e.Emit(map[string]any{"changed": changed, "dry_run": p.e.DryRun, "domain": p.d.name, "deleted": p.items}))
}
