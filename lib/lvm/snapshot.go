package lvm

import (
	"errors"
	"fmt"
	"strings"

	"xenlvm/lib/units"
)

// ErrLost means that a snapshot has overflowed: what it holds is not what the
// origin held, and must not be read.
var ErrLost = errors.New("the snapshot overflowed and is lost")

// ErrNoSnapshot means that a device is no snapshot any more: lvremove makes a
// plain volume of it before it removes it.
var ErrNoSnapshot = errors.New("it is no snapshot")

// Usage is how much of a space is in use, in bytes. A thin snapshot has no COW
// space of its own: both are zero.
type Usage struct {
	Used, Size units.Bytes
}

// Percent is the share in use.
func (u Usage) Percent() float64 {
	if u.Size == 0 {
		return 0
	}
	return float64(u.Used) / float64(u.Size) * 100
}

// ParseUsage reads the status of a snapshot's device, as dm.Status returns it.
// The error is ErrLost when the snapshot has overflowed.
func ParseUsage(v LV, status string) (Usage, error) {
	u, err := parseStatus(status)
	if err != nil && !errors.Is(err, ErrLost) {
		err = fmt.Errorf("cannot watch snapshot %s: %w", v.Spec(), err)
	}
	return u, err
}

// parseStatus reads the status line of the dm targets snapshot (kernel
// documentation device-mapper/snapshot: "used/total metadata" in sectors,
// "Invalid", "Overflow", "Merge failed") and thin.
func parseStatus(line string) (Usage, error) {
	f := strings.Fields(line)
	if len(f) < 3 {
		return Usage{}, fmt.Errorf("unknown status %q", line)
	}
	switch {
	case f[2] == "thin" && len(f) >= 4 && f[3] != "Fail" && f[3] != "Error":
		return Usage{}, nil
	case f[2] == "thin":
		return Usage{}, ErrLost
	case f[2] != "snapshot" || len(f) < 4:
		return Usage{}, fmt.Errorf("%w but %q", ErrNoSnapshot, strings.TrimSpace(line))
	}
	if !strings.Contains(f[3], "/") {
		return Usage{}, ErrLost // Invalid, Overflow, Merge failed
	}
	u, err := parseBlocks(f[3], units.Sector)
	if err != nil {
		return Usage{}, fmt.Errorf("unknown status %q", line)
	}
	return u, nil
}

// parseBlocks reads USED/TOTAL, which are counted in blocks.
func parseBlocks(s string, block units.Bytes) (Usage, error) {
	used, total, _ := strings.Cut(s, "/")
	u, err1 := units.Count(used, block)
	t, err2 := units.Count(total, block)
	if err := errors.Join(err1, err2); err != nil {
		return Usage{}, err
	}
	if t == 0 {
		return Usage{}, fmt.Errorf("%s is no share", s)
	}
	return Usage{u, t}, nil
}
