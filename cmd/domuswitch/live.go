package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"xenlvm/lib/cli"
	"xenlvm/lib/fault"
	"xenlvm/lib/journal"
	"xenlvm/lib/run"
	"xenlvm/lib/step"
	"xenlvm/lib/units"
	"xenlvm/lib/xl"
	"xenlvm/lib/xlcfg"
)

// The ways onto other disks without a reboot of the guest.
const (
	byMigrate = "migrate" // to this same host
	byRestore = "restore" // of its memory, saved to a file
	byQEMU    = "qmp"     // QEMU, which serves the disks, copies them itself
)

// live puts a domain onto other disks without a reboot of its guest.
func (c *command) live(ctx context.Context, e *cli.Env, args []string) error {
	if domain, vdevs, ok := onlyDisks(args); ok {
		return c.toVolumes(ctx, e, domain, vdevs)
	}
	if len(c.to) > 0 {
		return fault.BadUsage("--to says where images go that QEMU serves: want DOMAIN, and no device beside it")
	}
	s, release, err := c.begins(ctx, e, "live", args)
	if err != nil {
		return err
	}
	defer release()
	m := &moving{switching: s}
	if err := m.takeUp(); err != nil {
		return err
	}
	if err := s.prepare(ctx, m.may); err != nil {
		return err
	}
	if m.inQEMU() {
		return m.copyInQEMU(ctx)
	}
	if s.there() && m.half == nil {
		return s.already(ctx)
	}
	if err := m.whole(); err != nil {
		return err
	}
	if err := m.same(ctx); err != nil {
		return err
	}
	if m.expect(); c.maxPause > 0 && m.expected > c.maxPause && m.half == nil {
		return fault.Refuse("cannot move %s live: it is expected to pause for %s, and --max-pause allows %s", s.d.name, shortly(m.expected), shortly(c.maxPause))
	}
	return m.run(ctx)
}

// moving is a domain on its way without a reboot.
type moving struct {
	*switching
	method   string
	dir      string // for its memory
	expected time.Duration
	began    time.Time // of the pause; zero while the guest runs, or if it was not seen
	up       *starting
	making   step.Plan // of the volumes that QEMU copies to, nil where devices were named
	left     error     // QEMU has switched, and something remains to be cleaned up

	// What a run that did not end left: its record, and the domain that it has
	// made, paused, nil for none.
	half     *suspension
	halfMade *xl.Domain
	allowed  bool // it was about to let that run

	back bool // it runs on its old disks again
}

// may: nothing is copied, so the device must be equal to the disk at every
// instant, and the guest must not see another disk.
func (m *moving) may(_ context.Context, mv *move) error {
	what := fmt.Sprintf("cannot put disk %s of %s onto %s without a reboot", mv.disk.VDev, m.d.name, mv.line.Destination)
	switch {
	case mv.live == nil:
		return fault.Refuse("%s: the domain runs without it", what)
	case mv.live.Kind == qdisk:
		return m.mayCopy(mv)
	case mv.has:
		return nil
	case mv.live.Kind != "vbd":
		return fault.Refuse("%s: its backend is %s", what, backendName(mv.live.Kind))
	case mv.mirror && !mv.equal:
		return m.fromMirror(mv)
	case !mv.equal:
		return fault.Hint(fault.Refuse("%s: what the guest writes to %s is not there", what, mv.live.Path), "mirror it: mdmirror build %s", run.Quote(m.d.name))
	case mv.live.SectorSize != 0 && mv.live.SectorSize != mv.dev.SectorSize:
		return fault.Refuse("%s: its sectors have %d bytes, those that the guest knows %d", what, mv.dev.SectorSize, mv.live.SectorSize)
	case mv.dev.Size < mv.live.Size:
		return fault.Refuse("%s: it has %s, the disk that the guest knows %s", what, mv.dev.Size, mv.live.Size)
	}
	return nil
}

// whole: the domain must have the disks that xl is given, and no others. xl gets
// the file, which may have been edited since the domain was started.
func (m *moving) whole() error {
	if len(m.now.strayed) > 0 {
		// Going back would be to where Xen believes it to be.
		return fault.Hint(fault.Refuse("cannot move %s live: QEMU has moved its disk %s, which Xen does not know before the next start", m.d.name, m.now.strayed[0]),
			"restart it: domuswitch restart %s ...", run.Quote(m.d.name))
	}
	for _, k := range m.before {
		live, ok := m.now.liveDisk(k.VDev)
		switch {
		case !ok && k.CDROM && k.Format == xlcfg.Empty:
		case !ok:
			return fault.Refuse("cannot move %s live: it runs without disk %s, which is in its configuration", m.d.name, k.VDev)
		case !k.CDROM && !m.c.runs(live, k.Target) && !slices.ContainsFunc(m.moves, func(mv *move) bool { return mv.live.ID == live.ID }):
			return fault.Hint(fault.Refuse("cannot move %s live: its disk %s is %s, and in its configuration %s", m.d.name, k.VDev, live.Path, k.Target),
				"name that disk, too, or make the configuration what it was when %s was started", m.d.name)
		}
	}
	for _, live := range m.now.disks {
		if !slices.ContainsFunc(m.before, func(k xlcfg.Disk) bool { id, _ := xlcfg.DevID(k.VDev); return id == live.ID || k.VDev == live.VDev }) {
			return fault.Refuse("cannot move %s live: its disk %s is not in its configuration", m.d.name, live.VDev)
		}
	}
	return nil
}

