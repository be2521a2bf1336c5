package main

import (
	"flag"
	"slices"

	"github.com/u-root/u-root/pkg/uroot/unixflag"

	"xenlvm/lib/cli"
	"xenlvm/lib/convert"
	"xenlvm/lib/fault"
	"xenlvm/lib/journal"
	"xenlvm/lib/mapping"
	"xenlvm/lib/units"
	"xenlvm/lib/xl"
)

// command is mdmirror: its flags.
type command struct {
	xenDir, stateDir, config, limit string
	to                              unixflag.StringArray
	presync, overwrite, noVerify    bool
	checkAdd                        bool
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
				Flags: with("to", "bwlimit", "overwrite", "check-add"), Run: c.build},
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
	fs.BoolVar(&c.checkAdd, "check-add", false, "refuse now what add would refuse: also when no --to says where disks go")
	fs.BoolVar(&c.overwrite, "overwrite", false, "destroy what the volumes hold")
	fs.BoolVar(&c.presync, "presync", false, "copy first, skipping holes and zeros, and mirror only what is written meanwhile")
	fs.StringVar(&c.stateDir, "state-dir", journal.DefaultDir, "`DIR` with the journals of all domains")
	fs.Var(&c.to, "to", "where disks go: `VG`, VDEV=VG or VDEV=VG/LV; repeatable. A disk on a block device is mirrored only when it is named")
	fs.StringVar(&c.xenDir, "xen-dir", xl.ConfigDir, "`DIR` with the configurations of all domains")
}

func (c *command) options(domain string) convert.Options {
	return convert.Options{Domain: domain, Config: c.config, XenDir: c.xenDir, StateDir: c.stateDir, To: c.to, Overwrite: c.overwrite}
}

// configFile is the configuration of the domain.
func (c *command) configFile(domain string) (string, error) {
	if c.config != "" {
		return c.config, nil
	}
	return xl.FindConfig(c.xenDir, domain)
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
