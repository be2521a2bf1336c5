package xl

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"xenlvm/lib/fault"
	"xenlvm/lib/run"
	"xenlvm/lib/xlcfg"
)

// ReadConfig reads and parses the configuration at path. Its errors are refusals.
func ReadConfig(path string) (*xlcfg.File, error) {
	// A FIFO would block, a device never end.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fault.Refuse("cannot read %s: %w", path, fault.Reason(err))
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fault.Refuse("cannot read %s: %w", path, err)
	}
	if !info.Mode().IsRegular() {
		return nil, fault.Refuse("cannot read %s: it is not a regular file", path)
	}
	src, err := io.ReadAll(io.LimitReader(f, MaxConfig+1))
	if err != nil {
		return nil, fault.Refuse("cannot read %s: %w", path, fault.Reason(err))
	}
	if len(src) > MaxConfig {
		return nil, fault.Refuse("cannot read %s: it is larger than %d bytes", path, MaxConfig)
	}
	config, err := xlcfg.Parse(path, src)
	if err != nil {
		var se *xlcfg.SyntaxError
		if errors.As(err, &se) && se.Hint != "" {
			err = fault.Hint(err, "%s", se.Hint)
		}
		return nil, fault.With(fault.Refused, err)
	}
	return config, nil
}

// Use is a disk that a domain has at this moment.
type Use struct {
	Domain Domain
	Disk   Disk
}

// Uses returns the disks that the domains of this host have at this moment,
// Domain-0 apart.
func Uses(ctx context.Context, r run.Runner) ([]Use, error) {
	domains, err := List(ctx, r)
	if err != nil {
		return nil, err
	}
	var uses []Use
	for _, d := range domains {
		if d.ID == 0 {
			continue
		}
		disks, err := Disks(ctx, r, d.ID)
		if err != nil {
			return nil, err
		}
		for _, k := range disks {
			uses = append(uses, Use{d, k})
		}
	}
	return uses, nil
}

// ConfiguredFor is a configuration below dir, under whatever name, with a disk
// whose target is the one that is asks for; "" when there is none. Those of the
// domain except, if it is not empty, are left out. A file that xl would not read
// is passed over: it starts no domain.
func ConfiguredFor(dir, except string, is func(target string) bool) string {
	for _, c := range look(slices.Concat(entries(dir, ""), entries(dir+"/auto", ""))) {
		if c.err != nil || except != "" && c.name() == except {
			continue
		}
		disks, err := c.config.Disks()
		if err == nil && slices.ContainsFunc(disks, func(d xlcfg.Disk) bool { return d.Target != "" && is(d.Target) }) {
			return c.path
		}
	}
	return ""
}
