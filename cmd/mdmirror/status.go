package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"xenlvm/lib/cli"
	"xenlvm/lib/fault"
	"xenlvm/lib/journal"
	"xenlvm/lib/mapping"
	"xenlvm/lib/mirror"
	"xenlvm/lib/run"
	"xenlvm/lib/step"
	"xenlvm/lib/units"
)

// statusOf is the exit status for a mirror in a phase.
func statusOf(p mirror.Phase) fault.Status {
	switch p {
	case mirror.Synced, mirror.Switched:
		return fault.Done
	case mirror.Recovering:
		return fault.Recovering
	case mirror.Failed:
		return fault.Broken
	}
	return fault.Degraded
}

// member is one line of status.
type member struct {
	Domain string       `json:"domain"`
	VDev   string       `json:"vdev"`
	Path   string       `json:"path"`
	State  string       `json:"state"`
	Phase  mirror.Phase `json:"phase"` // of the mirror
	Done   units.Bytes  `json:"done_bytes"`
	Total  units.Bytes  `json:"total_bytes"`
	Speed  units.Bytes  `json:"bytes_per_second"`
}

// status prints the members of mirrors, and what is going on.
func (c *command) status(_ context.Context, e *cli.Env, args []string) error {
	targets, err := c.targets(e, args)
	if targets == nil && err != nil {
		return err
	}
	members, trouble := []member{}, []error{err}
	for _, t := range targets {
		for _, k := range t.known {
			s, err := k.Look()
			if err != nil {
				trouble = append(trouble, err)
				continue
			}
			members = append(members, membersOf(k, s)...)
			if status := statusOf(s.Phase); status != fault.Done {
				trouble = append(trouble, fault.With(status, fmt.Errorf("the mirror of %s is %s", k.Disk, s.Phase)))
			}
			if s.Top.Held {
				trouble = append(trouble, held(k))
			}
			c.explain(e, t, k, s)
		}
	}
	if len(members) == 0 && errors.Join(trouble...) == nil {
		e.Infof("no disk is mirrored")
	}
	if e.JSON {
		err = e.Emit(map[string]any{"changed": false, "members": members})
	} else {
		var b strings.Builder
		for _, m := range members {
			fmt.Fprintf(&b, "%s\t%s\t%s\t%s\n", m.Domain, m.VDev, m.Path, m.State)
		}
		_, err = fmt.Fprint(e.Stdout, b.String())
	}
	return errors.Join(append(trouble, e.Delivered(err))...)
}

// membersOf are the lines of one mirror.
func membersOf(k mirror.Known, s mirror.State) []member {
	line := func(path, state string) member {
		return member{Domain: k.Domain, VDev: k.VDev, Path: path, State: state, Phase: s.Phase}
	}
	if s.Array == nil {
		return []member{line(k.Source, string(s.Phase))}
	}
	all := []member{line(k.Source, s.StateOf(s.Source))}
	if k.Destination == "" || s.Destination.Name == "" {
		return append(all, line("missing", "missing"))
	}
	m := line(k.Destination, s.StateOf(s.Destination))
	if s.MD.Total > 0 {
		m.Done, m.Total, m.Speed = s.MD.Done, s.MD.Total, s.MD.Speed
		m.State += fmt.Sprintf(" %d%% (%s)", 100*m.Done/m.Total, s.MD.Action)
	}
	return append(all, m)
}

// explain says what can be done about a mirror that is not as it should be.
func (c *command) explain(e *cli.Env, t *target, k mirror.Known, s mirror.State) {
	domain := run.Quote(k.Domain)
	switch {
	case s.Phase == mirror.Degraded || s.Phase == mirror.Failed:
		show(e, c.unfit(t, k, s))
	case s.Phase == mirror.Switched || c.configured(k) == nil:
		e.Infof("%s goes on on %s, or will from its next start on: 'mdmirror finish %s' completes it", k.Disk, k.Destination, domain)
	case s.Phase == mirror.Absent && k.Boot != journal.BootID():
		e.Infof("%s was mirrored when the host went down. Its image %s has everything that was written until then; 'mdmirror build %s' begins again, 'mdmirror abort %[3]s' forgets it",
			k.Disk, k.Source, domain)
	case s.Phase == mirror.Absent || s.Phase == mirror.Partly:
		show(e, c.unfit(t, k, s))
	case s.Phase == mirror.Returned:
		e.Infof("%s goes on on %s by way of %s, which goes when it is restarted: 'mdmirror abort %s' completes that", k.Disk, k.Source, k.Path(), domain)
	}
}