// same: the domain must be the same one on its new disks; and how it can be moved.
func (m *moving) same(ctx context.Context) error {
	if m.half != nil { // it was looked at, and is no more
		return nil
	}
	is, err := xl.Stored(ctx, m.e.Runner, m.now.Domain)
	if err != nil {
		return err
	}
	if what := is.Host(); what != "" {
		return fault.Hint(fault.Refuse("cannot move %s live: it has %s, and would lose it", m.d.name, what), "restart it: domuswitch restart %s ...", run.Quote(m.d.name))
	}
	will, err := parseWithXL(ctx, m.e.Runner, m.d, m.cfg)
	if err != nil {
		return err
	}
	differs := func(what string, was, is any) error {
		return fault.Hint(fault.Refuse("cannot move %s live: its %s: it has %v, and %v in %s", m.d.name, what, was, is, m.d.file.Path), "make the configuration what %s has", m.d.name)
	}
	switch {
	case is.Create.Type != will.Create.Type:
		return differs("type", is.Create.Type, will.Create.Type)
	case is.Build.VCPUs != will.Build.VCPUs:
		return differs("number of vcpus", is.Build.VCPUs, will.Build.VCPUs)
	case !slices.Equal(is.MACs(), will.MACs()):
		// xl makes a new address for a card without one, and the guest takes it.
		return differs("network addresses (mac= in vif)", is.MACs(), will.MACs())
	}
	return m.choose(ctx, is.Create.Type)
}

// choose finds the way: a migration where that is possible, as its pause is shorter.
func (m *moving) choose(ctx context.Context, kind string) error {
	m.method = byRestore
	info, err := xl.Host(ctx, m.e.Runner)
	if err != nil {
		return err
	}
	switch need := imageSize(m.now.Memory); {
	case !info.LogDirty(kind):
		m.e.Infof("xl save and restore, because this hypervisor (Xen %s) cannot migrate a guest of type %s", info.Version, kind)
	case info.Free < need:
		m.e.Infof("xl save and restore, because Xen has only %s of free memory, and a migration needs %s", info.Free, need)
	default:
		m.method = byMigrate
	}
	if m.method == byRestore {
		return m.findRoom(ctx)
	}
	return nil
}

// imageSize is about what a guest's memory takes, saved or a second time: a little
// more than the memory itself.
func imageSize(memory units.Bytes) units.Bytes { return memory + memory/64 + 16<<20 }

// spare is what is left to the host in its memory.
const spare = 128 << 20

// findRoom finds a place for the memory.
func (m *moving) findRoom(ctx context.Context) error {
	need := imageSize(m.now.Memory)
	free, err := m.c.memory(ctx)
	if err != nil {
		return err
	}
	if room, err := m.c.free(ctx, m.c.tmpfs); err == nil && room >= need && free >= need+spare {
		m.dir = m.c.tmpfs
		return nil
	}
	disk := existing(m.d.journal.Dir)
	room, err := m.c.free(ctx, disk)
	if err != nil {
		return err
	}
	if room < need {
		return fault.Hint(fault.Refuse("cannot move %s live: its memory takes %s, and there is not as much in this host's memory (%s) nor in %s (%s)", m.d.name, need, free, disk, room),
			"make room in %s, or let it restart: domuswitch restart %s, image-to-lv --plan mirror %[2]s", disk, run.Quote(m.d.name))
	}
	m.dir = m.d.journal.Dir
	return nil
}

// run does it.
func (m *moving) run(ctx context.Context) error {
	if err := m.move(ctx); err != nil {
		return err
	}
	if m.e.DryRun {
		if m.changesFile() && !m.e.JSON {
			if err := m.file.steps().Print(m.e.Stdout); err != nil {
				return err
			}
		}
		m.out.Changed = true
		return m.done()
	}
	return m.finish(ctx)
}

// move is the part with the pause.
func (m *moving) move(ctx context.Context) error {
	cfg := m.d.temp("next.cfg")
	m.up = m.c.starting(m.e, m.d, m.next, xl.RestorePausedOn(cfg, m.memory()))
	m.up.was = m.now
	if m.method == byMigrate || m.allowed {
		return m.migrate(ctx, cfg)
	}
	return m.saveAndRestore(ctx)
}

// finish is for a domain that runs on its new disks.
func (m *moving) finish(ctx context.Context) error {
	if !m.began.IsZero() {
		pause := m.up.running.Sub(m.began)
		m.e.Infof("%s paused for %s (expected: %s)", m.d.name, shortly(pause), shortly(m.expected))
		m.out.Pause, m.out.Expected = new(pause.Seconds()), new(m.expected.Seconds())
		was := pausedFor{Domain: m.up.dom, Method: m.method, Seconds: pause.Seconds()}
		was.Domain.Memory = m.now.Memory
		if err := m.d.journal.Append(journal.KindPaused, was); err != nil {
			m.e.Printf("%v", err) // nothing needs the record
		}
	}
	m.out.Method = m.method
	if err := m.settle(ctx, false); err != nil {
		return err
	}
	m.out.Changed = true
	return m.done()
}
