package main

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"testing"

	"xenlvm/lib/atomicfile"
	"xenlvm/lib/blkdev"
	"xenlvm/lib/journal"
	"xenlvm/lib/mapping"
)

// A domain that xl created by hand leaves no record, but the kernel counted what
// it wrote.
func TestWritesSinceTheSwitchMeanThatItRan(t *testing.T) {
	loops, err := filepath.Glob("/dev/loop[0-9]*")
	if err != nil || len(loops) == 0 {
		t.Skip("there is no block device to read the counters of")
	}
	lines := []mapping.Line{{Domain: "vm3", VDev: "xvda", Source: "/i", Destination: loops[len(loops)-1], State: mapping.Switched}}
	dev, err := blkdev.Stat(lines[0].Destination)
	if err != nil {
		t.Skip(err)
	}
	now, err := dev.Written()
	if err != nil {
		t.Skip(err)
	}
	for _, c := range []struct {
		before int64
		seq    uint64
		want   bool
	}{{now, 0, false}, {now, dev.DiskSeq(), false}, {now + 8, dev.DiskSeq(), true}, {now, dev.DiskSeq() + 1, true}} {
		before, want := c.before, c.want
		t.Run(fmt.Sprint(before-now, c.seq), func(t *testing.T) {
			then := journal.Replaced{Real: "/vm3.cfg", After: sum([]byte("new")), Mappings: lines, Written: map[string]int64{lines[0].Destination: before}}
			if c.seq > 0 {
				then.DiskSeq = map[string]uint64{lines[0].Destination: c.seq}
			}
			data, err := json.Marshal(then)
			if err != nil {
				t.Fatal(err)
			}
			d := &domain{name: "vm3", boot: "b", file: &atomicfile.File{Real: "/vm3.cfg", Content: []byte("new")},
				records: []journal.Record{{Kind: journal.KindApplied, Boot: "b", Data: data}}}
			if h := d.historyOf(); !h.reversible || h.ran != want {
				t.Errorf("counter %d then, %d now: %+v; want ran %v", before, now, h, want)
			}
		})
	}
}
