package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"xenlvm/internal/fakehost"
	"xenlvm/lib/blkdev"
	"xenlvm/lib/blockcopy"
	"xenlvm/lib/extent"
	"xenlvm/lib/fault"
	"xenlvm/lib/journal"
	"xenlvm/lib/lvm"
	"xenlvm/lib/run"
)

// fakeBackDoors has what a volume holds in a file at the path of its device.
func fakeBackDoors() backDoorHost {
	// find is the fake of a volume.
	find := func(path string) (d fakehost.Device, err error) {
		s, err := fakehost.Load()
		if err == nil && s.Devices[path] != nil {
			d = *s.Devices[path]
		}
		return d, err
	}
	return backDoorHost{
		counted: func(dev blkdev.Device) (int64, error) {
			d, err := find(dev.Path)
			return d.Written, err
		},
		usage: func(v lvm.LV) (lvm.Usage, error) {
			d, err := find(v.Path)
			if err == nil && d.Lost {
				err = lvm.ErrLost
			}
			return lvm.Usage{Used: 1, Size: v.COW}, err
		},
		written: func(_ context.Context, _ run.Runner, snapshot, _ lvm.LV) (extent.Set, error) {
			d, err := find(snapshot.Path)
			if err == nil && d.Lost {
				err = fault.With(fault.Refused, lvm.ErrLost)
			}
			return extent.Of(d.Changed...), err
		},
		open:  openVolume,
		loops: func(string) ([]blkdev.Number, error) { return nil, nil },
	}
}

// fill FILE OFFSET LENGTH LETTER: write letters, or "zeros", to a file, whose time stays.
func fill(ts *testscript.TestScript, _ bool, args []string) {
	off, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	n, err := strconv.Atoi(args[2])
	ts.Check(err)
	path := ts.MkAbs(args[0])
	info, err := os.Stat(path)
	ts.Check(err)
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	ts.Check(err)
	_, err = f.WriteAt(bytes.Repeat([]byte(strings.TrimSuffix(args[3], "zeros") + "\x00")[:1], n), off)
	ts.Check(err)
	ts.Check(f.Close())
	ts.Check(os.Chtimes(path, time.Time{}, info.ModTime()))
}

// digests FILE DOMAIN NAME: keep the digests of a file beside the domain's journal, as
// imgconv does.
func digests(ts *testscript.TestScript, _ bool, args []string) {
	f, err := os.Open(ts.MkAbs(args[0]))
	ts.Check(err)
	defer f.Close()
	info, err := f.Stat()
	ts.Check(err)
	sums, err := blockcopy.Scan(context.Background(), f, info.Size(), blockcopy.Options{})
	ts.Check(err)
	dir := filepath.Join(ts.Getenv("DOMUSWITCH_STATE_DIR"), args[1])
	ts.Check(os.MkdirAll(dir, 0o700))
	out, err := os.Create(filepath.Join(dir, args[2]))
	ts.Check(err)
	_, err = sums.WriteTo(out)
	ts.Check(err)
	ts.Check(out.Close())
}

// replaying DOMAIN: a run was killed while it brought the volume of the domain's newest
// back door into its image.
func replaying(ts *testscript.TestScript, _ bool, args []string) {
	j, err := journal.Open(ts.Getenv("DOMUSWITCH_STATE_DIR"), args[0], "domuswitch")
	ts.Check(err)
	records, err := j.Read()
	ts.Check(err)
	r, ok := journal.Last(records, journal.KindApplied, nil)
	if !ok {
		ts.Fatalf("no record of an apply")
	}
	var a journal.Replaced
	ts.Check(json.Unmarshal(r.Data, &a))
	ts.Check(j.Append(journal.KindReplaying, a.BackDoors[0]))
}

// chunks VOLUME SNAPSHOT OFFSET LENGTH LETTER: the guest writes to a volume, and the
// snapshot knows.
func chunks(ts *testscript.TestScript, neg bool, args []string) {
	fill(ts, neg, append(args[:1:1], args[2:]...))
	off, err := strconv.ParseInt(args[2], 10, 64)
	ts.Check(err)
	n, err := strconv.ParseInt(args[3], 10, 64)
	ts.Check(err)
	ts.Check(fakehost.Edit(ts.MkAbs("host.json"), func(s *fakehost.State) {
		s.Devices[args[1]].Changed = append(s.Devices[args[1]].Changed, extent.Range{Off: off, Len: n})
		s.Devices[ts.MkAbs(args[0])].Written += n / 512
	}))
}

// snapshot DEVICE lost|other: a snapshot overflowed, or is another one of the same name.
func snapshot(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(fakehost.Edit(ts.MkAbs("host.json"), func(s *fakehost.State) {
		if d := s.Devices[args[0]]; args[1] == "lost" {
			d.Lost = true
		} else {
			d.UUID = args[1]
		}
	}))
}
