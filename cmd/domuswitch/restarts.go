package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"

	"xenlvm/lib/journal"
	"xenlvm/lib/run"
	"xenlvm/lib/step"
	"xenlvm/lib/xl"
	"xenlvm/lib/xlcfg"
)

// Xen restarts a guest that reboots from a configuration that it has stored, and
// never from the file.

// stored is what a domain was told to restart from.
type stored struct {
	Domain xl.Domain `json:"domain"`
	Sum    string    `json:"sha256"` // of the configuration
}

// restartsFrom are the steps after which a reboot from inside the guest leads to
// the new configuration: for a domain that runs on mdmirror's devices, which will
// be gone. Other disks that are mirrored stay on their mirrors: on what the file
// names the guest would write beside them.
func (k *checker) restartsFrom(moves []*move, after *xlcfg.File) (step.Plan, error) {
	before, same := k.d.cfg, bytes.Equal(after.Bytes(), k.d.file.Content)
	needed := false
	for _, m := range moves {
		if m.above == nil {
			continue
		}
		needed = true
		var err error
		if before, err = before.SetDisk(m.disk.VDev, m.above.Path); err != nil {
			return nil, refused(err)
		}
	}
	if !needed {
		return nil, nil
	}
	before, _, err := k.onMirrors(before, moves)
	if err != nil {
		return nil, err
	}
	after, stay, err := k.onMirrors(after, moves)
	if err != nil {
		return nil, err
	}
	var was stored
	_, told := journal.Last(k.d.records, journal.KindStored, func(data json.RawMessage) bool {
		was = stored{}
		return json.Unmarshal(data, &was) == nil && was.Domain.ID == k.now.ID
	})
	if told && was.Sum == sum(after.Bytes()) && same {
		return nil, nil
	}
	var plan step.Plan
	from := k.d.file.Path
	if stay {
		const name = "restart.cfg"
		plan, from = step.Plan{k.d.tempStep(name, after)}, k.d.temp(name)
	}
	update := xl.ConfigUpdate(k.d.name, from)
	return append(plan, step.Step{
		What: "let a reboot of " + k.d.name + " start from " + from, Line: update.Line(),
		Do: func(ctx context.Context) error {
			return k.d.restartFrom(ctx, k.e.Runner, k.now.Domain, update, after.Bytes())
		},
		Undo: func(ctx context.Context) error {
			return k.d.withTemp("stored.cfg", before, func(path string) error {
				return k.d.restartFrom(ctx, k.e.Runner, k.now.Domain, xl.ConfigUpdate(k.d.name, path), before.Bytes())
			})
		},
		UndoLine: update.Line(),
	}), nil
}

// onMirrors is a configuration in which those disks that are not moved, and run on
// a device of mdmirror, have that. The boolean says whether there are any.
func (k *checker) onMirrors(cfg *xlcfg.File, moves []*move) (*xlcfg.File, bool, error) {
	any := false
	for _, live := range k.now.disks {
		if !live.HasDevice || slices.ContainsFunc(moves, func(m *move) bool { return xlcfg.SameDevice(m.disk.VDev, live.VDev) }) {
			continue
		}
		_, is, err := k.c.mirror(live.Number())
		if err != nil {
			return nil, false, err
		}
		if !is {
			continue
		}
		any = true
		if cfg, err = cfg.SetDisk(live.VDev, live.Path); err != nil {
			return nil, false, refused(err)
		}
	}
	return cfg, any, nil
}

// restartFrom tells Xen, and writes it down.
func (d *domain) restartFrom(ctx context.Context, r run.Runner, dom xl.Domain, update run.Cmd, content []byte) error {
	if _, err := r.Run(ctx, update); err != nil {
		return fmt.Errorf("cannot change what %s restarts from: %w", d.name, err)
	}
	return d.journal.Append(journal.KindStored, stored{Domain: dom, Sum: sum(content)})
}

// temp is the path of a configuration that xl reads and that does not last.
func (d *domain) temp(name string) string { return d.journal.Path(name) }

// withTemp lets use have a configuration in a file that only root can read.
func (d *domain) withTemp(name string, cfg *xlcfg.File, use func(path string) error) error {
	if err := d.journal.WriteFile(name, cfg.Bytes()); err != nil {
		return err
	}
	defer os.Remove(d.temp(name))
	return use(d.temp(name))
}

// tempStep is a step that has the file until the plan ends.
func (d *domain) tempStep(name string, cfg *xlcfg.File) step.Step {
	return d.journal.Temporary("write a configuration for xl", name, cfg.Bytes())
}
