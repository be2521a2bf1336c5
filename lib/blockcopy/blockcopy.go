// Package blockcopy copies an image onto a block device or a file, block by
// block, and later only the blocks that changed since.
//
// The first Copy makes the whole destination equal to the source: data is
// written, and everything else (holes, blocks of zeros, the rest of a larger
// device) is made zero, because a reused volume holds another guest's bytes.
// It returns the digests of the source. A second Copy that is given them as
// Options.Before reads the source once, the destination never, and writes the
// blocks that differ. Verify reads the destination from the device and
// compares it with the digests; Sample does so at random. Where digests are
// lost, Scan makes them from the destination.
//
// What an interrupted Copy had done is in the digests that it gave to
// Options.Checkpoint. They know only some blocks: as Before they let the next
// Copy write the others, whatever the destination holds there.
//
// Copy trusts Source.Data: what it leaves out is not read. It never guesses: a
// read error, a source shorter than it said, a failed flush all end the copy.
// A destination is only as described when Copy has returned no error.
package blockcopy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"xenlvm/lib/directio"
	"xenlvm/lib/extent"
)

// Source is an image of fixed size. ReadAt is called from several goroutines
// at once; bytes outside Data must read as zeros.
type Source interface {
	io.ReaderAt
	// Size is the length in bytes.
	Size() int64
	// Data is the ranges that may hold other bytes than zero.
	Data() (extent.Set, error)
}

// Options of a Copy; the zero value is a good one. What other functions use is
// Direct, Yield, BytesPerSecond, Workers and Progress; Scan uses BlockSize as well.
type Options struct {
	// BlockSize is the number of bytes under one digest and the unit of a
	// delta: a power of two, 4 KiB to 8 MiB. 0 is that of Before, or 4 KiB
	// (more for sources above 4 GiB).
	BlockSize int
	// Before is what the destination holds, as an earlier Copy onto it, its
	// Checkpoint or a Scan returned. Only blocks that differ from it are written
	// or zeroed, and the rest of the destination is not touched. The source may
	// have another size now: what was added, and all that the destination holds
	// behind the source, is not known then.
	Before *Digests
	// Only limits a delta to the blocks that these ranges touch and those that
	// Before does not know: the caller knows that the others did not change since
	// Before, which is required.
	Only *extent.Set
	// KnownZero says that a first copy finds a destination of zeros.
	KnownZero bool
	// Checkpoint is called about once a second with the digests of what is equal
	// in source and destination, and on the device, by then. They must not be
	// used after it returned. Its error ends the Copy.
	Checkpoint func(*Digests) error
	// Direct says whether the destination is written, or read, past the page
	// cache. Verify and Scan read from the device in every mode.
	Direct directio.Mode
	// Yield is called before every request, from several goroutines at once, and
	// returns when the request may be made.
	Yield func(context.Context)
	// BytesPerSecond limits reading, and thereby writing. 0 is no limit.
	BytesPerSecond int64
	// Workers is the number of requests under way. 0 is 8, or 2 larger ones
	// where the disk of the destination turns.
	Workers int
	// Progress is called after every request, never twice at a time.
	Progress func(Progress)
}

// Progress tells how far a pass is, in bytes.
type Progress struct {
	Total   int64 // to be read, once everything is known
	Read    int64
	Written int64
	Zeroed  int64
}

// Stats is what a Copy did, in bytes.
type Stats struct {
	Size           int64 // of the source
	BytesRead      int64 // from the source
	BytesWritten   int64 // data written; zeros are not data
	BytesZeroed    int64 // made zero in the destination
	BytesUnchanged int64 // of the source, already in the destination
	Elapsed        time.Duration
	Written        extent.Set // what was written or zeroed: verify these after a delta
}

// Copy makes dst equal to src, as the package comment says, and waits until
// the device has it. dst must be open for writing; a block device must not be
// smaller than src, a file grows to its size. The digests describe src and
// thereby dst; they are nil if there is an error. Cancelling ctx ends the copy
// after the requests under way, with context.Cause(ctx).
func Copy(ctx context.Context, dst *os.File, src Source, o Options) (Stats, *Digests, error) {
	start := time.Now()
	c, err := newCopier(dst, src, o)
	if err != nil {
		return Stats{}, nil, err
	}
	defer c.dst.close()
	err = c.run(ctx)
	c.stats.Elapsed = time.Since(start)
	if err != nil {
		return c.stats, nil, err
	}
	c.sums.seal()
	c.stats.BytesUnchanged = max(0, c.stats.Size-c.stats.Written.Clip(c.stats.Size).Bytes())
	return c.stats, c.sums, nil
}

// newCopier checks everything that can be checked before the first write.
func newCopier(dst *os.File, src Source, o Options) (*copier, error) {
	size := src.Size()
	if size < 0 {
		return nil, fmt.Errorf("cannot copy source: its size is %d", size)
	}
	if o.Only != nil && o.Before == nil {
		return nil, errors.New("cannot copy only some ranges without the digests of an earlier copy")
	}
	c := &copier{src: src, o: o}
	c.stats.Size = size
	if err := c.begin(); err != nil {
		return nil, err
	}
	data, err := src.Data()
	if err != nil {
		return nil, fmt.Errorf("cannot find the data of source: %w", err)
	}
	c.look = extent.Whole(size)
	if o.Only != nil {
		c.look = o.Only.Align(int64(c.sums.block)).Clip(size).Union(c.was.Unknown())
		for r := range c.look.Complement(size).All() {
			c.sums.known.add(r.Off/int64(c.sums.block), blockCount(r.End(), c.sums.block))
		}
	}
	c.data = data.Align(int64(c.sums.block)).Intersect(c.look)
	c.pace = newPace(o, dst, c.sums.block)
	if c.dst, err = openDest(dst, size, o.Direct); err != nil {
		return nil, err
	}
	return c, nil
}

// begin notes what is known of the destination.
func (c *copier) begin() error {
	size, before := c.stats.Size, c.o.Before
	block := c.o.BlockSize
	if before != nil {
		if block != 0 && block != before.block {
			return fmt.Errorf("cannot copy the changes of source: block size %d, but %d in the earlier digests", block, before.block)
		}
		block = before.block
	}
	if block == 0 {
		block = blockFor(size)
	}
	if err := checkBlock(block); err != nil {
		return fmt.Errorf("cannot copy source: %w", err)
	}
	switch {
	case before == nil && c.o.KnownZero:
		c.sums = newDigests(size, block)
	case before == nil:
		c.sums = nothing(size, block)
	case before.size == size:
		c.sums = before.clone()
	case blockCount(size, block) > 2*maxSums: // it grew so much that its blocks are too small
		c.sums = nothing(size, blockFor(size))
	default:
		c.sums = before.resized(size)
	}
	c.was = *c.sums
	c.sums.known, c.sums.restUnknown = newBlockSet(int64(len(c.sums.sums))), false
	return nil
}
