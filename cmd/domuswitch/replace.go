package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/aymanbagabas/go-udiff"

	"xenlvm/lib/atomicfile"
	"xenlvm/lib/journal"
	"xenlvm/lib/mapping"
	"xenlvm/lib/run"
	"xenlvm/lib/step"
)

// replacement is a configuration that is to be replaced.
type replacement struct {
	d       *domain
	kind    string // journal.KindApplied or journal.KindReverted
	content []byte
	lines   []mapping.Line
	// ready is asked right before the file is replaced: the domain may have
	// been started by somebody else since the checks. Nil: it does not matter.
	ready   func(context.Context) error
	running bool   // the domain has the new disks already
	backup  string // the name beside the journal, once there are steps
	first   step.Plan
	then    step.Plan
	// doors are the back doors that first makes.
	doors []*journal.BackDoor
}

// diff is the change as a unified diff.
func (r *replacement) diff() string {
	path := r.d.file.Real
	return udiff.Unified(path, path, string(r.d.file.Content), string(r.content))
}

// steps are what comes first; keep the old file and record the intent, then write the
// new one, unless it is as it should be; then what has to follow. Whether it was written is
// told by the sum of the file.
func (r *replacement) steps() step.Plan {
	d, old := r.d, r.d.file.Content
	if bytes.Equal(r.content, old) {
		return r.then
	}
	r.backup = "config." + time.Now().UTC().Format("20060102T150405.000000000Z")
	backup, path := d.journal.Path(r.backup), d.file.Real
	restore := run.Quote("cp", "-p", backup, path)
	return slices.Concat(r.first, step.Plan{
		{
			What: "keep " + path + " as " + backup,
			Line: run.Quote("install", "-D", "-m", "600", path, backup),
			Do:   func(context.Context) error { return r.keep(backup, old) },
			Undo: func(context.Context) error {
				if bytes.Equal(d.file.Content, r.content) {
					return nil // revert needs it: the new one is in place, though perhaps not for good
				}
				return os.Remove(backup)
			},
			UndoLine: run.Quote("rm", backup),
		},
		{
			What: "rewrite " + d.file.Path,
			Line: run.Quote("patch", path) + " <<'END'\n" + r.diff() + "END",
			Do: func(ctx context.Context) error {
				if r.ready != nil {
					if err := r.ready(ctx); err != nil {
						return err
					}
				}
				return d.file.Replace(r.content)
			},
			Undo:     func(context.Context) error { return d.file.Replace(old) },
			UndoLine: restore,
		},
	}, r.then)
}

// keep writes the backup and the intent.
func (r *replacement) keep(backup string, old []byte) error {
	if err := r.d.journal.MakeDir(); err != nil {
		return err
	}
	if err := atomicfile.Create(backup, old); err != nil {
		return fmt.Errorf("cannot keep the configuration of %s: %w", r.d.name, err)
	}
	var doors []journal.BackDoor
	for _, b := range r.doors {
		doors = append(doors, *b)
	}
	sectors, seqs := written(r.lines)
	err := r.d.journal.Append(r.kind, journal.Replaced{
		Config: r.d.file.Path, Real: r.d.file.Real, Backup: r.backup, Before: sum(old), After: sum(r.content), Mappings: r.lines, Running: r.running, Written: sectors, DiskSeq: seqs, BackDoors: doors, Images: r.imagesLeft(),
	})
	if err != nil {
		return errors.Join(err, os.Remove(backup))
	}
	return nil
}

// imagesLeft are the image files that the domain leaves, for purge to know them again.
func (r *replacement) imagesLeft() []journal.Image {
	var all []journal.Image
	for _, l := range r.lines {
		if info, err := os.Stat(l.Source); err != nil || !info.Mode().IsRegular() || r.kind != journal.KindApplied {
			continue
		}
		if i, err := lookAt(l.Source); err == nil {
			all = append(all, i)
		}
	}
	return all
}
