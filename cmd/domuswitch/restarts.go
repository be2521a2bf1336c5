package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"

	"xenlvm/lib/fault"
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
// be gone.
func (k *checker) restartsFrom(moves []*move, change *replacement) (step.Plan, error) {
	before := k.d.cfg
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
	var was stored
	_, told := journal.Last(k.d.records, journal.KindStored, func(data json.RawMessage) bool {
		was = stored{}
		return json.Unmarshal(data, &was) == nil && was.Domain.ID == k.now.ID
	})
	if !needed || told && was.Sum == sum(change.content) && bytes.Equal(change.content, k.d.file.Content) {
		return nil, nil
	}
	update := xl.ConfigUpdate(k.d.name, k.d.file.Path)
	return step.Plan{{
		What: "let a reboot of " + k.d.name + " start from " + k.d.file.Path, Line: update.Line(),
		Do: func(ctx context.Context) error {
			return k.d.restartFrom(ctx, k.e.Runner, k.now.Domain, update, change.content)
		},
		Undo: func(ctx context.Context) error {
			return k.d.withTemp("stored.cfg", before, func(path string) error {
				return k.d.restartFrom(ctx, k.e.Runner, k.now.Domain, xl.ConfigUpdate(k.d.name, path), before.Bytes())
			})
		},
		UndoLine: update.Line(),
	}}, nil
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
	if err := d.writeTemp(name, cfg); err != nil {
		return err
	}
	defer os.Remove(d.temp(name))
	return use(d.temp(name))
}

// writeTemp writes it beside the journal, where one that a killed run left is
// written over.
func (d *domain) writeTemp(name string, cfg *xlcfg.File) error {
	err := d.journal.MakeDir()
	if err == nil {
		err = os.WriteFile(d.temp(name), cfg.Bytes(), 0o600)
	}
	if err != nil {
		return fault.With(fault.Failed, fmt.Errorf("cannot write a configuration for xl: %w", err))
	}
	return nil
}

// tempStep is a step that has the file until the plan ends.
func (d *domain) tempStep(name string, cfg *xlcfg.File) step.Step {
	return step.Step{
		What: "write a configuration for xl", Line: run.Quote("install", "-D", "-m", "600", "/dev/stdin", d.temp(name)) + " <<'END'\n" + string(cfg.Bytes()) + "\nEND",
		Do:   func(context.Context) error { return d.writeTemp(name, cfg) },
		Undo: func(context.Context) error { return os.Remove(d.temp(name)) }, UndoLine: run.Quote("rm", d.temp(name)),
		Temporary: true,
	}
}
