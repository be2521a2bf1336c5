package convert

import (
	"context"
	"errors"
	"path/filepath"
	"strings"

	"xenlvm/lib/blkdev"
	"xenlvm/lib/changed"
	"xenlvm/lib/extent"
	"xenlvm/lib/fault"
	"xenlvm/lib/mnt"
	"xenlvm/lib/run"
	"xenlvm/lib/step"
)

// comparison mounts the base beside the snapshot.
func (v *snapshot) comparison(c *Conversion, s *source) step.Step {
	var lines []string
	for _, d := range s.based {
		lines = append(lines, run.Quote("lvsnap", "changed", "--file", d.Image, s.base.name()))
	}
	return step.Step{
		What: "find what changed since " + s.base.name(),
		Line: strings.Join(lines, "\n"),
		Do:   func(ctx context.Context) error { return v.compare(ctx, c, s) },
	}
}

// compare notes what of each image may have changed since the base of s. Where that
// cannot be told, the next way is taken.
func (v *snapshot) compare(ctx context.Context, c *Conversion, s *source) (err error) {
	base, ok := s.base.(keptSnapshot)
	if !ok {
		return errors.New("the base is none of this volume")
	}
	m := mnt.Mount{
		Device: base.Path, Point: filepath.Join(c.dir(), "base-"+base.VG+"-"+base.Name),
		Type: v.fsType, Data: mnt.ReadOnly(v.fsType),
	}
	if err := m.Do(); err != nil {
		c.cannotTell(s.based, base, err)
		return nil
	}
	defer func() { err = errors.Join(err, m.Undo()) }()
	maps, err := v.mapBoth(c, s, base, m.Point)
	if err != nil {
		return err
	}
	var written extent.Set // asked for last: what is written after the later map only adds to it
	find, err := changed.Finding(c.r, base.LV, v.origin, &written)
	if err == nil {
		err = find.Do(ctx)
	}
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case fault.StatusOf(err) == fault.Left:
		return err
	case err != nil:
		c.cannotTell(s.based, base, err)
		return nil
	}
	for d, m := range maps {
		set := changed.Between(m.before, m.after, written)
		d.changed = &set
	}
	return nil
}

// twoMaps are those of an image in the base and in the snapshot.
type twoMaps struct{ before, after changed.Map }

// mapBoth maps the images on v, of which those in the base are below dir.
func (v *snapshot) mapBoth(c *Conversion, s *source, base keptSnapshot, dir string) (map[*Disk]twoMaps, error) {
	now, err := blkdev.Stat(v.lv.Path)
	if err != nil {
		return nil, err
	}
	maps := map[*Disk]twoMaps{}
	for _, d := range s.based {
		before, berr := changed.MapOf(filepath.Join(dir, d.Inside), blkdev.Number{Major: base.Major, Minor: base.Minor})
		after, aerr := changed.MapOf(v.image(d), now.Number)
		if err := errors.Join(berr, aerr); err != nil {
			c.cannotTell([]*Disk{d}, base, err)
			continue
		}
		maps[d] = twoMaps{before, after}
	}
	return maps, nil
}
