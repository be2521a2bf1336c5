package mirror

import (
	"context"
	"errors"

	"xenlvm/lib/fault"
	"xenlvm/lib/run"
	"xenlvm/lib/step"
	"xenlvm/lib/xl"
	"xenlvm/lib/xlcfg"
)

// GoBack is the plan that puts a domain, whose configuration is at config, from mirrors
// back onto their sources; others are its other mirrors. What TakeDown removes can be
// planned only after that.
func (h Host) GoBack(ctx context.Context, config string, all, others []Known) (step.Plan, error) {
	if err := h.NotRenamed(ctx, all); err != nil {
		return nil, err
	}
	var back step.Plan
	for _, k := range all {
		s, err := h.mayAbort(config, k)
		if err != nil {
			return nil, err
		}
		if unmarked, err := k.Unmarked(ctx, h.Run); err != nil {
			return nil, err
		} else if unmarked {
			// From here on it is not equal any more.
			back = append(back, h.Mark(k))
		}
		if s.Array != nil && s.Top.Name != "" {
			one, err := h.Return(k.Disk)
			if err != nil {
				return nil, err
			}
			back = append(back, one)
		}
	}
	if len(back) == 0 {
		return nil, nil
	}
	update, err := h.restartFrom(ctx, config, others)
	return append(back, update...), err
}

// restartFrom is the plan that has Xen restart a running domain from its
// configuration when the guest reboots.
func (h Host) restartFrom(ctx context.Context, path string, others []Known) (step.Plan, error) {
	domain := h.Journal.Domain
	dom, up, err := xl.Find(ctx, h.Run, domain)
	if err != nil || !up {
		return nil, err
	}
	file, err := xl.ReadConfig(path)
	if err != nil {
		return nil, err
	}
	stay, err := staying(others)
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
		from = h.Journal.Path(name)
		plan = step.Plan{h.Journal.Temporary("write a configuration for xl", name, config.Bytes())}
	}
	return append(plan, step.Command(h.Run, "have Xen restart "+domain+" from "+path, xl.ConfigUpdate(dom.Number(), from), run.Cmd{})), nil
}

// staying are the mirrors that a domain goes on on when one of them is aborted.
func staying(others []Known) ([]Known, error) {
	var stay []Known
	for _, k := range others {
		s, err := k.Look()
		if err != nil {
			return nil, err
		}
		if s.Array != nil && s.Top.Open > 0 && s.Phase != Returned && s.Phase != Switched {
			stay = append(stay, k)
		}
	}
	return stay, nil
}

// onMirrors is a configuration with the devices of mirrors in place of the disks: a
// guest that reboots on one of those would write to it beside the mirror.
func onMirrors(config *xlcfg.File, all []Known) (*xlcfg.File, error) {
	for _, k := range all {
		var err error
		if config, err = config.SetDisk(k.VDev, k.Path()); err != nil {
			return nil, fault.With(fault.Refused, err)
		}
	}
	return config, nil
}

// mayAbort refuses to go back to a source that has not everything.
func (h Host) mayAbort(config string, k Known) (State, error) {
	s, err := k.Look()
	if err != nil {
		return s, err
	}
	_, configured, err := k.Configured(config)
	switch {
	case err != nil:
		return s, err
	case configured && s.Lost():
		return s, h.WayBack(config, k, s, fault.Refuse("cannot abort the mirror of %s: %s failed, and is what its next start would be from", k.Disk, k.Destination))
	case configured || s.Phase == Switched:
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

// Lost says whether the destination failed: the source goes on alone.
func (s State) Lost() bool { return s.Phase == Degraded && s.Intact() }

// WayBack adds to err how the configuration comes to name the source again, if it
// names a destination that failed.
func (h Host) WayBack(config string, k Known, s State, err error) error {
	if _, configured, other := k.Configured(config); !s.Lost() || other != nil || !configured {
		return err
	}
	alone, other := h.alone(k)
	if other != nil {
		return errors.Join(err, other)
	}
	return namesLost(err, k, s.Top.Open > 0, alone)
}

// namesLost is WayBack where it is needed. What domuswitch puts back has all disks
// on their images, and without --yes only where the domain has not run since: one
// that uses the mirror wrote nothing past it.
func namesLost(err error, k Known, used, alone bool) error {
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

// alone says that no other disk of the domain was put onto its destination, or may
// have been.
func (h Host) alone(k Known) (bool, error) {
	records, err := h.Journal.Read()
	if err != nil {
		return false, err
	}
	for _, other := range Remember(k.Domain, records) {
		if other.VDev == k.VDev {
			continue
		}
		s, err := other.Look()
		if err != nil || other.Ended || s.Phase == Switched || s.Phase == Absent {
			return false, err
		}
	}
	return true, nil
}
