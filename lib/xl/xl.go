// Package xl asks Xen's toolstack about domains and their disks, and makes the
// commands that start and stop them. It runs no change itself: those belong
// into a step.Plan.
//
// Which disks a domain really has is in xenstore, not in its configuration:
// the file may have been edited since the domain started.
package xl

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"xenlvm/lib/fault"
	"xenlvm/lib/run"
	"xenlvm/lib/units"
)

// State is what a domain does.
type State string

// The states of a domain.
const (
	Running  State = "running" // or blocked: xl shows an idle guest as that
	Paused   State = "paused"
	ShutDown State = "shut down" // ended, but kept; also a domain that is being saved
	Crashed  State = "crashed"   // and kept
	Dying    State = "dying"
)

// Domain is one domain of the host.
type Domain struct {
	ID     int // never used again before the host reboots
	Name   string
	State  State
	Memory units.Bytes // that it has now
}

// row is a line of "xl list": name, ID, Mem, VCPUs, State, Time(s). The letters of
// the state are r, b, p, s for one that was shut down, then why (r reboot, s suspend,
// c crash, w watchdog, S soft reset), and d.
// A name may hold blanks, so the line is read from its end.
var row = regexp.MustCompile(`^(.*?) +(\d+) +(\d+) +\d+ +([r-][b-][p-][s-][rscwS?-][d-]) +[\d.]+$`)

// Number is the domain for the commands below, which take a name or a number:
// whatever else may get its name, this is it.
func (d Domain) Number() string { return strconv.Itoa(d.ID) }

// List returns all domains, Domain-0 included. One whose name is gone already,
// because it is dying, is called "(null)".
func List(ctx context.Context, r run.Runner) ([]Domain, error) {
	res, err := run.Insist(ctx, r, run.Cmd{Name: "xl", Args: []string{"list"}})
	if err != nil {
		return nil, fmt.Errorf("cannot list the domains: %w", err)
	}
	return parseList(res.Stdout)
}

func parseList(out []byte) ([]Domain, error) {
	var domains []Domain
	for n, line := range strings.Split(strings.TrimRight(string(out), "\n"), "\n") {
		if n == 0 {
			continue // the header
		}
		m := row.FindStringSubmatch(line)
		if m == nil {
			return nil, fmt.Errorf("cannot read the output of xl list: line %d: %q", n+1, line)
		}
		id, err := strconv.Atoi(m[2])
		if err != nil {
			return nil, fmt.Errorf("cannot read the output of xl list: line %d: %w", n+1, err)
		}
		memory, err := strconv.ParseInt(m[3], 10, 44)
		if err != nil {
			return nil, fmt.Errorf("cannot read the output of xl list: line %d: %w", n+1, err)
		}
		domains = append(domains, Domain{ID: id, Name: m[1], State: stateOf(m[4]), Memory: units.Bytes(memory) << 20})
	}
	return domains, nil
}

func stateOf(letters string) State {
	switch {
	case letters[5] == 'd':
		return Dying
	case letters[4] == 'c', letters[4] == 'w':
		return Crashed
	case letters[3] == 's':
		return ShutDown
	case letters[2] == 'p':
		return Paused
	}
	return Running
}

// Find returns the domain called name; the boolean is false when there is none.
func Find(ctx context.Context, r run.Runner, name string) (Domain, bool, error) {
	domains, err := List(ctx, r)
	if err != nil {
		return Domain{}, false, err
	}
	for _, d := range domains {
		if d.Name == name {
			return d, true, nil
		}
	}
	return Domain{}, false, nil
}

// CheckName refuses a name that neither xl nor a line of text can carry.
func CheckName(name string) error {
	if name == "" || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return fault.BadUsage("cannot use domain name %q: it is empty or holds a control character", name)
	}
	if strings.Trim(name, "0123456789") == "" {
		return fault.Refuse("cannot work on domain %s: xl would take the name for the number of another domain", name)
	}
	if name == "Domain-0" {
		return fault.Refuse("cannot work on Domain-0: it is this host")
	}
	return nil
}

// Shutdown asks the guest to power off. It returns at once.
func Shutdown(name string) run.Cmd { return change("shutdown", name) }

// Destroy ends a domain without asking the guest.
func Destroy(domain string) run.Cmd { return change("destroy", domain) }

// Pause stops a domain from running; it stays.
func Pause(domain string) run.Cmd { return change("pause", domain) }

// CreatePaused starts a domain that does not run yet: its backends come up, and
// nothing is written.
func CreatePaused(config string) run.Cmd { return change("create", "-q", "-p", config) }

// Unpause lets a paused domain run.
func Unpause(domain string) run.Cmd { return change("unpause", domain) }

func change(verb string, args ...string) run.Cmd {
	last := len(args) - 1
	if strings.HasPrefix(args[last], "-") {
		args = append(args[:last:last], "--", args[last])
	}
	return run.Cmd{Name: "xl", Args: append([]string{verb}, args...), Effect: run.Change}
}
