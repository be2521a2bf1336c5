package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"xenlvm/lib/blkdev"
	"xenlvm/lib/cli"
	"xenlvm/lib/fault"
	"xenlvm/lib/host"
	"xenlvm/lib/lvm"
	"xenlvm/lib/run"
	"xenlvm/lib/snap"
	"xenlvm/lib/step"
	"xenlvm/lib/units"
)

// options are the flags.
type options struct {
	size, name, image, extend, file string
	at                              float64
}

func tool() cli.Tool {
	var o options
	return cli.Tool{
		Name:    "lvsnap",
		Summary: "LVM snapshots to copy from: create, mount, list, watch, remove, and see what changed",
		Flags: func(fs *flag.FlagSet) {
			fs.StringVar(&o.size, "size", snap.DefaultCOW, "COW space of a thick snapshot, or room in the pool of a thin one: a `SIZE` such as 5G, or a share of the origin such as 10%ORIGIN")
			fs.StringVar(&o.name, "name", "", "`NAME` of the snapshot (default: ORIGIN-snap)")
			fs.StringVar(&o.image, "image", "", "mount the file system inside the image at this `PATH` of the snapshot, by way of a read-only loop device")
			fs.StringVar(&o.file, "file", "", "what changed in the file at this `PATH` of the origin's file system, not on all of the origin")
			fs.StringVar(&o.extend, "extend", "", "extend the snapshot by this `SIZE` or share of the origin whenever it is --at full")
			fs.Float64Var(&o.at, "at", snap.DefaultExtendAt, "`PERCENT` in use at which --extend extends")
		},
		Verbs: []cli.Verb{
			{Name: "create", Args: "VG/LV", Min: 1, Max: 1, Summary: "create a read-only snapshot of VG/LV and print its device", Flags: []string{"size", "name"}, Run: o.create},
			{Name: "mount", Args: "VG/SNAP DIR", Min: 2, Max: 2, Summary: "mount a snapshot, or an image inside it, read-only on DIR", Flags: []string{"image"}, Run: o.mount},
			{Name: "list", Args: "[VG]", Max: 1, Summary: "list snapshots: SNAPSHOT ORIGIN SIZE USED STATE OWNER, separated by TAB", Run: o.list},
			{Name: "watch", Args: "VG/SNAP", Min: 1, Max: 1, Summary: "look at a snapshot every second until it is removed; fail at once when it is lost, or its thin pool nearly full", Flags: []string{"extend", "at"}, Run: o.watch},
			{Name: "changed", Args: "VG/SNAP", Min: 1, Max: 1, Summary: "print what changed on the origin since the snapshot was taken, as lines OFFSET LENGTH in bytes", Flags: []string{"file"}, Run: o.changed},
			{Name: "remove", Args: "VG/SNAP", Min: 1, Max: 1, Summary: "remove a snapshot of ours with all mounts and loop devices on it", Run: o.remove},
		},
	}
}

// find is the volume that spec names. Everything that lvsnap does needs root
// and lvm2.
func find(ctx context.Context, e *cli.Env, spec string) (lvm.LV, error) {
	vg, name, err := lvm.SplitSpec(spec)
	if err != nil {
		return lvm.LV{}, err
	}
	if err := host.NeedRoot("use LVM"); err != nil {
		return lvm.LV{}, err
	}
	lv, found, err := lvm.Find(ctx, e.Runner, vg, name)
	if err == nil && !found {
		err = fault.Hint(fault.Refuse("cannot find volume %s/%s", vg, name), "lvs %s", vg)
	}
	return lv, err
}

// needGroup refuses a volume group that is not there: its name may be mistyped.
func needGroup(ctx context.Context, e *cli.Env, vg string) error {
	_, found, err := lvm.FindVG(ctx, e.Runner, vg)
	if err == nil && !found {
		err = fault.Hint(fault.Refuse("cannot find volume group %s", vg), "vgs")
	}
	return err
}

