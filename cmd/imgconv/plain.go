package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"xenlvm/lib/blockcopy"
	"xenlvm/lib/cli"
	"xenlvm/lib/diskimg"
	"xenlvm/lib/fault"
	"xenlvm/lib/run"
	"xenlvm/lib/units"
)

// runPlain copies one image or device onto another. What the destination holds
// is read and compared first, if it holds anything: only blocks that differ are
// written.
func (o *options) runPlain(ctx context.Context, e *cli.Env, source, destination string, rate int64) error {
	src, err := o.openSource(ctx, e.Runner, source)
	if err != nil {
		return err
	}
	defer src.Close()
	if err := check(ctx, e.Runner, src, destination); err != nil {
		return err
	}
	t, err := openTarget(destination, src, e.DryRun)
	if err != nil {
		return err
	}
	defer t.close()
	if err := t.findVolume(ctx, e.Runner); err != nil {
		return err
	}
	began := time.Now()
	stats, changed, err := o.copyPlain(ctx, e, src, t, rate)
	if e.DryRun && err == nil && changed {
		return o.dryPlain(e, src, source, destination)
	}
	if !e.DryRun {
		if err != nil {
			err = t.failed(err)
		} else {
			err = t.finish(ctx, e.Runner)
		}
	}
	if err != nil {
		return err
	}
	if !changed {
		e.Infof("nothing to do: %s is equal to %s", destination, source)
	} else {
		e.Infof("read %s, wrote %s, made %s zero of %s", units.Bytes(stats.BytesRead), units.Bytes(stats.BytesWritten), units.Bytes(stats.BytesZeroed), units.Bytes(stats.Size))
	}
	if e.JSON {
		return e.Delivered(e.Emit(map[string]any{"changed": changed, "source": source, "destination": destination, "bytes_read": stats.BytesRead,
			"bytes_written": stats.BytesWritten, "bytes_zeroed": stats.BytesZeroed, "size_bytes": stats.Size, "method": "blocks", "seconds": time.Since(began).Seconds()}))
	}
	return nil
}

// copyPlain compares, copies and verifies. The boolean says whether there is, or
// was, anything to do. A dry run only compares.
func (o *options) copyPlain(ctx context.Context, e *cli.Env, src diskimg.Source, t *target, rate int64) (blockcopy.Stats, bool, error) {
	phase := func(what string) (blockcopy.Options, *cli.Progress) {
		p := e.Progress(what)
		return blockcopy.Options{BytesPerSecond: rate, Progress: func(now blockcopy.Progress) { p.Update(now.Read, now.Total) }}, p
	}
	nothing := blockcopy.Stats{Size: src.Size()}
	opts, p := phase("compare")
	before, equal, err := t.compare(ctx, src, opts)
	p.Done()
	switch {
	case err != nil:
		return nothing, false, err
	case equal:
		return nothing, t.tagged(), src.Unchanged()
	case !t.empty && !o.overwrite:
		return nothing, false, fault.Hint(fault.Refuse("cannot copy to %s: it holds other data", t.path),
			"--overwrite makes it equal to the source; only blocks that differ are written")
	case e.DryRun:
		return nothing, true, nil
	}
	if err := t.checkAgain(ctx, e.Runner); err != nil {
		return nothing, false, err
	}
	if err := t.tag(ctx, e.Runner); err != nil {
		return nothing, false, err
	}
	t.written = true
	opts, p = phase("copy")
	opts.Before, opts.KnownZero = before, t.empty
	stats, sums, err := blockcopy.Copy(ctx, t.f, src, opts)
	p.Done()
	if err == nil {
		err = src.Unchanged()
	}
	if err != nil {
		return stats, true, err
	}
	opts, p = phase("verify")
	err = blockcopy.Verify(ctx, t.f, sums, nil, opts)
	p.Done()
	var m *blockcopy.MismatchError
	if errors.As(err, &m) {
		err = fault.With(fault.Mismatch, fmt.Errorf("cannot trust %s: %w", t.path, err))
	}
	return stats, true, err
}

// dryPlain prints the one line that there is.
func (o *options) dryPlain(e *cli.Env, src diskimg.Source, source, destination string) error {
	line := []string{e.Tool}
	if o.overwrite {
		line = append(line, "--overwrite")
	}
	if o.format != "" {
		line = append(line, "--format", o.format)
	}
	if o.limit != "" {
		line = append(line, "--bwlimit", o.limit)
	}
	if e.JSON {
		return e.Emit(map[string]any{"changed": true, "source": source, "destination": destination, "size_bytes": src.Size(), "method": "blocks"})
	}
	_, err := fmt.Fprintln(e.Stdout, run.Quote(append(line, "--", source, destination)...))
	return err
}
