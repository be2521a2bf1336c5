package mirror

import (
	"context"
	"slices"

	"xenlvm/lib/blkdev"
	"xenlvm/lib/fault"
	"xenlvm/lib/loopdev"
	"xenlvm/lib/run"
	"xenlvm/lib/xl"
)

// MayBuild refuses a source that a loop device of somebody else may write to. One
// that a domain runs on is that domain's, which will leave it for the mirror.
func (h Host) MayBuild(ctx context.Context, d Disk) error {
	s, err := d.Look()
	if err != nil {
		return err
	}
	if s.Phase == Built || s.Phase == Partly {
		if err := d.Original(s); err != nil {
			return err
		}
	}
	uses, err := xl.Uses(ctx, h.Run)
	if err != nil {
		return err
	}
	return d.unattached(s, uses)
}

// unattached refuses a source that is attached to a loop device which is neither
// ours nor the disk of a domain.
func (d Disk) unattached(s State, uses []xl.Use) error {
	same, err := loopdev.Same(d.Source)
	if err != nil {
		return err
	}
	others, err := loopdev.List(func(l loopdev.Device) bool {
		dev, err := blkdev.Stat(l.Path)
		return err == nil && slices.Contains(same, dev.Number) && !l.ReadOnly && (s.Loop == nil || l.Path != s.Loop.Path) &&
			!slices.ContainsFunc(uses, func(u xl.Use) bool { return u.Disk.HasDevice && u.Disk.Number() == dev.Number })
	})
	if err != nil || len(others) == 0 {
		return err
	}
	return fault.Hint(fault.Refuse("cannot mirror %s: %s is attached to it, and may write beside the mirror", d.Source, others[0].Path),
		"losetup --list %s; if nobody needs it: losetup --detach %[1]s", others[0].Path)
}

// User is the ID of the domain that has the mirror as a disk, 0 for none.
func (h Host) User(ctx context.Context, d Disk) (int, error) {
	s, err := d.Look()
	if err != nil {
		return 0, err
	}
	uses, err := xl.Uses(ctx, h.Run)
	for _, u := range uses {
		if s.runs(u) {
			return u.Domain.ID, nil
		}
	}
	return 0, err
}

// runs says whether u is the use of the domain's device.
func (s State) runs(u xl.Use) bool {
	return s.Top.Name != "" && u.Disk.HasDevice && u.Disk.Number() == s.Top.Number
}

// NotRenamed refuses mirrors that a domain of another name runs on: what is put
// into the configuration, and into what Xen restarts, would be another domain's.
func (h Host) NotRenamed(ctx context.Context, all []Known) error {
	uses, err := xl.Uses(ctx, h.Run)
	if err != nil {
		return err
	}
	for _, k := range all {
		s, err := k.Look()
		if err != nil {
			return err
		}
		for _, u := range uses {
			if s.runs(u) && u.Domain.Name != k.Domain {
				return fault.Hint(fault.Refuse("cannot go on with the mirror of %s: domain %s runs on it, which was renamed", k.Disk, u.Domain.Name),
					"xl rename %s", run.Quote(u.Domain.Name, k.Domain))
			}
		}
	}
	return nil
}