// held is the error of a mirror whose domain waits for its disk.
func held(k mirror.Known) error {
	err := fmt.Errorf("the I/O of %s to %s is held back: it is being switched, or a run was killed that did so, and then it waits for ever", k.Disk, k.Path())
	return fault.Hint(err, "mdmirror finish %s, or abort: each lets it go on first", run.Quote(k.Domain))
}

// show prints an error, and what helps.
func show(e *cli.Env, err error) {
	e.Infof("%v; %s", err, strings.Join(fault.Hints(err), "; "))
}

// wait returns when image and volume are equal.
func (c *command) wait(ctx context.Context, e *cli.Env, args []string) error {
	t, release, err := c.begin(e, "look at", args[0])
	if err != nil {
		return err
	}
	release()
	if err := t.need(); err != nil || e.DryRun {
		return err
	}
	for _, k := range t.known {
		phase := e.Progress("fill " + k.Destination)
		err := k.Wait(ctx, watch(e, k, phase))
		phase.Done()
		if err != nil {
			return err
		}
	}
	return present(e, false, t.lines(mapping.Synced, onto), nil)
}

// watch shows how far md is with a mirror, and says so when it will not be done
// within reason.
func watch(e *cli.Env, k mirror.Known, phase *cli.Progress) func(mirror.State) {
	var pace mirror.Pace
	return func(s mirror.State) {
		phase.Update(int64(s.MD.Done), int64(s.MD.Total))
		if err := pace.Look(k.Disk, s); err != nil {
			e.Printf("%v", err)
			for _, h := range fault.Hints(err) {
				e.Printf("hint: %s", h)
			}
		}
	}
}

// need refuses when there is no mirror.
func (t *target) need() error {
	if len(t.known) == 0 {
		return fault.Hint(fault.Refuse("cannot find a mirror of %s", t.domain), "mdmirror build %s", run.Quote(t.domain))
	}
	return nil
}

// verify compares image and volume.
func (c *command) verify(ctx context.Context, e *cli.Env, args []string) error {
	t, release, err := c.begin(e, "verify", args[0])
	if err != nil {
		return err
	}
	defer release()
	if err := t.need(); err != nil || e.DryRun {
		return err
	}
	if err := c.compare(ctx, e, t, t.known); err != nil {
		return err
	}
	return present(e, true, t.lines(mapping.Synced, onto), nil)
}

// compare has md compare the members of mirrors of t, and writes down that they
// are equal.
func (c *command) compare(ctx context.Context, e *cli.Env, t *target, all []mirror.Known) error {
	rate, err := c.rate()
	if err != nil {
		return err
	}
	h := mirror.Host{Run: e.Runner, Journal: t.journal}
	for _, k := range all {
		before, err := h.User(ctx, k.Disk)
		if err != nil {
			return err
		}
		phase := e.Progress("compare " + filepath.Base(k.Source) + " and " + k.Destination)
		differ, err := k.Verify(ctx, rate, watch(e, k, phase))
		phase.Done()
		if err != nil {
			return err
		}
		if differ > 0 {
			return fault.Hint(fault.With(fault.Mismatch, fmt.Errorf("cannot trust %s: %s of it differ from %s", k.Destination, differ, k.Source)),
				"mdmirror abort %s; a guest that changes memory while it is being written, as swap does, can cause it: compare again first", run.Quote(t.domain))
		}
		user, err := h.User(ctx, k.Disk)
		if err != nil {
			return err
		}
		if user != before { // whatever ran in between
			user = 0
		}
		if err := e.Apply(ctx, step.Plan{h.Confirm(k, user)}); err != nil {
			return err
		}
	}
	return t.read()
}
