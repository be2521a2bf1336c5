package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"xenlvm/lib/blkdev"
	"xenlvm/lib/cli"
	"xenlvm/lib/convert"
	"xenlvm/lib/fault"
	"xenlvm/lib/host"
	"xenlvm/lib/journal"
	"xenlvm/lib/mapping"
	"xenlvm/lib/mirror"
	"xenlvm/lib/step"
	"xenlvm/lib/xl"
	"xenlvm/lib/xlcfg"
)

// target is what a verb works on: the mirrors of a domain, or one of them.
type target struct {
	domain  string
	vdev    string // "" for all
	journal *journal.Journal
	known   []mirror.Known // that were not taken down
	others  []mirror.Known // of the domain, that are not worked on
	ended   bool           // there were more of those that are
}

func (t *target) wants(vdev string) bool { return t.vdev == "" || xlcfg.SameDevice(t.vdev, vdev) }

// lines are the mapping lines of the mirrors.
func (t *target) lines(state mapping.State, destination func(mirror.Known) string) []mapping.Line {
	var lines []mapping.Line
	for _, k := range t.known {
		lines = append(lines, mapping.Line{Domain: t.domain, VDev: k.VDev, Source: k.Source, Destination: destination(k), State: state})
	}
	return lines
}

// begin finds what arg names, locks the domain and reads its journal.
func (c *command) begin(e *cli.Env, verb, arg string) (t *target, release func(), err error) {
	if _, err := c.rate(); err != nil {
		return nil, nil, err
	}
	if err := host.NeedRoot(verb + " a mirror"); err != nil {
		return nil, nil, err
	}
	t = &target{}
	if t.domain, t.vdev, err = c.resolve(e.Tool, arg); err != nil {
		return nil, nil, err
	}
	if err := convert.CheckDomain(c.options(t.domain)); err != nil {
		if _, stat := os.Stat(arg); stat == nil && arg == t.domain {
			err = fault.Hint(err, "a file is named with its directory: ./%s", arg)
		}
		return nil, nil, err
	}
	if t.journal, err = journal.Open(c.stateDir, t.domain, e.Tool); err != nil {
		return nil, nil, err
	}
	release = func() {}
	if !e.DryRun && verb != "look at" { // which change nothing, not even by a lock
		if release, err = t.journal.Lock(); err != nil {
			return nil, nil, err
		}
	}
	err = t.read()
	if err == nil && verb != "look at" {
		err = t.thaw(e)
	}
	if err != nil {
		release()
		return nil, nil, err
	}
	return t, release, nil
}

// thaw lets the domain's I/O go on, where a run was killed that held it back. Nothing
// interrupts that: the guest hangs. A dry run ends there: LVM would hang, too.
func (t *target) thaw(e *cli.Env) error {
	h := mirror.Host{Run: e.Runner, Journal: t.journal}
	var plan step.Plan
	for _, k := range append(slices.Clone(t.known), t.others...) {
		steps, err := h.Thaw(k.Disk)
		if err != nil {
			return err
		}
		plan = append(plan, steps...)
	}
	err := e.Apply(context.Background(), plan)
	if err == nil && e.DryRun && len(plan) > 0 {
		err = fault.Refuse("cannot plan more as long as the I/O of %s is held back", t.domain)
	}
	return err
}

// read reads the journal again.
func (t *target) read() error {
	records, err := t.journal.Read()
	if err != nil {
		return err
	}
	t.known, t.others, t.ended = nil, nil, false
	for _, k := range mirror.Remember(t.domain, records) {
		switch wanted := t.wants(k.VDev); {
		case k.Ended:
			t.ended = t.ended || wanted
		case wanted:
			t.known = append(t.known, k)
		default:
			t.others = append(t.others, k)
		}
	}
	return nil
}

// resolve says which domain, and which of its disks, arg names: what has no slash is
// a domain.
func (c *command) resolve(tool, arg string) (domain, vdev string, err error) {
	if !strings.Contains(arg, "/") {
		return arg, "", xl.CheckName(arg)
	}
	if arg, err = filepath.Abs(arg); err != nil {
		return "", "", err
	}
	same := func(target string) bool { return blkdev.SameFile(target, arg) }
	journals, err := journal.All(c.stateDir, tool)
	if err != nil {
		return "", "", err
	}
	for _, j := range journals {
		records, err := j.Read()
		if err != nil {
			continue // of another domain, which its own runs will say
		}
		for _, k := range mirror.Remember(j.Domain, records) {
			if !k.Ended && (arg == k.Path() || arg == k.Source || same(k.Source)) {
				return k.Domain, k.VDev, nil
			}
		}
	}
	path := c.config
	if path == "" {
		if path = xl.ConfiguredFor(c.xenDir, "", same); path == "" {
			return "", "", fault.Refuse("cannot mirror %s: no configuration in %s has it as a disk", arg, c.xenDir)
		}
	}
	config, err := xl.ReadConfig(path)
	if err != nil {
		return "", "", err
	}
	disks, err := config.Disks()
	if err != nil {
		return "", "", fault.With(fault.Refused, err)
	}
	for _, d := range disks {
		if d.Target != "" && same(d.Target) {
			domain, _ = config.String("name")
			return domain, d.VDev, nil
		}
	}
	return "", "", fault.Refuse("cannot mirror %s: it is no disk of %s", arg, path)
}

// targets are the mirrors that args name, those of all domains for none. Those that
// can be read are there whatever the error says of others.
func (c *command) targets(e *cli.Env, args []string) ([]*target, error) {
	if len(args) == 1 {
		t, release, err := c.begin(e, "look at", args[0])
		if err != nil {
			return nil, err
		}
		release()
		return []*target{t}, nil
	}
	journals, err := journal.All(c.stateDir, e.Tool)
	var all []*target
	for _, j := range journals {
		t := &target{domain: j.Domain, journal: j}
		if unread := t.read(); unread != nil {
			err = errors.Join(err, unread)
			continue
		}
		all = append(all, t)
	}
	return all, err
}
