package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"xenlvm/lib/blkdev"
	"xenlvm/lib/directio"
	"xenlvm/lib/diskimg"
	"xenlvm/lib/extent"
	"xenlvm/lib/fault"
	"xenlvm/lib/journal"
	"xenlvm/lib/loopdev"
	"xenlvm/lib/lvm"
	"xenlvm/lib/run"
	"xenlvm/lib/snap"
	"xenlvm/lib/step"
	"xenlvm/lib/units"
	"xenlvm/lib/xlcfg"
)

// A back door is a snapshot of a volume from the moment when the volume was equal to
// the image that the domain leaves: what the domain writes afterwards is known by it,
// and revert brings it back into the image. Nothing else is known of the two to be
// equal than what was copied: blocks that the guest's file system did not use are not.

// backDoorSuffix makes the name of the snapshot of that of the volume.
const backDoorSuffix = "-back-door"

// backDoorHost is what back doors need of the kernel.
type backDoorHost struct {
	counted func(blkdev.Device) (int64, error) // sectors written in this boot
	usage   func(lvm.LV) (lvm.Usage, error)    // of a snapshot
	// written is what of a volume was written since its snapshot was made.
	written func(ctx context.Context, r run.Runner, snapshot, origin lvm.LV) (extent.Set, error)
	open    func(path string) (diskimg.Source, error) // a volume
	loops   func(image string) ([]blkdev.Number, error)
}

func newBackDoorHost() backDoorHost {
	return backDoorHost{
		counted: blkdev.Device.Written, usage: snap.Usage, written: writtenSince, open: openVolume, loops: loopdev.Same,
	}
}

// openVolume opens a volume as it is on its disk: what this host has in memory of it may
// be older than what the domain wrote.
func openVolume(path string) (diskimg.Source, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := directio.Forget(f); err != nil {
		return nil, fmt.Errorf("cannot read %s anew: %w", path, err)
	}
	return diskimg.OpenSource(path, string(xlcfg.Raw))
}

// lookAt is an image as it is now.
func lookAt(path string) (journal.Image, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return journal.Image{}, fmt.Errorf("cannot look at the image %s: %w", path, err)
	}
	return journal.Image{Path: path, Inode: st.Ino, Size: st.Size, Modified: st.Mtim.Nano()}, nil
}

// keepBackDoors has the change begin with a back door for each disk that moves.
func (r *replacement) keepBackDoors(ctx context.Context, k *checker, moves []*move) (err error) {
	r.first, r.doors, err = k.planBackDoors(ctx, moves)
	return err
}

// planBackDoors checks whether each disk that moves can have a back door, and plans
// them. The back doors have their UUIDs when the plan was carried out.
func (k *checker) planBackDoors(ctx context.Context, moves []*move) (plan step.Plan, doors []*journal.BackDoor, err error) {
	need := map[string]units.Bytes{}
	for _, m := range moves {
		if m.disk.Target == m.line.Destination {
			continue
		}
		door, err := k.backDoor(m)
		if err != nil {
			return nil, nil, err
		}
		request := snap.Request{
			Origin: m.lv, Name: m.lv.Name + backDoorSuffix, COW: k.c.backDoorSize, Replace: true, Tags: []string{lvm.TagBackDoor, lvm.TagDomain(k.d.name)},
		}
		making, made, err := request.Plan(ctx, k.e.Runner)
		if err == nil {
			need[made.VG] += made.COW
			err = k.fits(ctx, made.VG, need[made.VG])
		}
		if err != nil {
			return nil, nil, fault.Hint(err, "ask for another size: --back-door-size SIZE")
		}
		door.Snapshot = made.Spec()
		plan = append(plan, step.Step{What: "write down that disk " + m.disk.VDev + " gets a back door", Do: func(context.Context) error {
			return k.d.journal.Append(journal.KindBackDoor, door)
		}})
		plan = append(plan, making...)
		plan = append(plan, step.Step{What: "see that " + m.lv.Spec() + " is as it was copied", Do: func(ctx context.Context) error {
			return k.begin(ctx, m, door)
		}})
		doors = append(doors, door)
	}
	return plan, doors, nil
}

