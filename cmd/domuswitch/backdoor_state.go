package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"xenlvm/lib/blockcopy"
	"xenlvm/lib/changed"
	"xenlvm/lib/extent"
	"xenlvm/lib/fault"
	"xenlvm/lib/journal"
	"xenlvm/lib/lvm"
	"xenlvm/lib/mapping"
	"xenlvm/lib/run"
	"xenlvm/lib/snap"
	"xenlvm/lib/step"
	"xenlvm/lib/xlcfg"
)

// doorState is a back door as it is at the moment.
type doorState struct {
	journal.BackDoor
	snapshot lvm.LV
	origin   lvm.LV
	usage    lvm.Usage // of the COW space, or of the thin pool's
	half     bool      // the image is half-written
	lost     error     // why it leads nowhere, nil if it can be used
}

// backDoorsOf are those with which the domain was switched to its present disks.
func (c *command) backDoorsOf(ctx context.Context, r run.Runner, d *domain) ([]doorState, error) {
	half := journal.HalfWritten(d.records)
	var all []doorState
	for _, door := range d.historyOf().applied.BackDoors {
		s := doorState{BackDoor: door}
		_, s.half = half[door.Image.Path]
		if err := s.look(ctx, c, r, d); fault.StatusOf(err) == fault.Refused || errors.Is(err, lvm.ErrLost) || errors.Is(err, fs.ErrNotExist) {
			s.lost = err
		} else if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

// look finds the snapshot and the volume, and whether all is as it must be.
func (s *doorState) look(ctx context.Context, c *command, r run.Runner, d *domain) (err error) {
	if s.snapshot, err = byUUID(ctx, r, s.Snapshot, s.SnapshotUUID); err != nil {
		return err
	}
	if s.origin, err = byUUID(ctx, r, s.LV, s.LVUUID); err != nil {
		return err
	}
	if s.usage, err = c.backDoors.usage(s.snapshot); err != nil && !errors.Is(err, lvm.ErrPoolFull) {
		return fmt.Errorf("%s: %w", s.Snapshot, err)
	}
	if s.half { // by us
		return nil
	}
	now, err := lookAt(s.Image.Path)
	if err != nil {
		return err
	}
	if now != s.left(d.records) {
		return fault.Refuse("the image %s was written to, or replaced, since it was left", s.Image.Path)
	}
	return nil
}

// byUUID is the volume VG/LV if it still is the one with the UUID.
func byUUID(ctx context.Context, r run.Runner, spec, uuid string) (lvm.LV, error) {
	vg, name, err := lvm.SplitSpec(spec)
	if err != nil {
		return lvm.LV{}, err
	}
	v, found, err := lvm.Find(ctx, r, vg, name)
	if err == nil && (!found || v.UUID != uuid) {
		err = fault.Refuse("%s is not there any more", spec)
	}
	return v, err
}

// removeBackDoors is the plan that removes back doors, as far as they are there.
func removeBackDoors(ctx context.Context, r run.Runner, doors []journal.BackDoor) (step.Plan, error) {
	var plan step.Plan
	for _, door := range doors {
		v, err := byUUID(ctx, r, door.Snapshot, door.SnapshotUUID)
		if fault.StatusOf(err) == fault.Refused || err == nil && !v.Tagged(lvm.TagBackDoor) {
			continue
		}
		if err != nil {
			return nil, err
		}
		steps, err := snap.Removal(r, v)
		if err != nil {
			return nil, err
		}
		plan = append(plan, steps...)
	}
	return plan, nil
}

// doorOf is the back door of a disk that can be used, nil if there is none.
func doorOf(all []doorState, l mapping.Line) *doorState {
	for i := range all {
		if xlcfg.SameDevice(all[i].VDev, l.VDev) && all[i].lost == nil {
			return &all[i]
		}
	}
	return nil
}

// left is the image as the domain left it, or as it was last brought up to the volume.
func (s *doorState) left(records []journal.Record) journal.Image {
	image := s.Image
	for _, r := range records {
		var b journal.BackDoor
		if r.Kind == journal.KindReplayed && json.Unmarshal(r.Data, &b) == nil && b.SnapshotUUID == s.SnapshotUUID {
			image = b.Image
		}
	}
	return image
}

// digestsOf is what image and volume of a back door had in common when it was made.
func (d *domain) digestsOf(door journal.BackDoor) (*blockcopy.Digests, error) {
	f, err := os.Open(d.journal.Path(door.Digests))
	if err != nil {
		return nil, fault.Refuse("cannot read the digests of %s: %w", door.Image.Path, err)
	}
	defer f.Close()
	sums, err := blockcopy.ReadDigests(f)
	return sums, fault.With(fault.Refused, err)
}

// writtenSince is what of a volume was written since its snapshot was made.
func writtenSince(ctx context.Context, r run.Runner, snapshot, origin lvm.LV) (extent.Set, error) {
	var set extent.Set
	find, err := changed.Finding(r, snapshot, origin, &set)
	if err == nil {
		err = find.Do(ctx)
	}
	return set, err
}

// notHalfWritten refuses to use an image into which a volume is being brought back.
func (c *command) notHalfWritten(verb string, d *domain) error {
	for path, b := range journal.HalfWritten(d.records) {
		for _, k := range d.disks {
			if c.same(k.Target, path) {
				return fault.Hint(fault.Refuse("cannot %s %s: its disk %s is %s, which is half-written: /dev/%s was being brought back into it", verb, d.name, k.VDev, path, b.LV),
					"name /dev/%s in %s again, which has everything; then domuswitch revert %s goes on", b.LV, d.file.Path, run.Quote(d.name))
			}
		}
	}
	return nil
}

// dropBackDoors is the plan that removes the back doors of the present disks.
func (d *domain) dropBackDoors(ctx context.Context, r run.Runner) (step.Plan, error) {
	return removeBackDoors(ctx, r, d.historyOf().applied.BackDoors)
}

// doorsBehind are the back doors of the disks that revert has taken out of the
// configuration; none when it was put back by hand.
func (d *domain) doorsBehind() []journal.BackDoor {
	var doors []journal.BackDoor
	back := false
	for _, r := range d.records {
		var a journal.Replaced
		switch {
		case r.Kind == journal.KindReverted:
			back = true
		case r.Kind == journal.KindApplied && json.Unmarshal(r.Data, &a) == nil:
			doors, back = a.BackDoors, false
		}
	}
	if !back {
		return nil
	}
	return doors
}

// halfWritten refuses images that are half-written, nil if there are none. Without a back
// door the hints say how they become whole.
func (d *domain) halfWritten(doors []doorState, giveUp bool) (err error) {
	for _, s := range doors {
		switch {
		case s.half && giveUp:
			return fault.Refuse("cannot give up what %s wrote: %s is half-written", d.name, s.Image.Path)
		case s.half && err == nil:
			err = fault.Hint(fault.Refuse("cannot revert %s: %s is half-written", d.name, s.Image.Path), "then: domuswitch revert --yes %s", run.Quote(d.name))
		}
		if s.half {
			err = fault.Hint(err, "first, with %s stopped: %s", d.name, run.Quote("imgconv", "--overwrite", "/dev/"+s.LV, s.Image.Path))
		}
	}
	return err
}

// withLost adds to the refusal of a revert why there is no way through the back doors.
func withLost(err error, doors []doorState) error {
	for _, s := range doors {
		if s.lost != nil {
			err = fmt.Errorf("%w\nthe back door of disk %s is of no use: %w", err, s.VDev, s.lost)
		}
	}
	return err
}

// takeForWhole writes down that images were made whole by other means, as --yes says.
func (d *domain) takeForWhole(doors []doorState) step.Plan {
	var plan step.Plan
	for _, s := range doors {
		if s.half {
			plan = append(plan, step.Step{What: "take " + s.Image.Path + " for whole", Do: func(context.Context) error {
				return d.journal.Append(journal.KindReplayed, s.BackDoor)
			}})
		}
	}
	return plan
}
