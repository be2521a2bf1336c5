// Package mapping is the hand-over format between the programs: one line per
// disk, TAB-separated, without a header:
//
//	DOMAIN  VDEV  SOURCE  DESTINATION  STATE
//
// Every program that prints it also reads it.
package mapping

import (
	"bufio"
	"fmt"
	"io"
	"strings"
)

// State is how far a disk has come.
type State string

// The states, in the order in which a disk goes through them.
const (
	Planned  State = "planned"  // nothing copied yet, or a copy that is not verified
	Copied   State = "copied"   // the destination is equal to the source as it was at the copy
	Mirrored State = "mirrored" // writes go to both, recovery is not complete
	Synced   State = "synced"   // both are equal, and stay so
	Switched State = "switched" // the domain uses the destination
)

var states = []State{Planned, Copied, Mirrored, Synced, Switched}

// Line is one disk of a domain.
type Line struct {
	Domain      string `json:"domain"`
	VDev        string `json:"vdev"`
	Source      string `json:"source"`
	Destination string `json:"destination"`
	State       State  `json:"state"`
}

// maxLine bounds what is read as one line: a path is at most 4096 bytes.
const maxLine = 64 << 10

// Write prints lines in the hand-over format. It refuses a field that the
// format cannot carry.
func Write(w io.Writer, lines []Line) error {
	var b strings.Builder
	for _, l := range lines {
		if err := l.check(); err != nil {
			return err
		}
		b.WriteString(strings.Join(l.fields(), "\t") + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Read reads lines to the end of r. Empty lines are skipped.
func Read(r io.Reader) ([]Line, error) {
	var lines []Line
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, maxLine)
	for n := 1; sc.Scan(); n++ {
		if sc.Text() == "" {
			continue
		}
		f := strings.Split(sc.Text(), "\t")
		if len(f) != 5 {
			return nil, fmt.Errorf("cannot read mapping line %d: want 5 fields separated by TAB, not %d", n, len(f))
		}
		l := Line{f[0], f[1], f[2], f[3], State(f[4])}
		if err := l.check(); err != nil {
			return nil, fmt.Errorf("cannot read mapping line %d: %w", n, err)
		}
		lines = append(lines, l)
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("cannot read mapping lines: %w", err)
	}
	return lines, nil
}

func (l Line) fields() []string {
	return []string{l.Domain, l.VDev, l.Source, l.Destination, string(l.State)}
}

func (l Line) check() error {
	for i, f := range l.fields() {
		name := [...]string{"domain", "vdev", "source", "destination", "state"}[i]
		if f == "" {
			return fmt.Errorf("the %s is empty", name)
		}
		if i := strings.IndexFunc(f, func(r rune) bool { return r < ' ' || r == 0x7f }); i >= 0 {
			return fmt.Errorf("the %s %q holds a control character", name, f)
		}
	}
	for _, s := range states {
		if l.State == s {
			return nil
		}
	}
	return fmt.Errorf("unknown state %q", string(l.State))
}