// fits refuses back doors that together are too large for their volume group.
func (k *checker) fits(ctx context.Context, group string, need units.Bytes) error {
	vg, _, err := lvm.FindVG(ctx, k.e.Runner, group)
	if err == nil && need > vg.Free {
		err = fault.Refuse("cannot keep back doors for the disks of %s: they need %s in volume group %s, and %s are free", k.d.name, need, group, vg.Free)
	}
	return err
}

// backDoor is one for m, without its snapshot; or why there can be none.
func (k *checker) backDoor(m *move) (*journal.BackDoor, error) {
	refuse := func(format string, args ...any) error {
		return fault.Hint(fault.Refuse("cannot keep a back door for disk %s of %s: %s", m.disk.VDev, k.d.name, fmt.Sprintf(format, args...)), "do without --keep-back-door")
	}
	switch {
	case m.mirror || m.above != nil:
		return nil, refuse("it is mirrored, and nothing of a mirror tells later what was written to the volume alone")
	case m.disk.Format != xlcfg.Raw:
		return nil, refuse("%s is a %s image, whose blocks lie elsewhere than on the volume", m.disk.Target, m.disk.Format)
	case m.lv.Name == "":
		return nil, refuse("%s is no logical volume", m.line.Destination)
	case m.copied == nil:
		return nil, refuse("no copy of %s onto %s is recorded, so it is not known whether they are equal", m.disk.Target, m.line.Destination)
	case m.copied.Method != "blocks":
		return nil, refuse("its %s were copied, and their blocks lie elsewhere on the volume than in the image (--method blocks)", m.copied.Method)
	}
	if info, err := os.Stat(m.copied.Source); err != nil || !info.Mode().IsRegular() {
		return nil, refuse("%s is no image file", m.copied.Source)
	}
	image, err := lookAt(m.copied.Source)
	if err != nil {
		return nil, refused(err)
	}
	door := &journal.BackDoor{VDev: m.disk.VDev, Image: image, LV: m.lv.Spec(), LVUUID: m.lv.UUID, Digests: m.copied.Digests}
	if _, err := k.d.digestsOf(*door); err != nil {
		return nil, refuse("%v", err)
	}
	return door, k.later(k.stillEqual(m))
}

// stillEqual refuses when image or volume may have been written to since the copy.
func (k *checker) stillEqual(m *move) error {
	why := ""
	image, err := lookAt(m.copied.Source)
	if err != nil {
		return err
	}
	switch n, err := k.c.backDoors.counted(m.dev); {
	case err != nil && !errors.Is(err, blkdev.ErrNotCounted):
		return err
	case err != nil || !m.copied.Unwritten(n, m.dev.DiskSeq()) || k.d.boot == "" || k.d.copiedIn(m.copied) != k.d.boot:
		why = "somebody may have written to " + m.line.Destination
	case image.Size != m.copied.SourceSize || image.Modified != m.copied.SourceModified || k.now.up:
		why = m.copied.Source + " was written to"
	case m.copied.Partial:
		why = "not all of it was copied"
	default:
		return nil
	}
	return fault.Hint(fault.Refuse("cannot keep a back door for disk %s of %s: %s since the copy", m.disk.VDev, k.d.name, why),
		"stop %s, then copy the rest: imgconv --snapshot --final %[1]s", run.Quote(k.d.name))
}

// copiedIn is the boot of the host in which a copy was recorded: the counter of sectors
// written begins anew with each.
func (d *domain) copiedIn(copied *journal.Copied) string {
	r, _ := journal.Last(d.records, journal.KindCopied, func(data json.RawMessage) bool {
		var c journal.Copied
		return json.Unmarshal(data, &c) == nil && c.VDev == copied.VDev && c.LVUUID == copied.LVUUID
	})
	return r.Boot
}

// begin is what makes a snapshot a back door: from here on all that is written to the
// volume is known, and up to here nothing was.
func (k *checker) begin(ctx context.Context, m *move, door *journal.BackDoor) error {
	vg, name, err := lvm.SplitSpec(door.Snapshot)
	if err != nil {
		return err
	}
	made, found, err := lvm.Find(ctx, k.e.Runner, vg, name)
	if err == nil && !found {
		err = fmt.Errorf("cannot find the snapshot %s that was just made", door.Snapshot)
	}
	if err != nil {
		return err
	}
	door.SnapshotUUID = made.UUID
	if door.Image, err = lookAt(door.Image.Path); err != nil {
		return err
	}
	return k.stillEqual(m)
}
