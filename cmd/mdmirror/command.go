package main

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/u-root/u-root/pkg/uroot/unixflag"

	"xenlvm/lib/cli"
	"xenlvm/lib/convert"
	"xenlvm/lib/fault"
	"xenlvm/lib/host"
	"xenlvm/lib/journal"
	"xenlvm/lib/mapping"
	"xenlvm/lib/mirror"
	"xenlvm/lib/units"
	"xenlvm/lib/xl"
	"xenlvm/lib/xlcfg"
)

// command is mdmirror: its flags.
type command struct {
	xenDir, stateDir, config, limit string
	to                              unixflag.StringArray
	presync, overwrite, noVerify    bool
}

func newCommand() *command { return &command{} }

func (c *command) tool() cli.Tool {
	common := []string{"config", "state-dir", "xen-dir"}
	with := func(more ...string) []string { return slices.Sorted(slices.Values(append(more, common...))) }
	const what = "DOMAIN | IMAGE | DEVICE"
	return cli.Tool{
		Name: "mdmirror", Summary: "mirror the disks of a domain onto logical volumes while it writes to them",
		Flags: c.flags, Deliberate: []string{"overwrite", "no-verify"},
		Verbs: []cli.Verb{
			{Name: "build", Args: what, Min: 1, Max: 1, Summary: "make the devices that the domain must use; print them as mapping lines",
				Flags: with("to"), Run: c.build},
			{Name: "add", Args: "DOMAIN | IMAGE | DEVICE [VG/LV]", Min: 1, Max: 2, Summary: "add the volumes, and let them be filled",
				Flags: with("to", "bwlimit", "presync", "overwrite"), Run: c.add},
			{Name: "wait", Args: what, Min: 1, Max: 1, Summary: "wait until image and volume are equal, and stay so",
				Flags: with(), Run: c.wait},
			{Name: "status", Args: "[" + what + "]", Min: 0, Max: 1, Summary: "print the members, and what is going on; the exit status says it, too",
				Flags: with(), Run: c.status},
			{Name: "verify", Args: what, Min: 1, Max: 1, Summary: "compare image and volume while the domain writes",
				Flags: with("bwlimit"), Run: c.verify},
			{Name: "finish", Args: what, Min: 1, Max: 1, Summary: "put the domain onto the volumes, under I/O, and take the mirrors down",
				Flags: with("bwlimit", "no-verify"), Run: c.finish},
			{Name: "abort", Args: what, Min: 1, Max: 1, Summary: "put the domain back onto its images, and take the mirrors down",
				Flags: with(), Run: c.abort},
		},
	}
}

func (c *command) flags(fs *flag.FlagSet) {
	fs.StringVar(&c.limit, "bwlimit", "", "fill, or compare, at most this `SIZE` a second (default: as fast as it goes)")
	fs.StringVar(&c.config, "config", "", "configuration `FILE` of the domain (default: found below --xen-dir)")
	fs.BoolVar(&c.noVerify, "no-verify", false, "do not compare image and volume first")
	fs.BoolVar(&c.overwrite, "overwrite", false, "destroy what the volumes hold")
	fs.BoolVar(&c.presync, "presync", false, "copy first, skipping holes and zeros, and mirror only what is written meanwhile")
	fs.StringVar(&c.stateDir, "state-dir", journal.DefaultDir, "`DIR` with the journals of all domains")
	fs.Var(&c.to, "to", "where disks go: `VG`, VDEV=VG or VDEV=VG/LV; repeatable. A disk on a block device is mirrored only when it is named")
	fs.StringVar(&c.xenDir, "xen-dir", xl.ConfigDir, "`DIR` with the configurations of all domains")
}

// target is what a verb works on: the mirrors of a domain, or one of them.
type target struct {
	domain  string
	vdev    string // "" for all
	journal *journal.Journal
	known   []mirror.Known // that were not taken down
	ended   bool           // there were others
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
	if err := t.read(); err != nil {
		release()
		return nil, nil, err
	}
	return t, release, nil
}

// read reads the journal again.
func (t *target) read() error {
	records, err := t.journal.Read()
	if err != nil {
		return err
	}
	t.known, t.ended = nil, false
	for _, k := range mirror.Remember(t.domain, records) {
		switch {
		case !t.wants(k.VDev):
		case k.Ended:
			t.ended = true
		default:
			t.known = append(t.known, k)
		}
	}
	return nil
}

// resolve says which domain, and which of its disks, arg names.
func (c *command) resolve(tool, arg string) (domain, vdev string, err error) {
	if !strings.HasPrefix(arg, "/") {
		return arg, "", xl.CheckName(arg)
	}
	entries, err := os.ReadDir(c.stateDir)
	if err != nil && !os.IsNotExist(err) {
		return "", "", err
	}
	for _, entry := range entries {
		j, err := journal.Open(c.stateDir, entry.Name(), tool)
		if err != nil {
			continue
		}
		records, err := j.Read()
		if err != nil {
			continue // of another domain, which its own runs will say
		}
		for _, k := range mirror.Remember(entry.Name(), records) {
			if !k.Ended && (arg == k.Path() || arg == k.Source) {
				return k.Domain, k.VDev, nil
			}
		}
	}
	same := func(target string) bool {
		a, errA := filepath.EvalSymlinks(target)
		b, errB := filepath.EvalSymlinks(arg)
		return errA == nil && errB == nil && a == b
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

func (c *command) options(domain string) convert.Options {
	return convert.Options{Domain: domain, Config: c.config, XenDir: c.xenDir, StateDir: c.stateDir, To: c.to, Overwrite: c.overwrite}
}

// rate is --bwlimit, 0 for none.
func (c *command) rate() (units.Bytes, error) {
	if c.limit == "" {
		return 0, nil
	}
	n, err := units.Parse(c.limit)
	if err != nil {
		return 0, fault.With(fault.Usage, err)
	}
	if n == 0 {
		return 0, fault.BadUsage("--bwlimit 0 would never end")
	}
	return n, nil
}

// reporter shows what convert does on standard error.
type reporter struct{ *cli.Env }

func (r reporter) Phase(what string) convert.Phase { return r.Progress(what) }

// present prints the mapping lines, or the result with --json.
func present(e *cli.Env, changed bool, lines []mapping.Line, more map[string]any) error {
	if e.JSON {
		doc := map[string]any{"changed": changed, "disks": lines}
		for k, v := range more {
			doc[k] = v
		}
		return e.Delivered(e.Emit(doc))
	}
	if e.DryRun {
		return nil
	}
	return e.Delivered(mapping.Write(e.Stdout, lines))
}
