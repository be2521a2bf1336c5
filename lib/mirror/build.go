package mirror

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"xenlvm/lib/dm"
	"xenlvm/lib/fault"
	"xenlvm/lib/journal"
	"xenlvm/lib/loopdev"
	"xenlvm/lib/md"
	"xenlvm/lib/run"
	"xenlvm/lib/step"
	"xenlvm/lib/udev"
)

// Host is where mirrors are made.
type Host struct {
	Run     run.Runner
	Journal *journal.Journal // of the domain, which the caller has locked
}

// Build is the plan that makes a mirror of the source alone: what exists of it
// already is kept. Nothing writes to the image before the domain uses the device.
func (h Host) Build(d Disk) (step.Plan, error) {
	s, err := d.Look()
	if err != nil {
		return nil, err
	}
	switch s.Phase {
	case Absent, Partly:
	case Built, Recovering, Synced:
		return nil, nil
	case Returned:
		return nil, fault.Hint(fault.Refuse("cannot build a mirror of %s: it still uses %s, which an abort left", d, d.Path()),
			"it goes when the domain is restarted: domuswitch stop %s && domuswitch start %[1]s", run.Quote(d.Domain))
	default:
		return nil, fault.Hint(fault.Refuse("cannot build a mirror of %s: there is one, and it is %s", d, s.Phase), "mdmirror status %s", run.Quote(d.Domain))
	}
	device, array := d.Source, "/dev/md/"+d.arrayName() // known for certain when they are made
	plan := step.Plan{
		{What: "write down that " + d.VDev + " is mirrored", Do: func(context.Context) error {
			return h.Journal.Append(journal.KindMirror, journal.Mirror{VDev: d.VDev, Source: d.Source, Size: int64(d.Size)})
		}},
		udev.Hide(h.Run, d.Name(), d.arrayName(), d.Source),
	}
	if image, err := isFile(d.Source); err != nil {
		return nil, err
	} else if image && s.Loop == nil {
		plan = append(plan, h.attach(d, &device))
	} else if image {
		device = s.Loop.Path
	}
	if s.Source.Name == "" {
		plan = append(plan, h.linear(d, source, &device))
	}
	if s.Array == nil {
		if _, err := os.Stat(array); err == nil {
			return nil, fault.Hint(fault.Refuse("cannot use the array %s: it was not made for %s", array, d), "mdadm --detail %s; if nobody needs it: mdadm --stop %[1]s", array)
		}
		plan = append(plan, h.array(d, &array))
	} else {
		array = s.Array.Path
	}
	plan = append(plan, hidePartitions(&array))
	if s.Top.Name == "" {
		plan = append(plan, h.linear(d, top, &array))
	}
	return plan, nil
}

func isFile(path string) (bool, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return false, fault.Refuse("cannot mirror %s: %w", path, err)
	}
	return st.Mode&unix.S_IFMT == unix.S_IFREG, nil
}

// attach attaches the image to a loop device, whose path it puts into device.
func (h Host) attach(d Disk, device *string) step.Step {
	var loop *loopdev.Device
	return step.Step{
		What: "attach " + d.Source + " to a loop device",
		Line: "loop=$(" + run.Quote("losetup", "--find", "--show", "--direct-io=on", d.Source) + ")",
		Do: func(ctx context.Context) (err error) {
			if loop, err = loopdev.Attach(ctx, d.Source, loopdev.Options{Direct: true, Label: d.uuid(top)}); err == nil {
				*device = loop.Path
			}
			return err
		},
		Undo:     func(ctx context.Context) error { return loop.Detach(ctx) },
		UndoLine: "losetup --detach \"$loop\"",
	}
}

// linear makes one of our devices over another, which exists only when the step
// runs.
func (h Host) linear(d Disk, part string, over *string) step.Step {
	name := d.Name() + part
	shown := *over
	if part == source && shown == d.Source {
		shown = "$loop"
	}
	remove := dm.Remove(name)
	return step.Step{
		What: "make /dev/mapper/" + name,
		Line: run.Quote("dmsetup", "create", name, "--uuid", d.uuid(part), "--table") + fmt.Sprintf(" \"%s\"", dm.Linear(shown, d.Size)),
		Do: func(ctx context.Context) error {
			_, err := h.Run.Run(ctx, dm.Create(name, d.uuid(part), dm.Linear(*over, d.Size)))
			return err
		},
		Undo: func(ctx context.Context) error {
			_, err := h.Run.Run(ctx, remove)
			return err
		},
		UndoLine: remove.Line(),
	}
}

// arrayName is short and plain, because mdadm from 4.3 on takes at most 32 letters,
// digits and ._- as the name of an array.
func (d Disk) arrayName() string {
	return "xenlvm-" + strings.TrimPrefix(d.uuid(top), udev.UUIDPrefix)
}

// array builds the array on the source leg, and puts its path into path.
func (h Host) array(d Disk, path *string) step.Step {
	build := md.Build(d.arrayName(), d.Path()+source)
	named := md.Array{Path: *path}
	return step.Step{
		What: "build the array " + *path,
		Line: build.Line() + "\n" + named.ReadWrite().Line(),
		Do: func(ctx context.Context) error {
			if _, err := h.Run.Run(ctx, build); err != nil {
				return err
			}
			// From here on there is something to undo, also when we are interrupted.
			ctx = context.WithoutCancel(ctx)
			s, err := d.Look()
			if err == nil && s.Array == nil {
				err = fmt.Errorf("cannot find the array of %s after building it", d)
			}
			if err != nil {
				return err
			}
			*path = s.Array.Path
			if _, err = h.Run.Run(ctx, s.Array.ReadWrite()); err != nil {
				_, stop := h.Run.Run(ctx, s.Array.Stop())
				err = errors.Join(err, stop)
			}
			return err
		},
		Undo: func(ctx context.Context) error {
			_, err := h.Run.Run(ctx, md.Array{Path: *path}.Stop())
			return err
		},
		UndoLine: named.Stop().Line(),
	}
}

// hidePartitions removes the partitions of the guest from this host, before
// the domain's device takes hold of the array, so that nobody finds them again.
func hidePartitions(array *string) step.Step {
	return step.Step{
		What: "hide the partitions in " + *array,
		Line: run.Quote("partx", "--delete", *array),
		Do:   func(ctx context.Context) error { return md.Array{Path: *array}.DropPartitions(ctx) },
	}
}
