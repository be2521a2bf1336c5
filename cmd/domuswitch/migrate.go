package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"xenlvm/lib/fault"
	"xenlvm/lib/journal"
	"xenlvm/lib/run"
	"xenlvm/lib/step"
	"xenlvm/lib/xl"
)

// migrate moves the domain to this same host. When xl returns, the old domain is
// gone and the new one paused, and there is no way back: the rest is done whatever
// interrupts us.
func (m *moving) migrate(ctx context.Context, cfg string) error {
	command := xl.MigratePaused(m.d.name, cfg)
	plan := step.Plan{m.d.tempStep("next.cfg", m.cfg), {
		What: "migrate " + m.d.name + " to this host, onto its new disks", Line: command.Line(),
		Do: func(ctx context.Context) error { return m.cross(ctx, command) },
	}}
	if m.half != nil {
		m.up.dom, plan = *m.halfMade, nil
	}
	if err := m.e.Apply(ctx, plan); err != nil && m.up.dom.ID == 0 {
		return err
	}
	err := m.e.Apply(context.WithoutCancel(ctx), m.up.letGo())
	if err == nil {
		err = m.up.left
	}
	if m.half != nil && m.half.Dir != "" && m.up.ran {
		err = errors.Join(err, os.RemoveAll(m.half.Dir))
	}
	if err == nil {
		return nil
	}
	err = fault.With(fault.Left, fmt.Errorf("%w\n%s was moved, and cannot go back to its old disks", err, m.d.name))
	if m.up.ran {
		return fault.Hint(err, "see whether it runs: domuswitch show %s; if it is paused: xl unpause %[1]s", run.Quote(m.d.name))
	}
	return fault.Hint(err, "it is paused, and has written nothing: see its disks: domuswitch show %s", run.Quote(m.d.name))
}

// cross is the migration itself.
func (m *moving) cross(ctx context.Context, command run.Cmd) error {
	if err := m.unchanged(ctx); err != nil {
		return err
	}
	if err := m.d.journal.Append(journal.KindSuspending, suspension{Domain: m.now.Domain, Disks: m.now.disks}); err != nil {
		return err
	}
	stop := m.watch(ctx)
	_, failed := m.e.Runner.Run(ctx, command)
	m.began = stop()
	ctx = context.WithoutCancel(ctx)
	domains, err := xl.List(ctx, m.e.Runner)
	if err != nil {
		return midway(errors.Join(failed, err))
	}
	var old, new *xl.Domain
	for i, d := range domains {
		switch {
		case d.ID == m.now.ID:
			old = &domains[i]
		case d.Name == m.d.name:
			new = &domains[i]
		}
	}
	switch {
	case failed != nil && old != nil && old.Name == m.d.name && alive(old.State):
		m.began = time.Time{}
		return fmt.Errorf("cannot migrate %s: %w\nit runs on as before", m.d.name, failed)
	case new == nil || new.State != xl.Paused:
		err := fault.With(fault.Left, errors.Join(fmt.Errorf("cannot migrate %s: it is not there, paused, as it should be", m.d.name), failed))
		return fault.Hint(err, "see what is left of it, under this and similar names: xl list")
	case old != nil:
		// It is suspended, and the new one has its memory: what it has under way
		// must end before the guest goes on.
		if _, err := m.e.Runner.Run(ctx, xl.Destroy(old.Number())); err != nil {
			return midway(errors.Join(failed, err))
		}
	}
	if err := m.c.freed(ctx, m.e, m.now); err != nil {
		return midway(err)
	}
	m.up.dom = *new
	return nil
}

// midway is the error of a migration that has made the new domain, which is paused.
func midway(err error) error {
	return fault.Hint(fault.With(fault.Left, err), "run the same command again: it goes on with the domain that is paused")
}

// watch looks when the domain stops running, until it is told to stop. It returns
// when that was.
func (m *moving) watch(ctx context.Context) (stop func() time.Time) {
	ctx, cancel := context.WithCancel(ctx)
	seen := make(chan time.Time, 1)
	go func() {
		for {
			before := time.Now()
			domains, err := xl.List(ctx, m.e.Runner)
			runs := false
			for _, d := range domains {
				runs = runs || d.ID == m.now.ID && alive(d.State)
			}
			if ctx.Err() != nil || err == nil && !runs {
				seen <- before
				return
			}
			_ = m.c.pause(ctx)
		}
	}()
	return func() time.Time {
		cancel()
		return <-seen
	}
}
