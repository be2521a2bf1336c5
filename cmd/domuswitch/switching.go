package main

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"xenlvm/lib/cli"
	"xenlvm/lib/fault"
	"xenlvm/lib/journal"
	"xenlvm/lib/mapping"
	"xenlvm/lib/run"
	"xenlvm/lib/step"
	"xenlvm/lib/xl"
	"xenlvm/lib/xlcfg"
)

// switching is a domain that is put onto other disks as a whole, by restart or
// live. Lasting devices go into its configuration, those of mdmirror only into
// what xl is given.
type switching struct {
	*checker
	lines  []mapping.Line
	file   *replacement  // of the configuration; its content may be the present one
	before []xlcfg.Disk  // that the domain has
	wasCfg *xlcfg.File   // with them
	next   []xlcfg.Disk  // that it is to have
	cfg    *xlcfg.File   // with them
	out    switchingJSON // what is printed
}

// switchingJSON is what restart and live report with --json.
type switchingJSON struct {
	result
	Method           string   `json:"method"` // restart, migrate, restore or qmp
	Expected         *float64 `json:"expected_pause_seconds,omitempty"`
	Pause            *float64 `json:"pause_seconds,omitempty"`
	*journal.Started          // of a restart
}

// begins reads what a verb is asked for, and takes the domain.
func (c *command) begins(ctx context.Context, e *cli.Env, verb string, args []string) (s *switching, release func(), err error) {
	asked, err := requests(e, verb, args, append(slices.Clone(ready), mapping.Mirrored))
	if err != nil {
		return nil, nil, err
	}
	if len(asked) > 1 {
		return nil, nil, fault.Refuse("cannot %s %s and %s: one domain at a time", verb, asked[0].domain, asked[1].domain)
	}
	return c.take(ctx, e, verb, asked[0])
}

// take takes the domain for a verb.
func (c *command) take(ctx context.Context, e *cli.Env, verb string, asked request) (s *switching, release func(), err error) {
	d, release, err := c.begin(e, verb, asked.domain)
	if err != nil {
		return nil, nil, err
	}
	s = &switching{checker: &checker{c: c, e: e, d: d, byHand: asked.byHand}, lines: asked.lines}
	if s.now, err = c.look(ctx, e, d.name); err != nil {
		release()
		return nil, nil, err
	}
	return s, release, nil
}

// prepare finds the moves and the configurations, and checks them. May is asked
// whether a move keeps the guest's data.
func (s *switching) prepare(ctx context.Context, may func(context.Context, *move) error) error {
	var err error
	if _, err = s.each(ctx, s.lines, s.find, s.wroteBeside, may, s.destination, s.others, s.idle); err != nil {
		return err
	}
	if err := s.configure(); err != nil {
		return err
	}
	return checkWithXL(ctx, s.e.Runner, s.d, s.cfg)
}

// configure makes what the file becomes, and what xl is given. A disk that is not
// named stays on the device of mdmirror that it is on: written to beside the
// mirror, its volume would not be equal to it any more.
func (s *switching) configure() error {
	var err error
	set := func(f **xlcfg.File, vdev, device string) {
		if err == nil {
			*f, err = (*f).SetDisk(vdev, device)
		}
	}
	file, was, next := s.d.cfg, s.d.cfg, s.d.cfg
	var lines []mapping.Line
	for _, k := range s.d.disks {
		live, ok := s.now.liveDisk(k.VDev)
		if !ok || !live.HasDevice {
			continue
		}
		if _, is, lookErr := s.c.mirror(live.Number()); lookErr != nil {
			return lookErr
		} else if is {
			set(&was, k.VDev, live.Path)
			set(&next, k.VDev, live.Path)
		}
	}
	s.out.Disks = []mapping.Line{}
	for _, m := range s.moves {
		l := s.d.switched(m.line, m.disk)
		s.out.Disks = append(s.out.Disks, l)
		set(&next, m.disk.VDev, l.Destination)
		if !m.mirror {
			set(&file, m.disk.VDev, l.Destination)
			lines = append(lines, l)
		}
	}
	if err != nil {
		return refused(err)
	}
	s.wasCfg, s.cfg = was, next
	if s.before, err = was.Disks(); err == nil {
		s.next, err = next.Disks()
	}
	if err != nil {
		return refused(err)
	}
	s.file = &replacement{d: s.d, kind: journal.KindApplied, content: file.Bytes(), lines: lines}
	s.out.DryRun, s.out.Diff = s.e.DryRun, s.file.diff()
	s.out.Configs = []configResult{{Domain: s.d.name, Path: s.d.file.Path}}
	if s.changesFile() {
		return s.d.file.Replaceable()
	}
	return nil
}

func (s *switching) changesFile() bool { return !bytes.Equal(s.file.content, s.d.file.Content) }

// there says whether the domain has all the disks that it is to have.
func (s *switching) there() bool {
	return !slices.ContainsFunc(s.moves, func(m *move) bool { return !m.has })
}

// done prints the result.
func (s *switching) done() error {
	if s.file.backup != "" {
		s.out.Configs[0].Backup = s.d.journal.Path(s.file.backup)
	}
	return deliver(s.e, s.out, s.out.Disks)
}

// settle makes the disks last that a running domain has: in the file, and in what
// Xen restarts from where xl was not given them. The domain keeps its disks if
// that fails.
func (s *switching) settle(ctx context.Context, tellXen bool) error {
	s.file.running = true
	plan := s.file.steps()
	if tellXen {
		path := s.d.temp("next.cfg")
		update := xl.ConfigUpdate(s.d.name, path)
		plan = append(plan, s.d.tempStep("next.cfg", s.cfg), step.Command(s.e.Runner, "let a reboot of "+s.d.name+" start from its new disks", update, run.Cmd{}))
	}
	err := s.e.Apply(context.WithoutCancel(ctx), plan)
	if err == nil {
		return nil
	}
	return fault.Hint(fault.With(fault.Left, fmt.Errorf("%s runs on its new disks, but its configuration could not be changed: %w", s.d.name, err)),
		"from its next start on it would be on its old ones: run the same command again")
}

// lastLook comes right before the first change of a running domain.
func (s *switching) lastLook() step.Step {
	return step.Step{What: "see that " + s.d.name + " is as it was", Do: s.unchanged}
}

// notRunning refuses a domain that is there, and no guest runs in it.
func (s *switching) notRunning(verb string) error {
	err := fault.Refuse("cannot %s %s: it is %s", verb, s.d.name, s.now.State)
	if s.now.State == xl.Paused {
		return fault.Hint(err, "let it run: %s", xl.Unpause(s.d.name).Line())
	}
	return fault.Hint(err, "wait until whoever saves or migrates it is done, or remove what is left of it: %s", xl.Destroy(s.d.name).Line())
}
