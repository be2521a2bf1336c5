package convert

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"time"

	"xenlvm/lib/blockcopy"
	"xenlvm/lib/journal"
	"xenlvm/lib/lvm"
	"xenlvm/lib/run"
	"xenlvm/lib/step"
	"xenlvm/lib/units"
)

// Known is what the journal knows of the copy of one disk.
type Known struct {
	VDev, Source string
	Destination  string // VG/LV
	Method       Method
	Copied       *journal.Copied // the newest copy, nil for none
	Time         time.Time       // of it
	Switched     bool            // the configuration was switched to other disks since
	Aborted      bool            // it was given up since
}

// Remember reads the newest copy of each disk from a domain's journal, in the order in
// which they were begun.
func Remember(records []journal.Record) []Known {
	var all []Known
	for _, r := range records {
		var d journal.Destination
		if r.Kind != journal.KindDestination || json.Unmarshal(r.Data, &d) != nil {
			continue
		}
		p := remember(records, d.VDev, d.Source)
		k := Known{d.VDev, d.Source, p.destination, p.method, p.copied, p.copiedAt, p.switched, p.aborted}
		if i := slices.IndexFunc(all, func(o Known) bool { return o.VDev == d.VDev }); i >= 0 {
			all[i] = k // of another image, perhaps
		} else {
			all = append(all, k)
		}
	}
	return all
}

// Done is how much of the disk a copy by blocks that has not ended has put onto the
// volume, as it wrote down last; the boolean is false when there is none.
func (k Known) Done(j *journal.Journal, lv lvm.LV) (done, total units.Bytes, ok bool) {
	d := Disk{VDev: k.VDev, Dest: Destination{LV: lv}}
	f, err := os.Open(j.Path(checkpointName(&d)))
	if err != nil {
		return 0, 0, false
	}
	defer f.Close()
	sums, err := blockcopy.ReadDigests(f)
	if err != nil {
		return 0, 0, false
	}
	total = units.Bytes(sums.Size())
	return total - units.Bytes(sums.Unknown().Bytes()), total, true
}

// Volumes are those that were given to a domain's copies. Whose copy was never finished
// may go if a run of ours made it, and nothing on it can be newer than its source.
func Volumes(all []lvm.LV, domain string, records []journal.Record) (unfinished, given, finished []lvm.LV) {
	for _, v := range all {
		switch {
		case !v.Tagged(lvm.TagDomain(domain)) || v.Tagged(lvm.TagSnapshot):
		case !v.Tagged(lvm.TagIncomplete):
			finished = append(finished, v)
		case created(v, records) && !wasFinished(v, records) && !perhapsNewest(v, records):
			unfinished = append(unfinished, v)
		default:
			given = append(given, v)
		}
	}
	return unfinished, given, finished
}

// created says whether the volume, which carries our tag, is one that a run of ours
// made: nobody else gives a volume the tag that the journal does not know.
func created(v lvm.LV, records []journal.Record) bool {
	var d journal.Destination
	_, ok := journal.Last(records, journal.KindDestination, func(data json.RawMessage) bool {
		d = journal.Destination{}
		return json.Unmarshal(data, &d) == nil && d.Destination == "/dev/"+v.Spec()
	})
	return ok && d.Created && (d.LVUUID == "" || d.LVUUID == v.UUID)
}

// wasFinished says whether a copy onto the volume was ever finished, and handed out.
func wasFinished(v lvm.LV, records []journal.Record) bool {
	_, ok := journal.Last(records, journal.KindCopied, func(data json.RawMessage) bool {
		var c journal.Copied
		return json.Unmarshal(data, &c) == nil && c.LVUUID == v.UUID && !c.Partial
	})
	return ok
}

// perhapsNewest says whether the volume was in a mirror that the host went down with. Its
// source may have failed before that, and the domain gone on on the volume alone: nobody
// knows any more.
func perhapsNewest(v lvm.LV, records []journal.Record) bool {
	vdev, boot := "", ""
	for _, r := range records {
		var d journal.Destination // of which the other has a part
		if r.Kind != journal.KindMember && r.Kind != journal.KindMirrorEnded || json.Unmarshal(r.Data, &d) != nil {
			continue
		}
		switch {
		case r.Kind == journal.KindMember && d.LVUUID == v.UUID:
			vdev, boot = d.VDev, r.Boot
		case r.Kind == journal.KindMirrorEnded && d.VDev == vdev && r.Boot == boot:
			vdev = ""
		}
	}
	return vdev != "" && boot != journal.BootID()
}

// Drop is the plan that removes a volume whose copy was never finished, and what was
// kept beside the journal for it.
func Drop(r run.Runner, j *journal.Journal, v lvm.LV) step.Plan {
	c := &Conversion{r: r, journal: j, o: Options{Domain: j.Domain}}
	remove := step.Command(r, "remove volume "+v.Spec(), lvm.Remove(v.Spec()), run.Cmd{})
	remove.Do = func(ctx context.Context) error { return c.removeIncomplete(ctx, v) }
	return append(step.Plan{remove}, Forget(j, v.UUID)...)
}

// Forget is the plan that removes the files beside the journal which tell what is on
// a volume.
func Forget(j *journal.Journal, uuid string) step.Plan {
	var files []string
	for _, suffix := range []string{".digests", ".used", checkpointSuffix} {
		found, err := filepath.Glob(j.Path("*-" + uuid + "*" + suffix))
		if err == nil { // it is a pattern
			files = append(files, found...)
		}
	}
	if uuid == "" || len(files) == 0 {
		return nil
	}
	return step.Plan{{
		What: "remove the digests of the copy", Line: run.Quote(append([]string{"rm", "-f"}, files...)...),
		Do: func(context.Context) error {
			for _, f := range files {
				if err := os.Remove(f); err != nil && !os.IsNotExist(err) {
					return err
				}
			}
			return nil
		},
	}}
}

// Bases are what is kept for the next pass of a domain: snapshots, as VG/LV, and
// clones, by their paths.
func Bases(ctx context.Context, r run.Runner, domain string, records []journal.Record) ([]string, error) {
	needed := basesIn(records)
	all, err := basesOf(ctx, r, domain, records)
	var names []string
	for _, b := range all {
		if needed[b.id()] {
			names = append(names, b.name())
		}
	}
	return names, err
}
