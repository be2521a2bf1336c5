package main

import (
	"context"
	"errors"
	"strconv"
	"time"

	"xenlvm/lib/cli"
	"xenlvm/lib/convert"
	"xenlvm/lib/fault"
	"xenlvm/lib/journal"
	"xenlvm/lib/mapping"
	"xenlvm/lib/units"
)

const (
	// enough is how many seconds of copying a final pass may take before another one
	// is made while the domain runs: far less than its shutdown and start.
	enough = 2
	// shrinks is by how much a pass must be smaller than the one before for another
	// one to be worth it.
	shrinks = 0.9
	// mostPasses bounds --passes auto.
	mostPasses = 10
)

// pass is what one pass did, and what is expected of a next one.
type pass struct {
	Read    int64             `json:"bytes_read"`
	Written int64             `json:"bytes_written"`
	Zeroed  int64             `json:"bytes_zeroed"`
	Next    *convert.Forecast `json:"forecast,omitempty"`
}

// parsePasses is the number of passes at most, and whether fewer may do.
func parsePasses(s string) (most int, auto bool, err error) {
	if s == "auto" {
		return mostPasses, true, nil
	}
	most, err = strconv.Atoi(s)
	if err != nil || most < 1 {
		return 0, false, fault.BadUsage("cannot read --passes %q: want a number, or auto", s)
	}
	return most, false, nil
}

// runPasses copies, and copies what changed meanwhile: most times, or if auto is set
// as often of these as it is worth.
func (o *options) runPasses(ctx context.Context, e *cli.Env, j *journal.Journal, opts convert.Options, most int, auto bool) (err error) {
	if o.final || e.DryRun { // a later pass would be another one
		most = 1
	}
	keep := o.keepBase && !o.final
	began := time.Now()
	var done []pass
	var c *convert.Conversion
	for more := true; more; {
		opts.KeepBase = keep || len(done)+1 < most
		if c, err = runPass(ctx, e, j, opts); err != nil {
			if len(done) > 0 { // what is refused then is no refusal: a pass was made
				err = fault.With(fault.Failed, err)
			}
			break
		}
		p := passOf(c)
		if more = len(c.Disks) > 0 && len(done)+1 < most; more {
			f := c.Forecast(time.Now())
			p.Next = &f
			e.Infof("pass %d: a next one is expected to read %s in %.1f s", len(done)+1, units.Bytes(f.Bytes), f.Seconds)
			more = !auto || f.Seconds > enough && worth(done, p)
		}
		done = append(done, p)
	}
	if len(done) > 0 && most > 1 && (err != nil || !keep) {
		_, derr := dropQuietly(context.WithoutCancel(ctx), e, j.Domain)
		err = errors.Join(err, derr)
	}
	if err != nil {
		return err
	}
	return deliver(e, c, done, time.Since(began))
}

// worth says whether pass p was so much smaller than the ones that are done that
// another one will be, too.
func worth(done []pass, p pass) bool {
	return len(done) == 0 || float64(p.changed()) <= shrinks*float64(done[len(done)-1].changed())
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
		e.Infof("nothing to do: %s has no disk on an image file", j.Domain)
		return c, nil
	}
	return c, convertDisks(ctx, e, c)
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
	Origin string `json:"origin"`
}

// result is the JSON result of passes, the last of which was c.
func result(c *convert.Conversion, state mapping.State, done []pass, took time.Duration) any {
	disks := []disk{}
	for i, line := range c.Lines(state) {
		d := c.Disks[i]
		disks = append(disks, disk{line, d.Result, string(d.Method), d.Why, d.Origin.Spec()})
	}
	var read, written int64
	for _, p := range done {
		read, written = read+p.Read, written+p.Written
	}
	return map[string]any{"changed": len(disks) > 0, "disks": disks, "skipped": c.Skipped, "passes": done, "bytes_read": read, "bytes_written": written, "seconds": took.Seconds()}
}
