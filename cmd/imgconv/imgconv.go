package main

import (
	"context"
	"flag"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/u-root/u-root/pkg/uroot/unixflag"

	"xenlvm/lib/cli"
	"xenlvm/lib/convert"
	"xenlvm/lib/directio"
	"xenlvm/lib/diskimg"
	"xenlvm/lib/fault"
	"xenlvm/lib/journal"
	"xenlvm/lib/run"
	"xenlvm/lib/snap"
	"xenlvm/lib/units"
	"xenlvm/lib/xl"
)

// options are the flags.
type options struct {
	snapshot, final, overwrite, whole   bool
	keepBase, dropBase, clone           bool
	to                                  unixflag.StringArray
	config, xenDir, stateDir, passes    string
	method, format, size, extend, limit string
	verify                              string
	maxDown                             float64 // seconds, 0: no limit
	direct                              directio.Mode
}

func tool() cli.Tool {
	var o options
	return cli.Tool{
		Name:       "imgconv",
		Summary:    "copy disk images onto logical volumes while their domain runs; again: only what changed",
		Deliberate: []string{"overwrite"},
		Flags: func(fs *flag.FlagSet) {
			fs.BoolVar(&o.snapshot, "snapshot", false, "copy all image files of the domain from one LVM snapshot, or without LVM from clones (xfs, btrfs), and print the mapping lines")
			fs.Var(&o.to, "to", "where disks go: `VG`, VDEV=VG or VDEV=VG/LV; repeatable (default: as in the earlier run)")
			fs.BoolVar(&o.final, "final", false, "the final pass: refuse unless the domain is stopped, and stays so")
			fs.BoolVar(&o.clone, "clone", false, "copy from clones of the images (xfs, btrfs), also where a snapshot could be taken")
			fs.BoolVar(&o.keepBase, "keep-base", false, "keep the snapshot or clones, so that the next pass reads only what changed since")
			fs.BoolVar(&o.dropBase, "drop-base", false, "copy nothing, but remove the snapshot or clones that --keep-base kept")
			fs.StringVar(&o.passes, "passes", "1", "make `N` passes, or auto: as many as make the next one short")
			fs.Float64Var(&o.maxDown, "max-interruption", 0, "with --keep-base: fail unless the domain is expected to be down for at most `SECONDS`; makes passes until it is")
			fs.StringVar(&o.method, "method", "auto", "`METHOD` of copying: auto, files or blocks")
			fs.StringVar(&o.size, "snapshot-size", snap.DefaultCOW, "COW space of a thick snapshot, room in the pool of a thin one: a `SIZE` such as 5G, or a share of the origin such as 10%ORIGIN")
			fs.StringVar(&o.extend, "snapshot-extend", "", "extend the snapshot by this `SIZE` or share of the origin when it is 70 % full")
			fs.BoolVar(&o.overwrite, "overwrite", false, "destroy what the destination holds")
			fs.BoolVar(&o.whole, "whole", false, "by blocks: copy the free blocks of the guest's file systems, too")
			fs.StringVar(&o.verify, "verify", "", "read back and compare this `PART` of the destination: full, sample or none (default: full, and after a delta what was written)")
			fs.Var(&o.direct, "direct", "go past the page cache: `MODE` auto (what is in memory is read from there), on or off")
			fs.StringVar(&o.format, "format", "", "`FORMAT` of SOURCE: raw or qcow2 (default: raw, and a file that looks like anything else is refused)")
			fs.StringVar(&o.limit, "bwlimit", "", "read at most this `SIZE` a second, such as 50M (a plain number is bytes), also to compare and verify")
			fs.StringVar(&o.config, "config", "", "configuration `FILE` of the domain (default: found below --xen-dir)")
			fs.StringVar(&o.xenDir, "xen-dir", xl.ConfigDir, "`DIR` with the configurations of all domains")
			fs.StringVar(&o.stateDir, "state-dir", journal.DefaultDir, "`DIR` with the journals of all domains, and what is known of interrupted copies")
		},
		Verbs: []cli.Verb{{
			Args: "--snapshot DOMAIN | SOURCE DESTINATION", Min: 1, Max: 2,
			Summary: "copy a running domain's images onto volumes, or one image or device onto another",
			Flags:   allFlags, Run: o.run,
		}},
	}
}

// leastRate is what a plain number that was meant as KiB or MiB a second is below.
const leastRate units.Bytes = 64 << 10

var allFlags = append(append([]string{}, snapshotFlags...), "snapshot", "overwrite", "whole", "verify", "direct", "bwlimit", "format", "state-dir")

// snapshotFlags mean nothing without --snapshot.
var snapshotFlags = []string{"to", "final", "method", "clone", "snapshot-size", "snapshot-extend", "keep-base", "drop-base", "passes", "max-interruption", "config", "xen-dir"}

