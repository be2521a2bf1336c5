package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"xenlvm/lib/cli"
	"xenlvm/lib/fault"
	"xenlvm/lib/journal"
	"xenlvm/lib/lvm"
	"xenlvm/lib/mirror"
	"xenlvm/lib/run"
	"xenlvm/lib/units"
	"xenlvm/lib/xl"
)

// statusJSON is what is known of one domain.
type statusJSON struct {
	Domain string          `json:"domain"`
	Config string          `json:"config"` // "" if it cannot be told
	State  string          `json:"state"`  // of the domain: running, paused, …, stopped, unknown
	Run    *journal.Holder `json:"run"`    // that is at work at this moment
	Disks  []diskStatus    `json:"disks"`
	Left   []leftover      `json:"leftovers"`
	Kept   []kept          `json:"kept"`
	Unread []string        `json:"unread"` // why what could not be read
	Next   string          `json:"next"`   // command that goes on, "" for nothing to do
	Todo   bool            `json:"todo"`   // something is half-way; else next may be left
}

// leftover is what a run that did not end has left, with the command that clears it.
type leftover struct {
	What string `json:"what"`
	Line string `json:"command"`
}

// kept is what the next pass, or the way back, can use. Purge or abort removes it.
type kept struct {
	Kind string  `json:"kind"` // image, backup, base, back door, volume, memory
	Name string  `json:"name"`
	Size int64   `json:"size_bytes"`
	Used float64 `json:"used_percent,omitempty"` // of a snapshot's space
	Note string  `json:"note,omitempty"`
}

// status tells what is going on, what is left and what to do next. It changes
// nothing, takes no lock, and does not wait for what does not answer.
func (c *command) status(ctx context.Context, e *cli.Env, args []string) error {
	if err := c.needRoot("look at the status of a domain"); err != nil {
		return err
	}
	if c.config != "" && len(args) == 0 {
		return fault.BadUsage("--config names the configuration of one domain: name it")
	}
	look := &looking{c: c, e: e}
	look.volumes, look.noVolumes = answer(ctx, c.quick, func(ctx context.Context) ([]lvm.LV, error) { return lvm.LVs(ctx, e.Runner, "") })
	names, err := c.statusOfWhom(look, args)
	if err != nil {
		return err
	}
	all := []statusJSON{}
	var verdict []error
	for _, name := range names {
		s, err := look.domain(ctx, name)
		if err != nil {
			return err
		}
		all = append(all, s)
		verdict = append(verdict, s.verdict()...)
	}
	if len(all) == 0 {
		e.Infof("nothing to do: nothing is known of any domain in %s", cmp.Or(c.stateDir, journal.DefaultDir))
		if look.noVolumes != nil {
			verdict = append(verdict, fmt.Errorf("cannot look for what is left: %w", look.noVolumes))
		}
	}
	if e.JSON {
		err = e.Emit(map[string]any{"changed": false, "domains": all})
	} else {
		var text strings.Builder
		for _, s := range all {
			s.print(&text)
		}
		_, err = fmt.Fprint(e.Stdout, text.String())
	}
	return errors.Join(append(verdict, e.Delivered(err))...)
}

// statusOfWhom is the domains that args name; for none, all of which there is a
// journal, and those whose tag a volume has.
func (c *command) statusOfWhom(look *looking, args []string) ([]string, error) {
	if len(args) > 0 {
		return args, xl.CheckName(args[0])
	}
	journals, err := journal.All(cmp.Or(c.stateDir, journal.DefaultDir), "domuswitch")
	var names []string
	for _, j := range journals {
		names = append(names, j.Domain)
	}
	for _, v := range look.volumes {
		names = append(names, v.Domains()...)
	}
	slices.Sort(names)
	return slices.Compact(names), err
}

// verdict is what the exit status says of a domain.
func (s statusJSON) verdict() []error {
	var all []error
	if len(s.Unread) > 0 {
		all = append(all, fault.With(fault.Failed, fmt.Errorf("%s: not everything could be read", s.Domain)))
	}
	switch {
	case s.Run != nil:
		all = append(all, fault.With(fault.Recovering, fmt.Errorf("%s: a run is at work", s.Domain)))
	case slices.ContainsFunc(s.Disks, func(d diskStatus) bool { return d.Phase == mirror.Recovering }):
		all = append(all, fault.With(fault.Recovering, fmt.Errorf("%s: a volume is being filled; next: %s", s.Domain, s.Next)))
	case s.Todo:
		all = append(all, fault.With(fault.Degraded, fmt.Errorf("%s: something is half-way; next: %s", s.Domain, s.Next)))
	}
	return all
}

// print writes the lines of a domain: DOMAIN, WHAT, NAME, STATE, separated by TAB.
func (s statusJSON) print(w *strings.Builder) {
	line := func(what, name, state string) {
		fields := []string{s.Domain, what, cmp.Or(name, "-"), cmp.Or(state, "-")}
		for i := range fields {
			fields[i] = cli.Printable(fields[i])
		}
		fmt.Fprintln(w, strings.Join(fields, "\t"))
	}
	line("domain", s.Config, s.State)
	if s.Run != nil {
		line("run", s.Run.String(), "at work")
	}
	for _, d := range s.Disks {
		line("disk", d.VDev, d.String())
	}
	for _, l := range s.Left {
		line("left", l.What, l.Line)
	}
	for _, k := range s.Kept {
		line("kept", k.Name, k.String())
	}
	for _, u := range s.Unread {
		line("unread", "-", u)
	}
	if s.Next != "" {
		line("next", s.Next, "")
	}
}

func (k kept) String() string {
	parts := []string{k.Kind}
	if k.Size > 0 {
		parts = append(parts, units.Bytes(k.Size).String())
	}
	if k.Used > 0 {
		parts = append(parts, fmt.Sprintf("%.0f %% in use", k.Used))
	}
	if k.Note != "" {
		parts = append(parts, k.Note)
	}
	return strings.Join(parts, ", ")
}

// waitFor is the command that ends when a process does.
func waitFor(pid int) string {
	return run.Quote("tail", fmt.Sprintf("--pid=%d", pid), "-f", "/dev/null")
}
