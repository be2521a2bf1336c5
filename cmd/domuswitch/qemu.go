package main

import (
	"context"
	"errors"
	"os"

	"xenlvm/lib/cli"
	"xenlvm/lib/qmp"
)

// qdisk is the kind of backend that QEMU serves.
const qdisk = "qdisk"

// sectorOfQEMU is the sector size in bytes of the disks that QEMU serves to
// guests of Xen.
const sectorOfQEMU = 512

// look finds a domain with its disks. What QEMU serves is what QEMU says: it can
// have been moved since, which xenstore does not tell.
func (c *command) look(ctx context.Context, e *cli.Env, name string) (present, error) {
	now, err := look(ctx, e.Runner, name)
	if err != nil {
		return now, err
	}
	for i, d := range now.disks {
		if d.Kind != qdisk || d.CDROM {
			continue
		}
		if _, err := os.Stat(c.socket(now.ID)); err != nil {
			continue
		}
		err := c.ask(ctx, now.ID, func(ctx context.Context, q *qmp.Client) error {
			in, err := q.Disk(ctx, d.VDev)
			if err == nil && in.File != d.Path {
				now.disks[i].Path = in.File
				now.strayed = append(now.strayed, d.VDev)
			}
			return err
		})
		if err != nil {
			e.Printf("cannot see what disk %s of %s is on: %v", d.VDev, name, err)
		}
	}
	return now, nil
}

// ask talks to the QEMU of a domain, and lets go of it: xl needs it, too.
func (c *command) ask(ctx context.Context, domid int, f func(context.Context, *qmp.Client) error) error {
	q, err := qmp.Dial(ctx, c.socket(domid), c.patience)
	if err != nil {
		return err
	}
	return errors.Join(f(ctx, q), q.Close())
}

func (m *moving) ask(ctx context.Context, f func(context.Context, *qmp.Client) error) error {
	return m.c.ask(ctx, m.now.ID, f)
}

// inQEMU says whether the disks are moved by QEMU.
func (m *moving) inQEMU() bool {
	for _, mv := range m.moves {
		if mv.live.Kind == qdisk {
			return true
		}
	}
	return false
}
