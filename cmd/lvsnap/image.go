package main

import (
	"context"
	"os"
	"path/filepath"

	"xenlvm/lib/fault"
	"xenlvm/lib/lvm"
	"xenlvm/lib/mnt"
	"xenlvm/lib/snap"
	"xenlvm/lib/step"
)

// mountsDir is where a snapshot is mounted when only an image in it was asked for.
const mountsDir = "/run/xenlvm/lvsnap" // domains have theirs in convert.RunDir

// mountOurs plans the mount of the snapshot on a directory of ours, unless it is
// mounted there already.
func mountOurs(lv lvm.LV, fsType string) (base string, plan step.Plan, err error) {
	base = filepath.Join(mountsDir, lv.VG+"-"+lv.Name)
	mounts, err := mnt.List()
	if err != nil {
		return "", nil, err
	}
	for _, m := range mounts {
		if m.Point == base && m.Device == number(lv).String() {
			return base, nil, nil
		}
	}
	return base, step.Plan{snap.Mounting(lv.Path, fsType, base)}, nil
}

// mountImage plans the mounts of the snapshot and of the image inside it. The
// image's file system can only be seen once the snapshot is mounted, so what
// comes behind that is planned by the step itself.
func (o *options) mountImage(lv lvm.LV, fsType, point string) (step.Plan, error) {
	if !filepath.IsLocal(filepath.Clean(o.image)) && !filepath.IsAbs(o.image) {
		return nil, fault.BadUsage("--image wants a path inside the snapshot, not %q", o.image)
	}
	base, plan, err := mountOurs(lv, fsType)
	if err != nil {
		return nil, err
	}
	image := filepath.Join(base, filepath.Clean("/"+o.image))
	var inner step.Plan
	attach := snap.ImageMounting(image, "auto", "", point, "loop")
	plan = append(plan, step.Step{
		What: "look into " + image,
		Do: func(context.Context) error {
			if _, err := os.Lstat(image); err != nil {
				return fault.Refuse("cannot find the image %s in snapshot %s", o.image, lv.Spec())
			}
			t, err := snap.FileSystem(image)
			if err == nil {
				inner = snap.ImageMounting(image, t, mnt.ReadOnly(t), point, "loop")
			}
			return err
		},
	})
	for i, s := range attach {
		s.Do = func(ctx context.Context) error { return inner[i].Do(ctx) }
		s.Undo = func(ctx context.Context) error { return inner[i].Undo(ctx) }
		plan = append(plan, s)
	}
	return plan, nil
}
