package convert

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"xenlvm/lib/changed"
	"xenlvm/lib/fault"
	"xenlvm/lib/journal"
	"xenlvm/lib/run"
	"xenlvm/lib/snap"
	"xenlvm/lib/step"
	"xenlvm/lib/units"
)

// clone is a clone of one image, beside it, on a file system that lets files share their
// blocks. Until it is removed, what the domain writes takes new space there.
type clone struct {
	disk *Disk
	snap.Clone
}

func (v *clone) kind() string { return "clone" }

func (v *clone) image(*Disk) string { return v.Path }

// plan makes the clone.
func (v *clone) plan(_ context.Context, c *Conversion, s *source) (step.Plan, error) {
	d := v.disk
	v.Path = s.nameFor(func(kind string) string {
		return filepath.Join(filepath.Dir(d.Image), ".xenlvm-"+c.o.Domain+"-"+d.VDev+kind)
	})
	if _, err := os.Lstat(v.Path); !errors.Is(err, os.ErrNotExist) {
		return nil, fault.Hint(fault.Refuse("cannot clone %s as %s: there is such a file, and the journal does not know it", d.Image, v.Path), "%s, if nobody needs it", v.Line())
	}
	room, err := snap.Room(filepath.Dir(v.Path))
	if err != nil {
		return nil, err
	}
	c.rep.Infof("%s: from a clone of the image: until it is removed, what the domain overwrites takes new space in %s: at most %s; there is room for %s",
		d.VDev, filepath.Dir(v.Path), v.takes(c.o).most, room)
	return step.Plan{{
		What: "clone " + d.Image + " as " + v.Path, Line: run.Quote("cp", "--reflink=always", d.Image, v.Path),
		Do:   func(context.Context) error { return v.make(c) },
		Undo: func(context.Context) error { return v.Remove() }, UndoLine: v.Line(),
	}}, nil
}

// make clones the image. The journal has the clone before it has a name, and then what
// it is as long as nobody writes to it.
func (v *clone) make(c *Conversion) error {
	d := v.disk
	image, err := os.OpenFile(d.Image, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer image.Close()
	info, err := image.Stat()
	if err != nil {
		return err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); !ok || st.Ino != d.inode {
		return errReplaced(d)
	}
	// A write between this and the clone only makes the image look younger than it.
	d.Result.modified, d.Result.seen = info.ModTime(), time.Now()
	write := func(one snap.Clone) error { return c.journal.Append(journal.KindClone, one) }
	made, err := snap.MakeClone(image, v.Path, write)
	if err != nil {
		return err
	}
	v.Clone = made
	if err := write(made); err != nil {
		return errors.Join(err, v.Remove())
	}
	return nil
}

func (v *clone) look(*Disk) error { return v.Check() }

func (v *clone) kept() base { return keptClone{v.Clone} }

func (v *clone) follows(b base) bool {
	_, ok := b.(keptClone)
	return ok
}

// takes is a share of the image, as of a thin volume. What is overwritten takes as much
// as the image has, and no more: once written elsewhere, it is not shared any more.
func (v *clone) takes(o Options) space {
	var st unix.Stat_t
	most := units.Bytes(v.disk.Info.FileSize)
	if err := unix.Stat(v.disk.Image, &st); err == nil {
		most = units.Bytes(st.Blocks) * units.Sector
	}
	return space{dir: filepath.Dir(v.disk.Image), size: min(max(o.SnapshotSize.Of(units.Bytes(v.disk.Info.FileSize)), 1), most), most: most}
}

// watch has nothing to watch but the file systems, which are watched all the time.
func (v *clone) watch(context.Context, *Conversion) error { return nil }

// verdict looks once more, after the last byte was read, whether somebody wrote to the
// clone.
func (v *clone) verdict(_ *source, err error) error {
	if err != nil {
		return err
	}
	return v.Check()
}

// comparison asks the file system what both clones still share.
func (v *clone) comparison(c *Conversion, s *source) step.Step {
	return step.Step{
		What: "find what changed since " + s.base.name(),
		Line: run.Quote("filefrag", "-v", s.base.name(), v.Path),
		Do: func(context.Context) error {
			if err := v.compare(s.base); err != nil {
				c.cannotTell(s.based, s.base, err)
			}
			return nil
		},
	}
}

func (v *clone) compare(b base) error {
	if err := b.usable(); err != nil {
		return err
	}
	before, err := os.Open(b.name())
	if err != nil {
		return err
	}
	defer before.Close()
	now, err := os.Open(v.Path)
	if err != nil {
		return err
	}
	defer now.Close()
	set, err := changed.Cloned(before, now)
	if err == nil {
		v.disk.changed = &set
	}
	return err
}

// keptClone is a base that keeps the blocks that the image had.
type keptClone struct{ snap.Clone }

func (k keptClone) id() string    { return k.Path }
func (k keptClone) name() string  { return k.Path }
func (k keptClone) delta() string { return byClones }
func (k keptClone) usable() error { return k.Check() }

// clearance has nothing to take away: nothing is ever mounted from a base.
func (k keptClone) clearance() (step.Plan, error)         { return nil, nil }
func (k keptClone) removal(run.Runner) (step.Plan, error) { return k.Removal() }

// clonesIn is the clones that the journal knows and that are still there, each as it was
// written down last.
func clonesIn(records []journal.Record) []keptClone {
	var all []keptClone
	for _, r := range records {
		var one snap.Clone
		if r.Kind != journal.KindClone || json.Unmarshal(r.Data, &one) != nil {
			continue
		}
		all = slices.DeleteFunc(all, func(k keptClone) bool { return k.Path == one.Path && k.Inode == one.Inode && k.Born == one.Born })
		all = append(all, keptClone{one})
	}
	return slices.DeleteFunc(all, func(k keptClone) bool { return k.Gone() })
}