// findSnapshot is find for a snapshot that can still be read.
func findSnapshot(ctx context.Context, e *cli.Env, spec string) (lvm.LV, error) {
	lv, err := find(ctx, e, spec)
	switch {
	case err != nil:
		return lv, err
	case lv.Origin == "":
		return lv, fault.Refuse("cannot use %s: it is not a snapshot", lv.Spec())
	}
	return lv, nil
}

// lost refuses to do something with a snapshot that overflowed.
func lost(do string, lv lvm.LV) error {
	return fault.Hint(fault.Refuse("cannot %s snapshot %s: %w", do, lv.Spec(), lvm.ErrLost), "lvsnap remove %s", lv.Spec())
}

func (o *options) create(ctx context.Context, e *cli.Env, args []string) error {
	share, err := units.ParseShare(o.size)
	if err != nil {
		return fault.With(fault.Usage, err)
	}
	origin, err := find(ctx, e, args[0])
	if err != nil {
		return err
	}
	name := o.name
	if name == "" {
		name = origin.Name + "-snap"
	}
	plan, lv, err := snap.Request{Origin: origin, Name: name, COW: share, Reuse: true}.Plan(ctx, e.Runner)
	if err != nil {
		return err
	}
	if plan == nil {
		e.Infof("nothing to do: snapshot %s exists", lv.Spec())
	}
	if err := e.Apply(ctx, plan); err != nil {
		return err
	}
	if e.JSON {
		return e.Delivered(e.Emit(map[string]any{"changed": plan != nil, "snapshot": lv.Spec(), "origin": origin.Spec(), "device": lv.Path, "cow_bytes": lv.COW}))
	}
	if e.DryRun {
		return nil
	}
	_, err = fmt.Fprintln(e.Stdout, lv.Path)
	return e.Delivered(err)
}

func (o *options) mount(ctx context.Context, e *cli.Env, args []string) error {
	lv, err := findSnapshot(ctx, e, args[0])
	if err != nil {
		return err
	}
	if lv.Invalid {
		return lost("mount", lv)
	}
	point, err := filepath.Abs(args[1])
	if err != nil {
		return err
	}
	if entries, err := os.ReadDir(point); err == nil && len(entries) > 0 {
		return fault.Refuse("cannot mount on %s: it is not empty", point)
	}
	fsType, err := snap.FileSystem(lv.Path)
	if err != nil {
		return err
	}
	plan := step.Plan{snap.Mounting(lv.Path, fsType, point)}
	if o.image != "" {
		if plan, err = o.mountImage(lv, fsType, point); err != nil {
			return err
		}
	}
	if err := e.Apply(ctx, plan); err != nil {
		return err
	}
	if e.JSON {
		return e.Delivered(e.Emit(map[string]any{"changed": true, "snapshot": lv.Spec(), "mounted": point}))
	}
	if e.DryRun {
		return nil
	}
	_, err = fmt.Fprintln(e.Stdout, point)
	return e.Delivered(err)
}

func (o *options) list(ctx context.Context, e *cli.Env, args []string) error {
	if err := host.NeedRoot("use LVM"); err != nil {
		return err
	}
	selection := `origin!=""`
	if len(args) == 1 {
		if err := lvm.CheckName(args[0]); err != nil {
			return err
		}
		if err := needGroup(ctx, e, args[0]); err != nil {
			return err
		}
		selection += fmt.Sprintf(` && vg_name="%s"`, args[0])
	}
	lvs, err := lvm.LVs(ctx, e.Runner, selection)
	if err != nil {
		return err
	}
	type entry struct {
		Snapshot string      `json:"snapshot"`
		Origin   string      `json:"origin"`
		Size     units.Bytes `json:"size_bytes"`
		COW      units.Bytes `json:"cow_bytes"`
		Used     float64     `json:"used_percent"`
		State    string      `json:"state"`
		Owner    string      `json:"owner"`
	}
	entries := []entry{}
	for _, v := range lvs {
		en := entry{v.Spec(), v.VG + "/" + v.Origin, v.Size, v.COW, v.Used, "valid", "foreign"}
		switch {
		case v.Invalid:
			en.State = "lost"
		case !v.Active:
			en.State = "inactive"
		}
		if v.Tagged(lvm.TagSnapshot) {
			en.Owner = "xenlvm"
		}
		entries = append(entries, en)
	}
	if e.JSON {
		return e.Delivered(e.Emit(map[string]any{"changed": false, "snapshots": entries}))
	}
	var b strings.Builder
	for _, en := range entries {
		fmt.Fprintf(&b, "%s\t%s\t%d\t%.2f%%\t%s\t%s\n", en.Snapshot, en.Origin, en.Size, en.Used, en.State, en.Owner)
	}
	_, err = fmt.Fprint(e.Stdout, b.String())
	return e.Delivered(err)
}

