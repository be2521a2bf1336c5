package changed

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"xenlvm/lib/blkdev"
	"xenlvm/lib/directio"
	"xenlvm/lib/dm"
	"xenlvm/lib/extent"
	"xenlvm/lib/fault"
	"xenlvm/lib/lvm"
	"xenlvm/lib/run"
	"xenlvm/lib/step"
)

// Finding is the step that finds which bytes of a volume were written or discarded
// since its snapshot was taken, by the snapshot's exceptions or, where both are
// thin, by the metadata of their pool. It does not read the volume. What the page
// cache still holds was not written.
func Finding(r run.Runner, snapshot, origin lvm.LV, written *extent.Set) (step.Step, error) {
	cannot := func(format string, args ...any) error {
		return fault.Refuse("cannot tell what changed since "+snapshot.Spec()+": "+format, args...)
	}
	switch {
	case snapshot.VG != origin.VG || snapshot.Origin != origin.Name:
		return step.Step{}, cannot("it is not a snapshot of %s", origin.Spec())
	case snapshot.Invalid:
		return step.Step{}, cannot("%w", lvm.ErrLost)
	case !snapshot.Active:
		return step.Step{}, fault.Hint(cannot("it is not active"), "lvchange --activate y %s", snapshot.Spec())
	case !origin.Active:
		return step.Step{}, fault.Hint(cannot("%s is not active", origin.Spec()), "lvchange --activate y %s", origin.Spec())
	case snapshot.Size != origin.Size:
		return step.Step{}, cannot("%s has another size now", origin.Spec())
	case snapshot.Thin() && origin.Thin() && snapshot.Pool == origin.Pool:
		return thinStep(r, snapshot, origin, written)
	case snapshot.Thin():
		return step.Step{}, cannot("it is thin, and %s does not live in its pool", origin.Spec())
	}
	return step.Step{
		What: "find what changed on " + origin.Spec() + " since " + snapshot.Spec(),
		Do: func(context.Context) (err error) {
			*written, err = thick(snapshot, origin)
			return err
		},
	}, nil
}

// thick reads the exceptions of a snapshot that is the same, and valid, before and after.
func thick(snapshot, origin lvm.LV) (extent.Set, error) {
	before, err := cowOf(snapshot, origin)
	if err != nil {
		return extent.Set{}, err
	}
	set, err := before.read(int64(origin.Size))
	if err != nil {
		return extent.Set{}, fmt.Errorf("cannot tell what changed since %s: %w", snapshot.Spec(), err)
	}
	after, err := cowOf(snapshot, origin)
	if err == nil && after != before {
		err = fmt.Errorf("cannot tell what changed since %s: it is another snapshot now", snapshot.Spec())
	}
	return set, err
}

// cow is where a snapshot keeps its exceptions.
type cow struct {
	uuid, table string // of the snapshot
	device      string
	chunk       int64 // bytes
}

// cowOf asks device-mapper for the COW space of a snapshot that is valid: names say
// nothing of what they lead to.
func cowOf(snapshot, origin lvm.LV) (cow, error) {
	status, err := dm.Status(snapshot.DMPath)
	if err != nil {
		return cow{}, err
	}
	if _, err := lvm.ParseUsage(snapshot, status); err != nil {
		return cow{}, fmt.Errorf("cannot tell what changed since %s: %w", snapshot.Spec(), err)
	}
	_, of, err := table(origin.DMPath, "snapshot-origin", 4)
	if err != nil {
		return cow{}, err
	}
	d, f, err := table(snapshot.DMPath, "snapshot", 7)
	if err != nil {
		return cow{}, err
	}
	sectors, err := strconv.ParseInt(f[6], 10, 32)
	if err != nil || f[3] != of[3] || f[5] != "P" && f[5] != "PO" {
		return cow{}, fault.Refuse("cannot tell what changed since %s: device-mapper has it as %q, not as a persistent snapshot of %s", snapshot.Spec(), d.Table, origin.Spec())
	}
	c := cow{uuid: d.UUID, table: d.Table, chunk: sectors * sector}
	c.device, err = node(f[4])
	return c, err
}

// read reads the exceptions past the page cache: the kernel writes them past it, too.
func (c cow) read(origin int64) (extent.Set, error) {
	d, err := blkdev.Stat(c.device)
	if err != nil {
		return extent.Set{}, err
	}
	f, err := os.Open(c.device)
	if err != nil {
		return extent.Set{}, err
	}
	defer f.Close()
	direct := directio.Reopen(f, os.O_RDONLY)
	if direct == nil {
		return extent.Set{}, fmt.Errorf("cannot read %s past the page cache", c.device)
	}
	defer direct.Close()
	return Exceptions(direct, int64(d.Size), c.chunk, origin)
}

// table is the device at /dev/mapper/NAME, and the words of its table: start, length,
// kind and what the kind has, which must be at least so many words.
func table(path, kind string, words int) (dm.Device, []string, error) {
	d, found, err := dm.Find(filepath.Base(path))
	if err != nil {
		return d, nil, err
	}
	f := strings.Fields(d.Table)
	if !found || len(f) < words || f[2] != kind {
		return d, nil, fault.Refuse("cannot find the %s %s in device-mapper: it has %q there", kind, path, d.Table)
	}
	return d, f, nil
}

// node is the device that a table names by its number.
func node(number string) (string, error) {
	path, err := filepath.EvalSymlinks("/sys/dev/block/" + number)
	if err != nil {
		return "", fmt.Errorf("cannot find device %s: %w", number, err)
	}
	return "/dev/" + filepath.Base(path), nil
}
