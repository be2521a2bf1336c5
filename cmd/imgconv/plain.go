package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"xenlvm/lib/blockcopy"
	"xenlvm/lib/cli"
	"xenlvm/lib/convert"
	"xenlvm/lib/directio"
	"xenlvm/lib/extent"
	"xenlvm/lib/fault"
	"xenlvm/lib/fsmap"
	"xenlvm/lib/run"
	"xenlvm/lib/units"
)

// runPlain copies one image or device onto another.
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
	if left := t.beside(); left != "" {
		e.Infof("%s is there, too: if no other run writes it, an earlier one was killed; if nobody needs it: %s", left, run.Quote("rm", "--", left))
	}
	if odd := t.misnamed(); odd != "" {
		e.Infof("%s", odd)
	}
	if o.whole {
		e.Infof("%s: copied whole: asked for", source)
	}
	for _, r := range src.regions {
		e.Infof("%s: %s", source, r)
	}
	began := time.Now()
	done, err := o.copyPlain(ctx, e, src, t, rate)
	if e.DryRun && err == nil && done.changed {
		return o.dryPlain(e, src, source, destination, done.planned)
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
	if !done.changed {
		e.Infof("nothing to do: %s is equal to %s%s", destination, source, t.andBehind())
	} else {
		e.Infof("%s; %s", amounts(src.read.Load(), done.BytesWritten, done.BytesZeroed, src.Size()), done.verified)
	}
	if e.JSON {
		result := o.describe(src, source, destination, done.changed)
		result["bytes_read"], result["bytes_written"], result["bytes_zeroed"] = src.read.Load(), done.BytesWritten, done.BytesZeroed
		result["continued"], result["verified"], result["seconds"] = done.resumed, done.verified, time.Since(began).Seconds()
		result["bytes_behind"] = t.behind
		return e.Delivered(e.Emit(result))
	}
	return nil
}

// describe is what the JSON of a dry run and of a copy have in common.
func (o *options) describe(src *source, from, to string, changed bool) map[string]any {
	regions := src.regions
	if regions == nil {
		regions = []fsmap.Region{}
	}
	return map[string]any{
		"changed": changed, "source": from, "destination": to, "size_bytes": src.Size(), "method": convert.Blocks,
		"whole": o.whole, "regions": regions,
	}
}

// outcome is what a copy did.
type outcome struct {
	blockcopy.Stats
	changed  bool // there is, or was, anything to do
	resumed  bool // an interrupted copy
	verified convert.Verified
	planned  planned // in a dry run
}

// copyPlain compares, copies and verifies. A dry run only compares.
func (o *options) copyPlain(ctx context.Context, e *cli.Env, source *source, t *target, rate int64) (done outcome, err error) {
	phase := func(what string) (blockcopy.Options, *cli.Progress) {
		if e.Verbose {
			e.Infof("%s", what)
		}
		p := e.Progress(what)
		return blockcopy.Options{Direct: o.direct, BytesPerSecond: rate, Progress: func(now blockcopy.Progress) { p.Update(now.Read, now.Total) }}, p
	}
	src, err := t.fill(source)
	if err != nil {
		return done, err
	}
	opts, p := phase("[1/3] compare")
	before, err := o.newProgress(source, t)
	if err != nil {
		return done, err
	}
	t.progress = before
	has, err := before.resume(ctx, e, t, src, o.overwrite, opts)
	overwrite := o.overwrite || has.ours
	if err == nil && !has.resumed && has.left == 0 {
		has, err = t.compare(ctx, src, overwrite, e.DryRun, opts)
	}
	p.Done()
	switch {
	case err != nil:
		return done, err
	case has.equal && (t.behind == 0 || !overwrite):
		if !e.DryRun {
			before.remove()
		}
		return outcome{changed: t.tagged(), verified: convert.VerifiedFull}, src.Unchanged()
	case !t.empty && !overwrite && !has.resumed:
		return done, o.holdsOther(source, t, has)
	case e.DryRun:
		done.changed = true
		done.planned, err = t.plan(src, has)
		return done, err
	}
	if err := t.checkAgain(ctx, e.Runner); err != nil {
		return done, err
	}
	done.resumed, done.changed = has.resumed, t.empty || t.tagged() || has.resumed
	if err := t.begin(ctx, e.Runner, src, has); err != nil {
		return done, err
	}
	opts, p = phase("[2/3] copy")
	opts.Before, opts.KnownZero, opts.Checkpoint = has.before, t.empty, before.begin(e, t, has)
	if has.same {
		opts.Only = &extent.Set{} // and what is not known
	}
	var sums *blockcopy.Digests
	done.Stats, sums, err = blockcopy.Copy(ctx, t.f, src, opts)
	p.Done()
	if err == nil {
		err = src.Unchanged()
	}
	err = source.shrunk(err)
	if err == nil {
		done.changed = done.changed || !done.Written.Empty() || t.behind > 0
		opts, p = phase("[3/3] verify")
		done.verified, err = o.readBack(ctx, t, sums, done.Written, has, opts)
		p.Done()
	}
	if err == nil {
		err = t.unmoved(src)
	}
	if err == nil {
		err = t.cut(source)
	}
	if err == nil || !t.goesOn(err) {
		before.remove()
	}
	return done, err
}

