package main

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"xenlvm/lib/blkdev"
	"xenlvm/lib/fault"
	"xenlvm/lib/lvm"
	"xenlvm/lib/run"
)

// findVolume finds out which logical volume the destination is: it carries a tag
// while it is not what a domain could start from.
func (t *target) findVolume(ctx context.Context, r run.Runner) error {
	if !t.device || run.Missing("lvs") != nil {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(t.f.Fd()), &st); err != nil {
		return err
	}
	n := blkdev.NumberOf(st.Rdev)
	lv, found, err := lvm.ByNumber(ctx, r, n.Major, n.Minor)
	if found {
		t.lv = &lv
	}
	return fault.With(fault.Refused, err)
}

// tagged says whether the destination is a volume with the tag: of a run that was
// killed, or that failed.
func (t *target) tagged() bool { return t.lv != nil && t.lv.Tagged(lvm.TagIncomplete) }

// tag tags a volume before the first write.
func (t *target) tag(ctx context.Context, r run.Runner) error {
	if t.lv == nil || t.tagged() {
		return nil
	}
	if _, err := r.Run(ctx, lvm.Tag(t.lv.Spec(), lvm.TagIncomplete)); err != nil {
		return err
	}
	t.lv.Tags = append(t.lv.Tags, lvm.TagIncomplete)
	return nil
}

// untag takes the tag off a volume that is equal to the source.
func (t *target) untag(ctx context.Context, r run.Runner) error {
	if !t.tagged() {
		return nil
	}
	untag := lvm.Untag(t.lv.Spec(), lvm.TagIncomplete)
	if _, err := r.Run(context.WithoutCancel(ctx), untag); err != nil {
		return fault.Hint(fault.With(fault.Left, fmt.Errorf("the copy is complete and verified, but %s keeps the tag %s: %w", t.path, lvm.TagIncomplete, err)), "%s", untag.Line())
	}
	return nil
}
