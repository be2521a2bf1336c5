package mirror

import (
	"errors"

	"xenlvm/lib/blkdev"
	"xenlvm/lib/diskimg"
	"xenlvm/lib/fault"
	"xenlvm/lib/run"
)

// Original refuses a mirror whose source's path leads to something else by now than
// what the mirror writes to, as after a file was renamed over an image: from its next
// start on the domain would have another disk than the one that is mirrored.
func (d Disk) Original(s State) error {
	if s.Loop == nil && (s.Source.Name == "" || over(s.Source, d.Source)) || s.Loop != nil && s.Loop.IsOf(d.Source) {
		return nil
	}
	holder := s.Source.Path()
	if s.Loop != nil {
		holder = s.Loop.Path
	}
	err := fault.Refuse("cannot go on with the mirror of %s: %s was replaced or removed, and %s still has what was there before", d, d.Source, holder)
	domain := run.Quote(d.Domain)
	switch {
	case !s.Used():
		return fault.Hint(err, "nobody has written to the mirror, so begin again: mdmirror abort %s", domain)
	case s.Loop != nil && s.Loop.IsOf(s.Loop.File):
		return fault.Hint(err, "%s has it now; move it back, and what is in its place away first: %s", s.Loop.File, run.Quote("mv", "--no-clobber", s.Loop.File, d.Source))
	}
	return fault.Hint(err, "to save it: domuswitch stop %s, then: %s", domain, run.Quote("dd", "bs=1M", "conv=sparse", "if="+holder, "of=FILE"))
}

// Used says whether anybody may have written by way of the mirror.
func (s State) Used() bool {
	if s.Top.Name == "" {
		return false
	}
	written, err := blkdev.Device{Path: s.Top.Path(), Number: s.Top.Number}.Written()
	return err != nil || written > 0
}

// openSource opens what the mirror writes to: by the path, because only a file tells
// of its holes.
func (d Disk) openSource() (diskimg.Source, error) {
	src, err := diskimg.OpenSource(d.Source, string(diskimg.Raw))
	if err != nil {
		return nil, err
	}
	s, err := d.Look()
	if err == nil {
		err = d.Original(s)
	}
	if err != nil {
		return nil, errors.Join(err, src.Close())
	}
	return src, nil
}
