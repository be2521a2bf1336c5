package main

import (
	"context"
	"time"

	"xenlvm/lib/cli"
	"xenlvm/lib/convert"
	"xenlvm/lib/host"
	"xenlvm/lib/journal"
	"xenlvm/lib/mapping"
	"xenlvm/lib/run"
)

// runSnapshot copies the images of a domain from a snapshot of the volume, or
// volumes, that they lie on.
func (o *options) runSnapshot(ctx context.Context, e *cli.Env, domain string, rate int64) error {
	opts, err := o.conversion(domain, rate)
	if err != nil {
		return err
	}
	if err := host.NeedRoot("copy from a snapshot"); err != nil {
		return err
	}
	if err := run.Missing("lvs"); err != nil {
		return err
	}
	j, err := journal.Open(opts.StateDir, domain, e.Tool)
	if err != nil {
		return err
	}
	// Looked at before the journal's directory is made: a name that is no
	// domain's must leave nothing behind.
	if err := convert.CheckDomain(opts); err != nil {
		return err
	}
	if !e.DryRun { // which leaves nothing behind, not even the lock's directory
		release, err := j.Lock()
		if err != nil {
			return err
		}
		defer release()
	}
	leftovers, err := convert.Reclaim(ctx, e.Runner, domain)
	if err != nil {
		return err
	}
	if len(leftovers) > 0 {
		e.Infof("an earlier run of %s was killed: clearing what it left", domain)
		if err := e.Apply(ctx, leftovers); err != nil || e.DryRun {
			return err // what comes then can be planned when they are gone
		}
	}
	c, err := convert.Prepare(ctx, e.Runner, reporter{e}, j, opts)
	if err != nil {
		return err
	}
	for _, s := range c.Skipped {
		e.Infof("leaving out %s", s)
	}
	began := time.Now()
	changed := len(c.Disks) > 0
	if !changed {
		e.Infof("nothing to do: %s has no disk on an image file", domain)
	} else if err := convertDisks(ctx, e, c); err != nil {
		return err
	}
	state := mapping.Copied
	if e.DryRun {
		state = mapping.Planned
	}
	if e.JSON {
		return e.Delivered(e.Emit(result(c, changed, state, time.Since(began))))
	}
	if e.DryRun {
		return nil
	}
	return e.Delivered(mapping.Write(e.Stdout, c.Lines(state)))
}

func convertDisks(ctx context.Context, e *cli.Env, c *convert.Conversion) error {
	for _, d := range c.Disks {
		e.Infof("%s: %s to %s by %s: %s", d.VDev, d.Image, d.Dest.Path, d.Method, d.Why)
	}
	copying, commit, err := c.Plan(ctx)
	if err != nil {
		return err
	}
	if err := e.Apply(ctx, copying); err != nil {
		return err
	}
	if err := e.Apply(ctx, commit); err != nil {
		return err
	}
	if !e.DryRun {
		for _, d := range c.Disks {
			e.Infof("%s", howMuch(d))
		}
	}
	return nil
}

// disk is one disk in the JSON result.
type disk struct {
	mapping.Line
	convert.Result
	Method string `json:"method"`
	Why    string `json:"why"`
	Origin string `json:"origin"`
}

func result(c *convert.Conversion, changed bool, state mapping.State, took time.Duration) any {
	var read, written int64
	disks := []disk{}
	for i, line := range c.Lines(state) {
		d := c.Disks[i]
		disks = append(disks, disk{line, d.Result, string(d.Method), d.Why, d.Origin.Spec()})
		read += d.Result.BytesRead
		written += d.Result.BytesWritten
	}
	return map[string]any{"changed": changed, "disks": disks, "skipped": c.Skipped, "bytes_read": read, "bytes_written": written, "seconds": took.Seconds()}
}
