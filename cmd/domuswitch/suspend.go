package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"xenlvm/lib/blkdev"
	"xenlvm/lib/fault"
	"xenlvm/lib/journal"
	"xenlvm/lib/run"
	"xenlvm/lib/step"
	"xenlvm/lib/xl"
)

// suspension is written down before a domain is taken apart: what the next run
// must know if this one is killed.
type suspension struct {
	Domain xl.Domain `json:"domain"`
	Disks  []xl.Disk `json:"disks"`
	Dir    string    `json:"dir,omitempty"` // with its memory; "" for a migration

	successor int // number of the domain that was let run, or was about to be
}

func (p *suspension) memory() string { return filepath.Join(p.Dir, "memory") }

// saved says whether there is a memory image.
func (p *suspension) saved() bool {
	_, err := os.Stat(p.memory())
	return p.Dir != "" && err == nil
}

// busy says whether a program has the memory image open: an xl that outlived the
// run that started it.
func (p *suspension) busy() bool {
	f, err := os.Open(p.memory())
	if err != nil {
		return false
	}
	defer f.Close()
	return blkdev.OpenElsewhere(f)
}

// suspension is the newest one of this boot, nil for none. It is over once a guest
// was let run: its memory of before is worth nothing then, its disks would not
// fit it.
func (d *domain) suspension() (p *suspension, over bool) {
	for _, r := range d.records {
		switch r.Kind {
		case journal.KindSuspending:
			p, over = &suspension{}, false
			if d.boot == "" || r.Boot != d.boot || json.Unmarshal(r.Data, p) != nil {
				p = nil
			}
		case journal.KindStarting:
			over = true
			var dom xl.Domain
			if p != nil && json.Unmarshal(r.Data, &dom) == nil {
				p.successor = dom.ID
			}
		case journal.KindStartUndone:
			over = false
		}
	}
	return p, over
}

// made says whether a domain can be the one that the run has made and not let run
// yet. An operator may have made it, too, long after the run was through.
func (p *suspension) made(dom xl.Domain, over bool) bool {
	switch {
	case dom.ID == p.Domain.ID || dom.State != xl.Paused:
		return false
	case over:
		return dom.ID == p.successor
	}
	return p.Dir == "" || p.saved()
}

// notSuspended refuses to start anew what lies in a file.
func (d *domain) notSuspended(now present) error {
	p, over := d.suspension()
	if p == nil || over || now.up || !p.saved() {
		return nil
	}
	err := fault.Refuse("cannot start %s: it was being moved, and its memory is in %s", d.name, p.memory())
	err = fault.Hint(err, "let it go on: the command that moved it, domuswitch live %s ..., once more", run.Quote(d.name))
	return fault.Hint(err, "or lose what it had in memory, as by a power failure: rm -r %s && domuswitch start %s", run.Quote(p.Dir), run.Quote(d.name))
}

// takeUp finds out whether a run that was killed left the domain in the middle.
func (m *moving) takeUp() error {
	p, over := m.d.suspension()
	dom := m.now.Domain
	if p != nil && p.busy() {
		return fault.Hint(fault.Refuse("cannot move %s live: a run that did not end started an xl that still reads or writes %s", m.d.name, p.memory()), "wait until it has ended: fuser %s", run.Quote(p.memory()))
	}
	switch {
	case p == nil && !m.now.up || p != nil && !m.now.up && (over || !p.saved()):
		return fault.Hint(fault.Refuse("cannot move %s live: it is not running", m.d.name), "start it on other disks: domuswitch restart %s ...", run.Quote(m.d.name))
	case !m.now.up:
		m.e.Infof("going on with what a run that did not end has begun: the memory of %s is in %s", m.d.name, p.memory())
	case p != nil && p.made(dom, over) && m.untouched():
		m.e.Infof("going on with what a run that did not end has begun: %s is there, paused", m.d.name)
		m.halfMade, m.made = &dom, m.now.disks
	case dom.State != xl.Running:
		return m.notRunning("move")
	default:
		if p != nil && p.saved() && !m.e.DryRun { // of no use to a guest that runs
			return os.RemoveAll(p.Dir)
		}
		return nil
	}
	m.half, m.method, m.allowed = p, byRestore, over
	if p.Dir == "" {
		m.method = byMigrate
	}
	// The checks are about what the domain was.
	m.now = present{Domain: p.Domain, up: true, disks: p.Disks}
	m.now.State = xl.Running
	return nil
}

// untouched: no guest has done anything in the domain.
func (m *moving) untouched() bool {
	return !slices.ContainsFunc(m.now.disks, func(d xl.Disk) bool { return d.GuestUp || d.State >= xl.Connected })
}

// place is the directory that holds the memory; only root may look into it.
func (m *moving) place() string {
	if m.half != nil {
		return m.half.Dir
	}
	return filepath.Join(m.dir, "xenlvm-"+m.d.name)
}

func (m *moving) memory() string { return filepath.Join(m.place(), "memory") }

