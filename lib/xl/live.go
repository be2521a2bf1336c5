package xl

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"xenlvm/lib/run"
	"xenlvm/lib/units"
)

// Info is what matters of "xl info".
type Info struct {
	Version string      // 4.17
	Caps    []string    // virt_caps: pv, hvm, hap, shadow, …
	Free    units.Bytes // memory that no domain has
}

// Host asks the hypervisor about itself.
func Host(ctx context.Context, r run.Runner) (Info, error) {
	res, err := r.Run(ctx, run.Cmd{Name: "xl", Args: []string{"info"}})
	if err != nil {
		return Info{}, fmt.Errorf("cannot ask the hypervisor: %w", err)
	}
	values := map[string]string{}
	for line := range strings.Lines(string(res.Stdout)) {
		if key, value, ok := strings.Cut(line, ":"); ok {
			values[strings.TrimSpace(key)] = strings.TrimSpace(value)
		}
	}
	free, err := strconv.ParseInt(values["free_memory"], 10, 44)
	if err != nil {
		return Info{}, fmt.Errorf("cannot read the output of xl info: free_memory is %q", values["free_memory"])
	}
	return Info{
		Version: values["xen_major"] + "." + values["xen_minor"],
		Caps:    strings.Fields(values["virt_caps"]),
		Free:    units.Bytes(free) << 20,
	}, nil
}

// LogDirty says whether the hypervisor can follow what a guest of the type (pv,
// pvh, hvm) writes to its memory, which live migration needs: that of a PV guest
// only with shadow page tables, which Debian's Xen 4.20 is built without.
func (i Info) LogDirty(guest string) bool {
	return slices.Contains(i.Caps, "shadow") || guest != "pv" && slices.Contains(i.Caps, "hap")
}

// Save writes the domain's memory to file and ends it: when it returns, its
// backends are closed. A save that fails lets the domain run on.
func Save(domain, file string) run.Cmd { return change("save", domain, file) }

// RestorePaused makes a domain from a memory image, with the disks that it had
// when it was saved.
func RestorePaused(file string) run.Cmd { return change("restore", "-p", file) }

// RestorePausedOn is RestorePaused with the disks of config.
func RestorePausedOn(config, file string) run.Cmd { return change("restore", "-p", config, file) }

// MigratePaused moves a domain to this same host, with the disks of config, and
// leaves it paused: its old backends are closed by then, so that nothing written
// by way of them can come after what is written by way of the new ones.
func MigratePaused(domain, config string) run.Cmd {
	return change("migrate", "-p", "-s", "", "-C", config, domain, "xl migrate-receive -p")
}

// ConfigUpdate sets what the domain restarts from when its guest reboots.
func ConfigUpdate(domain, config string) run.Cmd { return change("config-update", domain, config) }
