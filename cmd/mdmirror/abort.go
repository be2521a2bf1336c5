package main

import (
	"cmp"
	"context"

	"xenlvm/lib/cli"
	"xenlvm/lib/fault"
	"xenlvm/lib/mapping"
	"xenlvm/lib/mirror"
	"xenlvm/lib/run"
	"xenlvm/lib/step"
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
	config, err := c.configFile(t.domain)
	if err != nil {
		return err
	}
	h := mirror.Host{Run: e.Runner, Journal: t.journal}
	back, err := h.GoBack(ctx, config, t.known, t.others)
	if err != nil {
		return err
	}
	if err := e.Apply(ctx, back); err != nil {
		return err
	}
	var end step.Plan
	for _, k := range t.known {
		end = append(end, h.End(k.Disk)...)
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

// unfit says why a mirror is not fit, and what helps.
func (c *command) unfit(t *target, k mirror.Known, s mirror.State) error {
	return c.wayBack(t, k, s, k.Unfit(s))
}

// wayBack adds to err how the configuration comes to name the image again, if it
// names a volume that failed.
func (c *command) wayBack(t *target, k mirror.Known, s mirror.State, err error) error {
	config, other := c.configFile(k.Domain)
	if other != nil {
		return err
	}
	return mirror.Host{Journal: t.journal}.WayBack(config, k, s, err)
}

// notSwitched says what to do after a switch that failed.
func (c *command) notSwitched(t *target, k mirror.Known, err error) error {
	if s, look := k.Look(); look == nil && s.Lost() {
		return c.wayBack(t, k, s, err)
	}
	return fault.Hint(err, "the domain goes on as it was; go on: mdmirror finish %s", run.Quote(k.Domain))
}
