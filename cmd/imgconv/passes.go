package main

import (
	"context"
	"errors"
	"slices"
	"time"

	"xenlvm/lib/cli"
	"xenlvm/lib/convert"
	"xenlvm/lib/diskimg"
	"xenlvm/lib/fault"
	"xenlvm/lib/journal"
	"xenlvm/lib/mapping"
	"xenlvm/lib/run"
)

// pass is what one pass did, and what is expected of a next one.
type pass struct {
	Read    int64             `json:"bytes_read"`
	Written int64             `json:"bytes_written"`
	Zeroed  int64             `json:"bytes_zeroed"`
	Next    *convert.Forecast `json:"forecast,omitempty"`
	// Expected is how long the domain would be down if the next pass were the final one.
	Expected *journal.Expected `json:"expected_interruption,omitempty"`
	// first says that it was not a delta: the most that a later one can take, so that
	// it is compared with, but told to nobody.
	first bool
}

// runPasses copies, and copies what changed meanwhile, until the goal is reached or
// further passes do not lead there.
func (o *options) runPasses(ctx context.Context, e *cli.Env, j *journal.Journal, opts convert.Options, g goal) (err error) {
	began := time.Now()
	var done []pass
	var c *convert.Conversion
	for more := true; more; {
		start := time.Now()
		opts.KeepBase = g.keep || len(done)+1 < g.most
		if c, err = runPass(ctx, e, j, opts); err != nil {
			if len(done) > 0 { // what is refused then is no refusal: a pass was made
				err = fault.With(fault.Failed, err)
			}
			break
		}
		p := passOf(c)
		if opts.KeepBase && len(c.Disks) > 0 && !e.DryRun {
			p.foresee(c, g, time.Since(start))
		}
		more = p.Next != nil && len(done)+1 < g.most && g.more(done, p)
		done = append(done, p)
		p.tell(e, len(done))
	}
	if err == nil && len(done) > 0 {
		err = g.reached(j, done[len(done)-1])
	}
	if len(done) > 0 && g.most > 1 && (err != nil || !g.keep) {
		_, derr := dropQuietly(context.WithoutCancel(ctx), e, j)
		err = errors.Join(err, derr)
	}
	if err != nil {
		return err
	}
	if g.keep && !e.DryRun {
		tellKept(e, j.Domain, c)
	}
	return deliver(e, c, done, time.Since(began))
}

// tellKept says how to get rid of a base that is kept: it slows down writes, and may
// fill its pool.
func tellKept(e *cli.Env, domain string, c *convert.Conversion) {
	if slices.ContainsFunc(c.Disks, func(d *convert.Disk) bool { return d.Method == convert.Blocks && d.Format == string(diskimg.Raw) }) {
		e.Infof("the base of the next pass is kept, and nobody watches it; if none is to follow soon: imgconv --snapshot --drop-base %s", run.Quote(domain))
	}
}

// changed is how many bytes of the destinations it changed.
func (p pass) changed() int64 { return p.Written + p.Zeroed }

func passOf(c *convert.Conversion) pass {
	var p pass
	for _, d := range c.Disks {
		p.Read += d.Result.BytesRead
		p.Written += d.Result.BytesWritten
		p.Zeroed += d.Result.BytesZeroed
	}
	return p
}

func runPass(ctx context.Context, e *cli.Env, j *journal.Journal, opts convert.Options) (*convert.Conversion, error) {
	c, err := convert.Prepare(ctx, e.Runner, reporter{e}, j, opts)
	if err != nil {
		return nil, err
	}
	for _, s := range c.Skipped {
		e.Infof("leaving out %s", s)
	}
	if len(c.Disks) == 0 {
		return c, dropUnneeded(ctx, e, j, c)
	}
	return c, convertDisks(ctx, e, c)
}

// dropUnneeded removes the base of a domain that has no disk any more to use it:
// somebody else changed the configuration.
func dropUnneeded(ctx context.Context, e *cli.Env, j *journal.Journal, c *convert.Conversion) (err error) {
	if c.Dropped, err = dropQuietly(ctx, e, j); err != nil {
		return err
	}
	what := "nothing to do"
	if c.Dropped {
		what += " but to remove the base of the last pass"
	}
	e.Infof("%s: %s has no disk on an image file", what, j.Domain)
	return nil
}

func deliver(e *cli.Env, c *convert.Conversion, done []pass, took time.Duration) error {
	state := mapping.Copied
	if e.DryRun {
		state = mapping.Planned
	}
	if e.JSON {
		return e.Delivered(e.Emit(result(c, state, done, took)))
	}
	if e.DryRun {
		return nil
	}
	return e.Delivered(mapping.Write(e.Stdout, c.Lines(state)))
}

// disk is one disk in the JSON result.
type disk struct {
	mapping.Line
	convert.Result
	Method string `json:"method"`
	Why    string `json:"why"`
	Origin string `json:"origin,omitempty"` // the volume that was snapshotted
}

// result is the JSON result of passes, the last of which was c.
func result(c *convert.Conversion, state mapping.State, done []pass, took time.Duration) any {
	disks := []disk{}
	for i, line := range c.Lines(state) {
		d := c.Disks[i]
		disks = append(disks, disk{line, d.Result, string(d.Method), d.Why, d.OriginSpec()})
	}
	var read, written int64
	for i, p := range done {
		if p.first {
			done[i].Expected = nil
		}
		read, written = read+p.Read, written+p.Written
	}
	return map[string]any{"changed": len(disks) > 0 || c.Dropped, "disks": disks, "skipped": c.Skipped, "passes": done, "bytes_read": read, "bytes_written": written, "seconds": took.Seconds()}
}