// saveAndRestore: until the guest has its new disks its memory is kept, and it
// can go back to the old ones.
func (m *moving) saveAndRestore(ctx context.Context) error {
	plan := step.Plan{m.d.tempStep("next.cfg", m.cfg)}
	suspend := step.Step{What: "save the memory of " + m.d.name + " to " + m.memory(), Line: xl.Save(m.now.Number(), m.memory()).Line(),
		Do: m.suspend, Undo: m.resume, UndoLine: xl.RestorePaused(m.memory()).Line() + " && " + xl.Unpause(m.d.name).Line()}
	if m.half != nil {
		suspend.What, suspend.Line = "take up the memory of "+m.d.name, ""
		suspend.Do = m.again
	}
	plan = append(append(plan, suspend), m.up.up()...)
	err := m.e.Apply(ctx, plan)
	if err == nil && m.up.left != nil {
		err = m.up.left
	}
	if m.e.DryRun {
		return err
	}
	if m.up.ran && !m.back && (err == nil || m.up.keep || m.up.left != nil) {
		// The guest has gone on: its memory of before must never be used.
		err = errors.Join(err, os.RemoveAll(m.place()))
	}
	return m.explain(err)
}

func (m *moving) suspend(ctx context.Context) error {
	if err := m.unchanged(ctx); err != nil {
		return err
	}
	if err := m.d.journal.MakeDir(); err != nil {
		return err
	}
	if err := os.Mkdir(m.place(), 0o700); err != nil {
		return fault.Hint(fmt.Errorf("cannot save the memory of %s: %w", m.d.name, err), "look at what is there, and remove it: ls -l %s", run.Quote(m.place()))
	}
	if err := m.d.journal.Append(journal.KindSuspending, suspension{Domain: m.now.Domain, Disks: m.now.disks, Dir: m.place()}); err != nil {
		return errors.Join(err, os.Remove(m.place()))
	}
	m.began = time.Now()
	_, failed := m.e.Runner.Run(ctx, xl.Save(m.now.Number(), m.memory()))
	ctx = context.WithoutCancel(ctx)
	if failed == nil {
		if failed = m.c.freed(ctx, m.e, m.now); failed != nil {
			failed = errors.Join(failed, m.resume(ctx))
		}
		return failed
	}
	failed = fmt.Errorf("cannot save the memory of %s: %w", m.d.name, failed)
	if m.unchanged(ctx) != nil {
		failed = fault.Hint(fault.With(fault.Left, fmt.Errorf("%w\nit does not run as before", failed)), "xl list; domuswitch show %s", run.Quote(m.d.name))
		return failed
	}
	return errors.Join(fmt.Errorf("%w\nit runs on as before", failed), os.RemoveAll(m.place()))
}

// again takes up what a run that was killed left: a domain that it made and that
// never ran is removed, its memory is read once more.
func (m *moving) again(ctx context.Context) error {
	if m.halfMade == nil {
		return nil
	}
	if _, err := m.e.Runner.Run(ctx, xl.Destroy(m.halfMade.Number())); err != nil {
		return err
	}
	disks, err := xl.Disks(ctx, m.e.Runner, m.halfMade.ID)
	if err != nil {
		return err
	}
	return m.c.freed(ctx, m.e, present{Domain: *m.halfMade, disks: disks})
}

// resume puts the guest back onto its old disks. Without a configuration xl makes
// the domain that was saved.
func (m *moving) resume(ctx context.Context) error {
	if m.up.keep || m.up.stays {
		return nil
	}
	old := m.c.starting(m.e, m.d, m.before, xl.RestorePaused(m.memory()))
	if err := old.up().Run(ctx, nil); err != nil {
		return err // the memory is still there
	}
	m.back, m.up.running = true, old.running
	return errors.Join(old.left, os.RemoveAll(m.place()))
}

// explain adds where the domain stands.
func (m *moving) explain(err error) error {
	switch {
	case err == nil:
		return nil
	case m.up.stays:
		return m.up.leave(err)
	case m.back:
		err = fmt.Errorf("%w\n%s runs on its old disks again, and was not rebooted", err, m.d.name)
		if !m.began.IsZero() {
			err = fmt.Errorf("%w; it paused for %s", err, shortly(m.up.running.Sub(m.began)))
		}
		return err
	}
	if m.half == nil && !m.began.IsZero() || m.half != nil {
		if _, gone := os.Stat(m.memory()); gone == nil {
			err = fault.With(fault.Left, fmt.Errorf("%w\nthe memory of %s is kept in %s", err, m.d.name, m.memory()))
			err = fault.Hint(err, "while nobody starts %s, it can go on: the same command again, or on its old disks: %s", m.d.name, xl.RestorePaused(m.memory()).Line())
		}
	}
	return err
}

// existing is the nearest directory above path, or path itself, that is there.
func existing(path string) string {
	for {
		if _, err := os.Stat(path); err == nil || path == filepath.Dir(path) {
			return path
		}
		path = filepath.Dir(path)
	}
}
