package convert

import (
	"context"
	"encoding/json"
	"path/filepath"

	"xenlvm/lib/journal"
	"xenlvm/lib/lvm"
	"xenlvm/lib/run"
	"xenlvm/lib/snap"
	"xenlvm/lib/step"
)

// Reclaim is the plan that removes what a killed run for this domain left:
// its mounts, its loop devices, its snapshots and clones. Nothing else carries its tags,
// is what its journal says, or lies in its directory. The bases that the journal's
// records name are no such leftovers. The domain must be locked.
func Reclaim(ctx context.Context, r run.Runner, domain string, records []journal.Record) (step.Plan, error) {
	return reclaim(ctx, r, domain, records, basesIn(records))
}

// DropBases is Reclaim that removes the bases, too.
func DropBases(ctx context.Context, r run.Runner, domain string, records []journal.Record) (step.Plan, error) {
	return reclaim(ctx, r, domain, records, nil)
}

func reclaim(ctx context.Context, r run.Runner, domain string, records []journal.Record, needed map[string]bool) (step.Plan, error) {
	all, err := basesOf(ctx, r, domain, records)
	if err != nil {
		return nil, err
	}
	var plan step.Plan
	for _, b := range all {
		var steps step.Plan
		if needed[b.id()] {
			steps, err = b.clearance()
		} else {
			steps, err = b.removal(r)
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

// snapshotsOf is the snapshots that were made to copy the domain. Its back doors are
// domuswitch's.
func snapshotsOf(ctx context.Context, r run.Runner, domain string) ([]lvm.LV, error) {
	all, err := lvm.LVs(ctx, r, "")
	var ours []lvm.LV
	for _, v := range all {
		if v.Tagged(lvm.TagSnapshot) && v.Tagged(lvm.TagDomain(domain)) && !v.Tagged(lvm.TagBackDoor) {
			ours = append(ours, v)
		}
	}
	return ours, err
}

// basesIn is the ids of the bases that the last copies of all disks name, as
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
