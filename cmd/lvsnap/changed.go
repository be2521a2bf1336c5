package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"xenlvm/lib/changed"
	"xenlvm/lib/cli"
	"xenlvm/lib/extent"
	"xenlvm/lib/fault"
	"xenlvm/lib/lvm"
	"xenlvm/lib/mnt"
	"xenlvm/lib/snap"
	"xenlvm/lib/step"
)

// changed prints what changed on the origin of a snapshot, or in a file on it.
func (o *options) changed(ctx context.Context, e *cli.Env, args []string) error {
	lv, err := findSnapshot(ctx, e, args[0])
	if err != nil {
		return err
	}
	if lv.Invalid {
		return lost("tell what changed since", lv)
	}
	origin, err := find(ctx, e, lv.VG+"/"+lv.Origin)
	if err != nil {
		return err
	}
	var written extent.Set
	finding, err := changed.Finding(e.Runner, lv, origin, &written)
	if err != nil {
		return err
	}
	if o.file == "" {
		if err := e.Apply(ctx, step.Plan{finding}); err != nil {
			return err
		}
		return o.printChanged(e, lv, int64(origin.Size), written)
	}
	var before, after changed.Map
	plan, err := o.mapping(lv, origin, &before, &after)
	if err != nil {
		return err
	}
	if err := e.Apply(ctx, append(plan, finding)); err != nil {
		return err
	}
	return o.printChanged(e, lv, after.Size, changed.Between(before, after, written))
}

// mapping plans the maps of --file: as it was in the snapshot, which is mounted for
// it, and then as it is.
func (o *options) mapping(lv, origin lvm.LV, before, after *changed.Map) (step.Plan, error) {
	path, err := filepath.Abs(o.file)
	if err == nil {
		path, err = filepath.EvalSymlinks(path)
	}
	if err != nil {
		return nil, fault.Refuse("cannot find %s: %w", o.file, fault.Reason(err))
	}
	if err := changed.WithFile(path, number(origin), nil); err != nil {
		return nil, err
	}
	_, inside, err := mnt.Of(path)
	if err != nil {
		return nil, err
	}
	fsType, err := snap.FileSystem(lv.Path)
	if err != nil {
		return nil, err
	}
	base, plan, err := mountOurs(lv, fsType)
	if err != nil {
		return nil, err
	}
	for i := range plan {
		plan[i].Temporary = true
	}
	old := filepath.Join(base, inside)
	return append(plan, step.Step{
		What: "map " + old,
		Do: func(context.Context) (err error) {
			*before, err = changed.MapOf(old, number(lv))
			if errors.Is(err, fs.ErrNotExist) {
				err = fault.Hint(err, "all of %s is newer than snapshot %s", o.file, lv.Spec())
			}
			return err
		},
	}, step.Step{
		What: "map " + path,
		Do: func(context.Context) error {
			return changed.WithFile(path, number(origin), func(f *os.File) (err error) {
				if err = changed.Settle(f, number(origin)); err == nil {
					*after, err = changed.ReadMap(f)
				}
				return err
			})
		},
	}), nil
}

// printChanged prints lines "offset length", or one JSON object. Size is that of the
// file or the volume.
func (o *options) printChanged(e *cli.Env, lv lvm.LV, size int64, set extent.Set) error {
	if e.JSON {
		type piece struct {
			Offset int64 `json:"offset"`
			Length int64 `json:"length"`
		}
		result := map[string]any{"changed": false, "snapshot": lv.Spec(), "origin": lv.VG + "/" + lv.Origin, "file": o.file}
		if !e.DryRun {
			pieces := make([]piece, 0, set.Len())
			for r := range set.All() {
				pieces = append(pieces, piece{r.Off, r.Len})
			}
			result["size_bytes"], result["changed_bytes"], result["ranges"] = size, set.Bytes(), pieces
		}
		return e.Emit(result)
	}
	w := bufio.NewWriter(e.Stdout)
	for r := range set.All() {
		fmt.Fprintln(w, r)
	}
	return w.Flush()
}
