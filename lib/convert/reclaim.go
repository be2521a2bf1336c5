package convert

import (
	"context"
	"encoding/json"
	"path/filepath"

	"xenlvm/lib/blkdev"
	"xenlvm/lib/journal"
	"xenlvm/lib/lvm"
	"xenlvm/lib/run"
	"xenlvm/lib/snap"
	"xenlvm/lib/step"
)

// Reclaim is the plan that removes what a killed run for this domain left:
// its mounts, its loop devices, its snapshots. Nothing else carries its tags or
// lies in its directory. The bases that the journal's records name are no such
// leftovers; without records they go, too. The domain must be locked.
func Reclaim(ctx context.Context, r run.Runner, domain string, records []journal.Record) (step.Plan, error) {
	all, err := snapshotsOf(ctx, r, domain)
	if err != nil {
		return nil, err
	}
	kept := basesIn(records)
	var plan step.Plan
	for _, v := range all {
		var steps step.Plan
		if kept[v.UUID] {
			steps, err = snap.Clearance(blkdev.Number{Major: v.Major, Minor: v.Minor}, v.Active)
		} else {
			steps, err = snap.Removal(r, v)
		}
		if err != nil {
			return nil, err
		}
		plan = append(plan, steps...)
	}
	// The rest of our directory: destinations. What lies on a snapshot must go
	// in the order of its removal, and is in the plan already.
	rest, err := snap.Under(filepath.Join(RunDir, domain))
	return unique(append(plan, rest...)), err
}

// snapshotsOf is the snapshots that were made for the domain.
func snapshotsOf(ctx context.Context, r run.Runner, domain string) ([]lvm.LV, error) {
	all, err := lvm.LVs(ctx, r, "")
	var ours []lvm.LV
	for _, v := range all {
		if v.Tagged(lvm.TagSnapshot) && v.Tagged(lvm.TagDomain(domain)) {
			ours = append(ours, v)
		}
	}
	return ours, err
}

// basesIn is the LV UUIDs of the bases that the last copies of all disks name, as
// long as the domain was not switched to other disks since.
func basesIn(records []journal.Record) map[string]bool {
	last := map[string]string{} // by disk
	for _, r := range records {
		var c journal.Copied
		switch {
		case r.Kind == journal.KindApplied:
			clear(last)
		case r.Kind == journal.KindCopied && json.Unmarshal(r.Data, &c) == nil:
			last[c.VDev] = c.Base
		}
	}
	bases := map[string]bool{}
	for _, uuid := range last {
		bases[uuid] = uuid != ""
	}
	return bases
}

// unique drops steps that are in the plan already.
func unique(plan step.Plan) step.Plan {
	seen := map[string]bool{}
	var kept step.Plan
	for _, s := range plan {
		if !seen[s.What] {
			seen[s.What] = true
			kept = append(kept, s)
		}
	}
	return kept
}
