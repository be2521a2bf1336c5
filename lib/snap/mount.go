package snap

import (
	"context"
	"fmt"
	"os"

	"xenlvm/lib/diskimg"
	"xenlvm/lib/fault"
	"xenlvm/lib/loopdev"
	"xenlvm/lib/mnt"
	"xenlvm/lib/run"
	"xenlvm/lib/step"
)

// Mounting is the step that mounts the file system on device read-only on point.
func Mounting(device, fsType, point string) step.Step {
	m := mnt.Mount{Device: device, Point: point, Type: fsType, Data: mnt.ReadOnly(fsType)}
	return step.Step{
		What: "mount " + device + " read-only on " + point,
		Line: m.Line(""), UndoLine: m.UndoLine(),
		Do:   func(context.Context) error { return m.Do() },
		Undo: func(context.Context) error { return m.Undo() },
	}
}

// ImageMounting is the steps that attach an image read-only to a loop device and
// mount the file system of type fsType in it with the options data on point. The image need not exist
// when the plan is made: it may lie on a snapshot that an earlier step mounts.
// In the lines for the shell the loop device is the variable named variable.
func ImageMounting(image, fsType, data, point, variable string) step.Plan {
	var loop *loopdev.Device
	device := `"$` + variable + `"`
	m := mnt.Mount{Point: point, Type: fsType, Data: data}
	return step.Plan{{
		What:     "attach " + image + " read-only to a loop device",
		Line:     variable + "=$(losetup --find --show --read-only " + run.Quote(image) + ")",
		UndoLine: "losetup --detach " + device,
		Do: func(ctx context.Context) (err error) {
			loop, err = loopdev.Attach(ctx, image, loopdev.Options{ReadOnly: true})
			return err
		},
		Undo: func(ctx context.Context) error { return loop.Detach(ctx) },
	}, {
		What: "mount the file system in " + image + " read-only on " + point,
		Line: m.Line(device), UndoLine: m.UndoLine(),
		Do: func(context.Context) error {
			m.Device = loop.Path
			return m.Do()
		},
		Undo: func(context.Context) error { return m.Undo() },
	}}
}

// FileSystem is the type of the file system on a device or in an image; the
// error is a refusal when there is none that Linux could mount.
func FileSystem(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("cannot read %s: %w", path, fault.Reason(err))
	}
	defer f.Close()
	info, err := diskimg.ProbeFile(f)
	if err != nil {
		return "", err
	}
	if info.Kind == diskimg.Filesystem {
		switch t := info.Signature.Type; t {
		case "ext2", "ext3", "ext4", "xfs", "btrfs", "vfat":
			return t, nil
		}
	}
	return "", fault.Refuse("cannot mount %s: it holds no file system that can be mounted (%s)", path, info.Kind)
}
