package main

import (
	"slices"
	"strings"

	"xenlvm/lib/cli"
	"xenlvm/lib/fault"
	"xenlvm/lib/mapping"
	"xenlvm/lib/xlcfg"
)

// request is what apply is asked for: per domain, the disks and their new
// devices. ByHand lines came as VDEV=DEVICE: nobody vouches for their state.
type request struct {
	domain string
	lines  []mapping.Line
	byHand bool
}

// ready are the states of lines that a configuration may be made of.
var ready = []mapping.State{mapping.Copied, mapping.Synced, mapping.Switched}

// requests reads the positionals of a verb, or mapping lines, whose state is one
// of states, from e.Stdin.
func requests(e *cli.Env, verb string, args []string, states []mapping.State) ([]request, error) {
	if len(args) == 1 && args[0] == "-" {
		lines, err := mapping.Read(e.Stdin)
		if err != nil {
			return nil, refused(err)
		}
		if len(lines) == 0 {
			return nil, fault.Refuse("cannot %s standard input: it holds no mapping line", verb)
		}
		return byDomain(lines, states)
	}
	if len(args) < 2 {
		return nil, fault.BadUsage("%s wants DOMAIN VDEV=DEVICE..., or - for mapping lines on standard input", verb)
	}
	var lines []mapping.Line
	for _, a := range args[1:] {
		vdev, device, ok := strings.Cut(a, "=")
		if !ok || vdev == "" || device == "" {
			return nil, fault.BadUsage("cannot read %q: want VDEV=DEVICE such as xvda=/dev/vg0/vm3-xvda", a)
		}
		lines = append(lines, mapping.Line{Domain: args[0], VDev: vdev, Destination: device, State: mapping.Copied})
	}
	all, err := byDomain(lines, states)
	for i := range all {
		all[i].byHand = true
	}
	return all, err
}

// byDomain groups lines and refuses those that no configuration may be made of.
func byDomain(lines []mapping.Line, states []mapping.State) ([]request, error) {
	var all []request
	for _, l := range lines {
		if !slices.Contains(states, l.State) {
			return nil, fault.Refuse("cannot switch disk %s of %s: its state is %s, not copied or synced", l.VDev, l.Domain, l.State)
		}
		i := slices.IndexFunc(all, func(r request) bool { return r.domain == l.Domain })
		if i < 0 {
			i = len(all)
			all = append(all, request{domain: l.Domain})
		}
		for _, other := range all[i].lines {
			if xlcfg.SameDevice(other.VDev, l.VDev) {
				return nil, fault.BadUsage("disk %s of %s is named twice", l.VDev, l.Domain)
			}
			if other.Destination == l.Destination {
				return nil, oneDevice(other, l)
			}
		}
		all[i].lines = append(all[i].lines, l)
	}
	return all, nil
}

// oneDevice refuses two disks of a domain on one device: a second look tells when
// they have different names.
func oneDevice(a, b mapping.Line) error {
	names := a.Destination
	if b.Destination != names {
		names += ", which also is " + b.Destination
	}
	return fault.Refuse("cannot switch disks %s and %s of %s to one device %s", a.VDev, b.VDev, a.Domain, names)
}
