package convert

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"xenlvm/lib/blockcopy"
	"xenlvm/lib/lvm"
	"xenlvm/lib/units"
)

// A copy by blocks that is killed goes on where it was: about once a second it writes
// down which blocks of the destination are equal to the source, and on the device. The
// next pass copies from another snapshot, so it reads all the same, but writes only the
// others and what changed. The kernel's count of writes does not tell whether anybody
// else wrote to the destination meanwhile. It still has its tag, a sample must be
// right, and what the pass left is compared as after a first copy.

// checkpointName is the file of the digests of what is done. It is named after the
// volume, as is digestsName, and its size: what it is extended by holds anything.
func checkpointName(d *Disk) string {
	return fmt.Sprintf("%s-%s-%d%s", d.VDev, d.Dest.LV.UUID, d.Dest.LV.Size, checkpointSuffix)
}

const checkpointSuffix = ".partial"

// checkpoint writes down what is done.
func (c *Conversion) checkpoint(d *Disk) func(*blockcopy.Digests) error {
	return Checkpoint(func(sums *blockcopy.Digests) error {
		return c.keepDigests(checkpointName(d), sums)
	}, func(err error) {
		c.rep.Infof("%s: if this pass is killed, the next one begins anew: %v", d.VDev, err)
	})
}

// Checkpoint is a blockcopy.Options.Checkpoint that saves, until it cannot and tells
// so: a copy that cannot be continued is still a copy.
func Checkpoint(save func(*blockcopy.Digests) error, tell func(error)) func(*blockcopy.Digests) error {
	hopeless := false
	return func(sums *blockcopy.Digests) error {
		if hopeless {
			return nil
		}
		if err := save(sums); err != nil {
			hopeless = true
			tell(err)
		}
		return nil
	}
}

// begun says whether nothing else was begun on the destination since the last copy by
// blocks.
func (d *Disk) begun() bool {
	return d.past.method == Blocks && d.past.destination == d.Dest.LV.Spec()
}

// forgetCheckpoint removes what a pass that has ended needs no more, whatever size the
// volume had.
func (c *Conversion) forgetCheckpoint(d *Disk) error {
	all, err := os.ReadDir(c.journal.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, f := range all {
		if name := f.Name(); strings.HasPrefix(name, d.VDev+"-"+d.Dest.LV.UUID+"-") && strings.HasSuffix(name, checkpointSuffix) {
			err = errors.Join(err, os.Remove(c.journal.Path(name)))
		}
	}
	return err
}

// resume are the digests of what a pass that was killed had done, nil if there was none
// or the destination is not as it was left.
func (c *Conversion) resume(ctx context.Context, d *Disk, dst *os.File) (*blockcopy.Digests, error) {
	if !d.begun() || !d.Dest.Exists || !d.Dest.Ours || !d.Dest.LV.Tagged(lvm.TagIncomplete) {
		return nil, c.forgetCheckpoint(d)
	}
	sums := c.readDigests(d, checkpointName(d))
	if sums == nil {
		return nil, nil
	}
	o, finished := c.options("look at " + d.Dest.LV.Spec())
	err := blockcopy.Sample(ctx, dst, sums, sampleBlocks, o)
	finished()
	var m *blockcopy.MismatchError
	if errors.As(err, &m) {
		c.rep.Infof("%s: somebody wrote to %s after the pass that was killed: %v", d.VDev, d.Dest.LV.Spec(), err)
		return nil, c.forgetCheckpoint(d)
	}
	if err != nil {
		return nil, err
	}
	// What is written from here on makes the checkpoint wrong until there is the next:
	// a block that goes back to what it was would be taken for equal.
	if err := c.forgetCheckpoint(d); err != nil {
		return nil, err
	}
	d.Result.Delta = byCheckpoint
	unknown := sums.Unknown()
	c.rep.Infof("%s: going on with the pass that was killed: %s are to be copied yet, beside what changed", d.VDev, units.Bytes(unknown.Bytes()))
	return sums, nil
}
