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
	"xenlvm/lib/xl"
	"xenlvm/lib/xlcfg"
)

// reverting is what revert reports with --json.
type reverting struct {
	result
	Replayed []replayed `json:"replayed"` // what was brought back into images
}

// revert puts the configuration back that the newest apply replaced. What the domain
// has written since comes along where there is a back door.
func (c *command) revert(ctx context.Context, e *cli.Env, args []string) error {
	d, release, err := c.begin(e, "revert", args[0])
	if err != nil {
		return err
	}
	defer release()
	out := reverting{Replayed: []replayed{}}
	out.DryRun, out.Disks, out.Configs = e.DryRun, []mapping.Line{}, []configResult{{Domain: d.name, Path: d.file.Path}}
	back, err := c.goingBack(d)
	if err != nil {
		return err
	}
	doors := d.historyOf().applied.BackDoors
	if back == nil {
		doors = d.doorsBehind()
		e.Infof("nothing to do: %s has its previous disks in %s", d.name, d.file.Path)
	} else {
		out.Changed, out.Diff, out.Disks = true, back.diff(), back.lines
		if out.Replayed, err = c.goBack(ctx, e, d, back); err != nil {
			return err
		}
		out.Configs[0].Backup = d.journal.Path(back.backup)
	}
	if !c.offline {
		if err := closeBackDoors(ctx, e, d.name, doors); err != nil {
			return err
		}
	}
	return deliver(e, out, out.Disks)
}

// goBack checks whether the domain may go back, and does it.
func (c *command) goBack(ctx context.Context, e *cli.Env, d *domain, back *replacement) ([]replayed, error) {
	done := []replayed{}
	if c.offline {
		return done, e.Apply(ctx, back.steps())
	}
	now, err := c.look(ctx, e, d.name)
	if err != nil {
		return done, err
	}
	k := &checker{c: c, e: e, d: d, now: now}
	replays, err := k.mayGoBack(ctx, back)
	if err != nil {
		return done, err
	}
	if len(replays) == 0 {
		back.ready = k.domainUnchanged
		return done, e.Apply(ctx, back.steps())
	}
	err = k.bringBack(ctx, back, replays)
	for _, r := range replays {
		done = append(done, r.done)
	}
	return done, err
}

// closeBackDoors removes the back doors of disks that the domain has left. It does not
// run on them any more, or nobody wants what it writes there.
func closeBackDoors(ctx context.Context, e *cli.Env, domain string, doors []journal.BackDoor) error {
	plan, err := removeBackDoors(ctx, e.Runner, doors)
	if err == nil {
		err = e.Apply(context.WithoutCancel(ctx), plan)
	}
	if err == nil {
		return nil
	}
	err = fault.With(fault.Left, fmt.Errorf("%s has its previous disks, but its back doors could not be removed: %w", domain, err))
	return fault.Hint(err, "run the same command again")
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

// mayGoBack says how the domain goes back from disks that hold more than the old ones:
// by replays of what it wrote there, or, without any, by the configuration alone. Where
// that would lose something and nobody said so, it refuses.
func (k *checker) mayGoBack(ctx context.Context, back *replacement) ([]*replay, error) {
	doors, err := k.c.backDoorsOf(ctx, k.e.Runner, k.d)
	if err != nil {
		return nil, err
	}
	var replays []*replay
	for _, l := range back.lines {
		if s := doorOf(doors, l); s != nil {
			replays = append(replays, newReplay(k, *s, l))
		}
	}
	through, half := len(replays) == len(back.lines), k.d.halfWritten(doors, k.c.yes)
	loses := k.c.loses(k.d, back, k.now)
	switch {
	case half != nil && through && k.c.yes:
		return nil, fault.Hint(half, "bring the rest back: domuswitch revert %s", run.Quote(k.d.name))
	case half != nil && k.c.yes:
		back.first = k.d.takeForWhole(doors)
		return nil, nil
	case k.c.yes, loses == nil && half == nil:
		return nil, nil
	case through:
		return replays, nil
	case half != nil:
		return nil, withLost(half, doors)
	}
	return nil, fault.Hint(withLost(loses, doors), "give that up: domuswitch revert --yes %s", run.Quote(k.d.name))
}

// loses says what the old disks lack, nil for nothing.
func (c *command) loses(d *domain, back *replacement, now present) error {
	for _, l := range back.lines {
		if live, ok := now.liveDisk(l.VDev); ok && c.runs(live, l.Destination) {
			return fault.Refuse("cannot revert %s: it runs on %s; from its next start on it would be without all that it has written there", d.name, l.Destination)
		}
	}
	h := d.historyOf()
	if h.ran {
		return fault.Refuse("cannot revert %s: it has run on its new disks; the old ones lack what it has written since", d.name)
	}
	if h.booted {
		return fault.Refuse("cannot revert %s: the host has booted since it was switched, and may have started it on its new disks", d.name)
	}
	return nil
}