// readBack compares what the device has with what was copied. What was compared just
// before the copy, and not written, counts as verified; after an interruption there is
// always a sample.
func (o *options) readBack(ctx context.Context, t *target, sums *blockcopy.Digests, written extent.Set, has content, opts blockcopy.Options) (convert.Verified, error) {
	verify := convert.Verify(o.verify)
	switch {
	case has.resumed:
		if verify == convert.VerifyNone {
			verify = convert.VerifySample
		}
		done, err := verify.ReadBack(ctx, t.f, sums, nil, opts)
		if fault.StatusOf(err) == fault.Mismatch {
			again := "run it again"
			if !t.made {
				again += ", with --overwrite"
			}
			err = fault.Hint(err, "if somebody wrote to it after the interruption: %s", again)
		}
		return done, err
	case has.before == nil:
		return verify.ReadBack(ctx, t.f, sums, nil, opts)
	case verify == convert.VerifyDefault && written.Empty():
		return convert.VerifiedFull, nil
	}
	return verify.ReadBack(ctx, t.f, sums, &written, opts)
}

// holdsOther refuses to destroy what a destination holds.
func (o *options) holdsOther(src *source, t *target, has content) error {
	size := ""
	if t.short {
		size = fmt.Sprintf(", and is smaller than the %d bytes of the source", src.Size())
	}
	err := fault.Refuse("cannot copy to %s: it holds other data%s", t.path, size)
	if has.left > 0 {
		return fault.Hint(err, "if nobody needs that: with --overwrite the earlier copy goes on (%s are left)", units.Bytes(has.left))
	}
	err = fault.Hint(err, "--overwrite makes it equal to the source")
	if slices.ContainsFunc(src.regions, func(r fsmap.Region) bool { return r.Free > 0 }) {
		err = fault.Hint(err, "if it is a copy that has the free blocks, too: --whole compares them")
	}
	return err
}

// dryPlain says what would be done, and prints the one line that there is.
func (o *options) dryPlain(e *cli.Env, src *source, source, destination string, p planned) error {
	e.Infof("%s holds %s", destination, p)
	if e.JSON {
		result := o.describe(src, source, destination, true)
		result["destination_holds"], result["bytes_to_copy"], result["bytes_to_zero"], result["bytes_to_cut"] = p.holds, p.copied, p.zeroed, p.cut
		return e.Emit(result)
	}
	line := []string{e.Tool}
	if o.overwrite {
		line = append(line, "--overwrite")
	}
	if o.whole {
		line = append(line, "--whole")
	}
	for _, flag := range []struct{ name, value, otherwise string }{
		{"--format", o.format, ""}, {"--bwlimit", o.limit, ""}, {"--verify", o.verify, ""}, {"--direct", o.direct.String(), directio.Auto.String()},
	} {
		if flag.value != flag.otherwise {
			line = append(line, flag.name, flag.value)
		}
	}
	if e.Given("state-dir") {
		line = append(line, "--state-dir", o.stateDir)
	}
	_, err := fmt.Fprintln(e.Stdout, run.Quote(append(line, "--", source, destination)...))
	return err
}
