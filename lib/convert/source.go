package convert

import (
	"context"
	"slices"

	"xenlvm/lib/step"
	"xenlvm/lib/units"
)

// source is what disks are copied from: their images as they were at one instant.
type source struct {
	frozen
	disks []*Disk
	work  int64 // bytes that reading its disks takes at most
	done  int64 // of them

	base  base    // kept by the last pass
	based []*Disk // those of which it tells what changed; none: there is no base
	keep  bool    // as the base of the next pass
	made  step.Step
}

// frozen keeps images as they were at one instant, while their domain goes on writing to
// them: a snapshot of their volume, or a clone of one of them.
type frozen interface {
	// plan checks, and is the steps that make it. The first one is taken back by what
	// removes it. A dry run never asks for anything else.
	plan(ctx context.Context, c *Conversion, s *source) (step.Plan, error)
	// image is where d's image can be read, once it is made.
	image(d *Disk) string
	// look notes of which moment d's image is, and refuses one that is another file.
	look(d *Disk) error
	// kept is it as the base of the next pass, once it is made.
	kept() base
	// follows says whether what changed since the base can be told by it.
	follows(base) bool
	// comparison is the step that notes what may have changed of s.based since s.base.
	// What cannot be told of a disk is no error.
	comparison(c *Conversion, s *source) step.Step
	// takes is what it may take while it lives.
	takes(o Options) space
	// watch returns an error as soon as it must not be read any more, and nil when there
	// is nothing to watch.
	watch(ctx context.Context, c *Conversion) error
	// verdict is the last word on work that read it, and ended with err.
	verdict(s *source, err error) error
	// kind is what it is: snapshot or clone.
	kind() string
}

// space is what a source may take of one thing.
type space struct {
	group string // volume group: taken at once
	pool  string // thin pool VG/POOL, or
	dir   string // file system that has this directory: taken by and by
	size  units.Bytes
	most  units.Bytes // taken from a file system by what is kept, if all is overwritten
}

// sources are the disks by what they can be copied from: those whose images lie on one
// volume together, any other alone.
func (c *Conversion) sources() []*source {
	var all []*source
	for _, d := range c.Disks {
		i := -1
		if !d.cloned {
			i = slices.IndexFunc(all, func(s *source) bool { return !s.disks[0].cloned && s.disks[0].Origin.UUID == d.Origin.UUID })
		}
		if i < 0 {
			i = len(all)
			all = append(all, &source{frozen: c.freezing(d)})
		}
		s := all[i]
		s.disks = append(s.disks, d)
		s.work += d.Info.Size
		s.keep = s.keep || c.o.KeepBase && d.mappable()
	}
	return all
}

// freezing is how d's image is to be frozen.
func (c *Conversion) freezing(d *Disk) frozen {
	if d.cloned {
		return &clone{disk: d}
	}
	return &snapshot{origin: d.Origin, fsType: d.FSType, point: c.pointOf(d.Origin)}
}

// planSources freezes all images, and finds out what changed since the bases of the last
// pass, which nobody needs then.
func (c *Conversion) planSources(ctx context.Context, plan *step.Plan) ([]*source, error) {
	all := c.sources()
	if err := c.checkKept(all); err != nil {
		return nil, err
	}
	drop, err := c.planBases(all)
	if err != nil {
		return nil, err
	}
	*plan = append(*plan, drop...)
	for _, s := range all {
		steps, err := c.planSource(ctx, s)
		if err != nil {
			return nil, err
		}
		*plan = append(*plan, steps...)
	}
	return all, nil
}

func (c *Conversion) planSource(ctx context.Context, s *source) (step.Plan, error) {
	plan, err := s.plan(ctx, c, s)
	if err != nil {
		return nil, err
	}
	// What is kept is removed by a failure alone.
	plan[0].Temporary = !s.keep
	s.made = plan[0]
	if len(s.based) == 0 {
		return plan, nil
	}
	removal, err := s.base.removal(c.r)
	return append(append(plan, s.comparison(c, s)), removal...), err
}

// nameFor is the name of what s makes: what name gives its kind, such as "-base", and
// never that of its base.
func (s *source) nameFor(name func(kind string) string) string {
	kind := "-snap"
	if s.keep {
		kind = "-base"
	}
	if s.base != nil && s.base.name() == name(kind) {
		kind += "2"
	}
	return name(kind)
}

// planKeep is the step that leaves s as the base of the next pass. It is taken back when
// the copies from it are not written down.
func planKeep(s *source) step.Plan {
	if !s.keep {
		return nil
	}
	return step.Plan{{
		What: "keep " + s.kept().name() + " for the next pass",
		Do:   func(context.Context) error { return nil },
		Undo: s.made.Undo, UndoLine: s.made.UndoLine,
	}}
}