func (o *options) run(ctx context.Context, e *cli.Env, args []string) error {
	var rate int64
	if o.limit != "" {
		limit, err := units.Parse(o.limit)
		if err != nil {
			return fault.With(fault.Usage, err)
		}
		if limit < leastRate {
			return fault.BadUsage("--bwlimit %s is %d bytes a second, which would not end: want 64K at least", o.limit, limit)
		}
		rate = int64(limit)
	}
	if !slices.Contains([]string{"", string(diskimg.Raw), string(diskimg.Qcow2)}, o.format) {
		return fault.BadUsage("unknown --format %q: want raw or qcow2", o.format)
	}
	if err := convert.Verify(o.verify).Check(); err != nil {
		return err
	}
	switch {
	case slices.Contains(args, ""):
		return fault.BadUsage("an argument is empty: perhaps a variable that is not set")
	case o.snapshot && o.format != "":
		return fault.BadUsage("--format means nothing with --snapshot: the configuration says it")
	case o.dropBase && !o.snapshot && len(args) == 1:
		return fault.Hint(fault.BadUsage("--drop-base means nothing without --snapshot"), "imgconv --snapshot --drop-base %s", run.Quote(args[0]))
	case o.dropBase && (o.keepBase || len(o.to) > 0):
		return fault.BadUsage("--drop-base copies nothing: --keep-base and --to mean nothing with it")
	case o.snapshot && len(args) == 1:
		return o.runSnapshot(ctx, e, args[0], rate)
	case o.snapshot:
		return fault.BadUsage("--snapshot wants one DOMAIN, got %d arguments", len(args))
	case len(args) == 2:
		for _, name := range snapshotFlags {
			if e.Given(name) {
				return fault.BadUsage("--%s means nothing without --snapshot", name)
			}
		}
		return o.runPlain(ctx, e, args[0], args[1], rate)
	}
	return fault.Hint(fault.BadUsage("want SOURCE DESTINATION, or --snapshot DOMAIN"), "imgconv --snapshot %s", run.Quote(args[0]))
}

// conversion checks the flags of --snapshot.
func (o *options) conversion(domain string, rate int64) (convert.Options, error) {
	c := convert.Options{
		Domain: domain, Config: o.config, XenDir: o.xenDir, StateDir: o.stateDir, To: o.to, Method: convert.Method(o.method),
		Overwrite: o.overwrite, Final: o.final, Whole: o.whole, Clone: o.clone, Verify: convert.Verify(o.verify), Direct: o.direct, Rate: rate,
	}
	if !slices.Contains([]convert.Method{convert.Auto, convert.Files, convert.Blocks}, c.Method) {
		return c, fault.BadUsage("unknown --method %q: want auto, files or blocks", o.method)
	}
	var err error
	if c.SnapshotSize, err = units.ParseShare(o.size); err != nil {
		return c, fault.With(fault.Usage, err)
	}
	if o.extend != "" {
		by, err := units.ParseShare(o.extend)
		if err != nil {
			return c, fault.With(fault.Usage, err)
		}
		c.Extend = snap.Extension{At: snap.DefaultExtendAt, By: by}
	}
	if strings.Contains(domain, "/") {
		name := strings.TrimSuffix(filepath.Base(domain), ".cfg")
		return c, fault.Hint(fault.BadUsage("cannot use domain name %q: it is a path", domain), "imgconv --snapshot --config %s %s", run.Quote(domain), run.Quote(name))
	}
	if err := convert.CheckTo(o.to); err != nil {
		return c, err
	}
	return c, xl.CheckName(domain)
}

// reporter shows a conversion on standard error.
type reporter struct{ *cli.Env }

func (r reporter) Phase(what string) convert.Phase { return r.Progress(what) }

// howMuch says what one disk's pass did.
func howMuch(d *convert.Disk) string {
	r := d.Result
	var b strings.Builder
	fmt.Fprintf(&b, "%s: ", d.VDev)
	if r.Delta != "" {
		fmt.Fprintf(&b, "delta by %s: ", r.Delta)
	}
	b.WriteString(amounts(r.BytesRead, r.BytesWritten, r.BytesZeroed, r.Size))
	if r.Seconds > 0 {
		fmt.Fprintf(&b, " in %.1f s", r.Seconds)
	}
	if r.Verified != "" {
		fmt.Fprintf(&b, "; %s", r.Verified)
	}
	if r.Entries > 0 {
		fmt.Fprintf(&b, "; %d files and directories, digest %s", r.Entries, r.Digest)
	}
	return b.String()
}

// amounts says what was done, in bytes: what became zero may lie behind the source, and
// a part of that may be read twice.
func amounts(read, written, zeroed, size int64) string {
	s := fmt.Sprintf("read %s of %s, wrote %s", units.Bytes(read), units.Bytes(size), units.Bytes(written))
	if zeroed > 0 {
		s += fmt.Sprintf(", made %s of the destination zero", units.Bytes(zeroed))
	}
	return s
}
