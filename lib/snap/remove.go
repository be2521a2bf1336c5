package snap

import (
	"context"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"xenlvm/lib/blkdev"
	"xenlvm/lib/loopdev"
	"xenlvm/lib/lvm"
	"xenlvm/lib/mnt"
	"xenlvm/lib/run"
	"xenlvm/lib/step"
)

// Removal is the plan that takes the snapshot away with everything that stands
// on it: the file systems of images inside it, their loop devices, its own
// mounts. What belongs to it is found by device numbers, so that it works after
// a crash, too, when nobody remembers what was mounted where.
func Removal(r run.Runner, v lvm.LV) (step.Plan, error) {
	plan, err := Clearance(blkdev.Number{Major: v.Major, Minor: v.Minor}, v.Active)
	if err != nil {
		return nil, err
	}
	return append(plan, step.Command(r, "remove snapshot "+v.Spec(), lvm.Remove(v.Spec()), run.Cmd{})), nil
}

// Clearance is the plan that unmounts a device everywhere, and detaches the
// loop devices whose files live on it.
func Clearance(n blkdev.Number, active bool) (step.Plan, error) {
	if !active {
		return nil, nil
	}
	mounts, err := mnt.List()
	if err != nil {
		return nil, err
	}
	// Files of btrfs have a device number of their own: there the path tells.
	onMount := func(file string) bool {
		return slices.ContainsFunc(mounts, func(m mnt.Info) bool { return m.Device == n.String() && strings.HasPrefix(file, m.Point+"/") })
	}
	loops, err := loopdev.List(func(d loopdev.Device) bool { return d.Dev == n || onMount(d.File) })
	if err != nil {
		return nil, err
	}
	return append(detaching(loops, mounts), unmounting(n, mounts)...), nil
}

// detaching is the plan that detaches loop devices, and unmounts what is mounted from
// them before.
func detaching(loops []*loopdev.Device, mounts []mnt.Info) step.Plan {
	var plan step.Plan
	for _, l := range loops {
		var st unix.Stat_t
		if unix.Stat(l.Path, &st) == nil {
			plan = append(plan, unmounting(blkdev.NumberOf(st.Rdev), mounts)...)
		}
		plan = append(plan, step.Step{
			What: "detach " + l.Path + " from " + l.File, Line: run.Quote("losetup", "--detach", l.Path), Do: l.Detach,
		})
	}
	return plan
}

// unmounting is the plan that unmounts a device from where it is mounted.
func unmounting(n blkdev.Number, mounts []mnt.Info) step.Plan {
	var plan step.Plan
	for i := len(mounts) - 1; i >= 0; i-- {
		if m := mounts[i]; m.Device == n.String() {
			plan = append(plan, Unmounting(m.Point))
		}
	}
	return plan
}

// Unmounting is the step that unmounts point.
func Unmounting(point string) step.Step {
	return step.Step{
		What: "unmount " + point, Line: mnt.Mount{Point: point}.UndoLine(),
		Do: func(context.Context) error { return mnt.Unmount(point) },
	}
}

// Under is the plan that unmounts everything below the directory dir, which is
// ours alone.
func Under(dir string) (step.Plan, error) {
	mounts, err := mnt.List()
	if err != nil {
		return nil, err
	}
	var plan step.Plan
	for i := len(mounts) - 1; i >= 0; i-- {
		if strings.HasPrefix(mounts[i].Point, filepath.Clean(dir)+"/") {
			plan = append(plan, Unmounting(mounts[i].Point))
		}
	}
	return plan, nil
}
