package xl

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"xenlvm/lib/run"
)

// Node is the value of a node of xenstore, which its domain may have written; the
// boolean is false when there is no such node.
func Node(ctx context.Context, r run.Runner, path string) (string, bool, error) {
	res, err := r.Run(ctx, run.Cmd{Name: "xenstore-read", Args: []string{path}})
	var failed *run.Error
	if errors.As(err, &failed) && strings.Contains(failed.Stderr, "couldn't read path") {
		return "", false, nil
	}
	if err != nil {
		return "", false, fmt.Errorf("cannot read %s in xenstore: %w", path, err)
	}
	return unescape(strings.TrimSuffix(string(res.Stdout), "\n")), true, nil
}

// Node is the path of a node that belongs to the domain.
func (d Domain) Node(name string) string { return "/local/domain/" + d.Number() + "/" + name }

// ByUUID returns the domains that have one of the UUIDs.
func ByUUID(ctx context.Context, r run.Runner, uuids []string) ([]Domain, error) {
	if len(uuids) == 0 {
		return nil, nil
	}
	all, err := List(ctx, r)
	if err != nil {
		return nil, err
	}
	var found []Domain
	for _, d := range all {
		vm, ok, err := Node(ctx, r, d.Node("vm"))
		if err != nil {
			return nil, err
		}
		if uuid, isVM := strings.CutPrefix(vm, "/vm/"); ok && isVM && slices.Contains(uuids, uuid) {
			found = append(found, d)
		}
	}
	return found, nil
}

// Console is the terminal on which the domain's console can be read, "" as long as
// there is none. An HVM guest with a serial line has its console there.
func Console(ctx context.Context, r run.Runner, d Domain) (string, error) {
	for _, name := range []string{"serial/0/tty", "console/tty"} {
		tty, ok, err := Node(ctx, r, d.Node(name))
		if err != nil || ok && tty != "" {
			return tty, err
		}
	}
	return "", nil
}