func (o *options) watch(ctx context.Context, e *cli.Env, args []string) error {
	var x snap.Extension
	if o.extend != "" {
		share, err := units.ParseShare(o.extend)
		if err != nil {
			return fault.With(fault.Usage, err)
		}
		if !(o.at > 0 && o.at < 100) {
			return fault.BadUsage("--at wants a percentage between 0 and 100, not %g", o.at)
		}
		x = snap.Extension{At: o.at, By: share}
	}
	lv, err := findSnapshot(ctx, e, args[0])
	if err != nil {
		return err
	}
	if e.DryRun {
		_, err := fmt.Fprintf(e.Stdout, "while sleep 1; do %s; done\n", run.Quote("dmsetup", "status", lv.DMPath))
		return err
	}
	last := units.Bytes(-1)
	err = snap.Watch(ctx, e.Runner, lv, x, func(u lvm.Usage, trouble error) {
		if trouble != nil {
			e.Printf("%v", trouble)
		}
		if u.Used != last && !e.JSON {
			fmt.Fprintf(e.Stdout, "%s\t%d\t%d\t%.2f%%\n", lv.Spec(), u.Used, u.Size, u.Percent())
		}
		last = u.Used
	})
	if err == nil && e.JSON {
		return e.Delivered(e.Emit(map[string]any{"changed": false, "snapshot": lv.Spec(), "used_bytes": last}))
	}
	if errors.Is(err, lvm.ErrPoolFull) {
		err = fault.Hint(err, "lvsnap remove %s", lv.Spec())
	}
	return err
}

func (o *options) remove(ctx context.Context, e *cli.Env, args []string) error {
	vg, name, err := lvm.SplitSpec(args[0])
	if err != nil {
		return err
	}
	if err := host.NeedRoot("use LVM"); err != nil {
		return err
	}
	lv, found, err := lvm.Find(ctx, e.Runner, vg, name)
	if err != nil {
		return err
	}
	if !found {
		if err := needGroup(ctx, e, vg); err != nil {
			return err
		}
		e.Infof("nothing to do: there is no snapshot %s/%s", vg, name)
		if e.JSON {
			return e.Delivered(e.Emit(map[string]any{"changed": false, "snapshot": vg + "/" + name}))
		}
		return nil
	}
	if lv.Origin == "" || !lv.Tagged(lvm.TagSnapshot) {
		return fault.Hint(fault.Refuse("cannot remove %s: it is not a snapshot made by us (no tag %s)", lv.Spec(), lvm.TagSnapshot), "lvremove %s, if you are sure", lv.Spec())
	}
	plan, err := snap.Removal(e.Runner, lv)
	if err != nil {
		return err
	}
	if err := e.Apply(ctx, plan); err != nil {
		return err
	}
	if e.JSON {
		return e.Delivered(e.Emit(map[string]any{"changed": true, "snapshot": lv.Spec()}))
	}
	return nil
}

// number is the device number of an active volume.
func number(v lvm.LV) blkdev.Number { return blkdev.Number{Major: v.Major, Minor: v.Minor} }
