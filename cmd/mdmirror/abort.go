package main

import (
	"cmp"
	"context"
	"errors"

	"xenlvm/lib/cli"
	"xenlvm/lib/fault"
	"xenlvm/lib/mapping"
	"xenlvm/lib/mirror"
	"xenlvm/lib/run"
	"xenlvm/lib/step"
	"xenlvm/lib/xl"
	"xenlvm/lib/xlcfg"
)

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
	if err := h.NotRenamed(ctx, t.known); err != nil {
		return err
	}
	var back, end step.Plan
	for _, k := range t.known {
		end = append(end, h.End(k.Disk)...)
		s, err := c.mayAbort(t, k)
		if err != nil {
			return err
		}
		if unmarked, err := k.Unmarked(ctx, e.Runner); err != nil {
			return err
		} else if unmarked {
			// From here on it is not equal any more.
			back = append(back, h.Mark(k))
		}
		if s.Array != nil && s.Top.Name != "" {
			one, err := h.Return(k.Disk)
			if err != nil {
				return err
			}
			back = append(back, one)
		}
	}
	if len(back) > 0 {
		update, err := c.restartFrom(ctx, e, t)
		if err != nil {
			return err
		}
		back = append(back, update...)
	}
	if err := e.Apply(ctx, back); err != nil {
		return err
	}
	if err := c.takeDown(ctx, e, h, t.known, end); err != nil {
		return err
	}
	for _, k := range t.known {
		if k.Destination != "" {
			e.Infof("%s is kept, and is not complete", k.Destination)
		}
	}
	return present(e, true, t.lines(mapping.Planned, func(k mirror.Known) string { return cmp.Or(k.Destination, k.Path()) }), nil)
}

// restartFrom is the plan that has Xen restart a running domain from its
// configuration when the guest reboots.
func (c *command) restartFrom(ctx context.Context, e *cli.Env, t *target) (step.Plan, error) {
	dom, up, err := xl.Find(ctx, e.Runner, t.domain)
	if err != nil || !up {
		return nil, err
	}
	path, err := c.configFile(t.domain)
	if err != nil {
		return nil, err
	}
	file, err := xl.ReadConfig(path)
	if err != nil {
		return nil, err
	}
	stay, err := t.staying()
	if err != nil {
		return nil, err
	}
	config, err := onMirrors(file, stay)
	if err != nil {
		return nil, err
	}
	var plan step.Plan
	from := path
	if len(stay) > 0 {
		const name = "restart.cfg"
		from = t.journal.Path(name)
		plan = step.Plan{t.journal.Temporary("write a configuration for xl", name, config.Bytes())}
	}
	return append(plan, step.Command(e.Runner, "have Xen restart "+t.domain+" from "+path, xl.ConfigUpdate(dom.Number(), from), run.Cmd{})), nil
}

// staying are the mirrors that a domain goes on on when one of them is aborted.
func (t *target) staying() ([]mirror.Known, error) {
	var stay []mirror.Known
	for _, k := range t.others {
		s, err := k.Look()
		if err != nil {
			return nil, err
		}
		if s.Array != nil && s.Top.Open > 0 && s.Phase != mirror.Returned && s.Phase != mirror.Switched {
			stay = append(stay, k)
		}
	}
	return stay, nil
}

// onMirrors is a configuration with the devices of mirrors in place of the disks: a
// guest that reboots on one of those would write to it beside the mirror.
func onMirrors(config *xlcfg.File, all []mirror.Known) (*xlcfg.File, error) {
	for _, k := range all {
		var err error
		if config, err = config.SetDisk(k.VDev, k.Path()); err != nil {
			return nil, fault.With(fault.Refused, err)
		}
	}
	return config, nil
}

// mayAbort refuses to go back to an image that has not everything.
func (c *command) mayAbort(t *target, k mirror.Known) (mirror.State, error) {
	s, err := k.Look()
	if err != nil {
		return s, err
	}
	_, configured, err := c.names(k)
	switch {
	case err != nil:
		return s, err
	case configured && lost(s):
		return s, c.wayBack(t, k, s, fault.Refuse("cannot abort the mirror of %s: %s failed, and is what its next start would be from", k.Disk, k.Destination))
	case configured || s.Phase == mirror.Switched:
		return s, fault.Hint(fault.Refuse("cannot abort the mirror of %s: it runs on %s, or will from its next start on", k.Disk, k.Destination),
			"complete it: mdmirror finish %s", run.Quote(k.Domain))
	}
	if s.Array != nil && !s.Intact() {
		return s, k.Unfit(s)
	}
	if s.Used() { // what was written must be where the domain goes back to
		return s, k.Original(s)
	}
	return s, nil
}

// lost says whether the volume of a mirror failed: the image goes on alone.
func lost(s mirror.State) bool { return s.Phase == mirror.Degraded && s.Intact() }

// unfit says why a mirror is not fit, and what helps.
func (c *command) unfit(t *target, k mirror.Known, s mirror.State) error {
	return c.wayBack(t, k, s, k.Unfit(s))
}

// wayBack adds to err how the configuration comes to name the image again, if it
// names a volume that failed.
func (c *command) wayBack(t *target, k mirror.Known, s mirror.State, err error) error {
	if _, configured, other := c.names(k); !lost(s) || other != nil || !configured {
		return err
	}
	alone, other := t.alone(k)
	if other != nil {
		return errors.Join(err, other)
	}
	return namesLost(err, k, s.Top.Open > 0, alone)
}

// namesLost is wayBack where it is needed. What domuswitch puts back has all disks
// on their images, and without --yes only where the domain has not run since: one
// that uses the mirror wrote nothing past it.
func namesLost(err error, k mirror.Known, used, alone bool) error {
	domain, yes := run.Quote(k.Domain), ""
	if used {
		yes = "--yes "
	}
	if alone {
		return fault.Hint(err, "its configuration names %s already: domuswitch revert %s%s && mdmirror abort %[3]s", k.Destination, yes, domain)
	}
	return fault.Hint(err, "other disks may be on their volumes for good, so give back this one only: name %s as %s in the configuration of %s, then: mdmirror abort %s",
		k.Source, k.VDev, k.Domain, run.Quote(k.Source))
}

// alone says that no other disk of the domain was put onto its volume, or may have
// been.
func (t *target) alone(k mirror.Known) (bool, error) {
	records, err := t.journal.Read()
	if err != nil {
		return false, err
	}
	for _, other := range mirror.Remember(t.domain, records) {
		if other.VDev == k.VDev {
			continue
		}
		s, err := other.Look()
		if err != nil || other.Ended || s.Phase == mirror.Switched || s.Phase == mirror.Absent {
			return false, err
		}
	}
	return true, nil
}

// notSwitched says what to do after a switch that failed.
func (c *command) notSwitched(t *target, k mirror.Known, err error) error {
	if s, look := k.Look(); look == nil && lost(s) {
		return c.wayBack(t, k, s, err)
	}
	return fault.Hint(err, "the domain goes on as it was; go on: mdmirror finish %s", run.Quote(k.Domain))
}
