// Package fakehost plays a Xen host for tests: stateful stand-ins for the
// programs that xenlvm calls, to be registered with testscript.Main.
//
// Each fake is one file with one function. It gets the host's state, a JSON file
// named by FAKEHOST_STATE (else $WORK/host.json), and its arguments; what it
// changes is written back. Every call is appended to $WORK/calls as a shell
// line. A fake fails on arguments that it does not know, so that a test cannot
// pass by accident. What the fakes print was compared with the real programs in
// the lab (test/lab).
//
// One call goes wrong if FAKEHOST_FAULT says so; see Fault.
package fakehost

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"xenlvm/lib/extent"
	"xenlvm/lib/mirror"
	"xenlvm/lib/run"
)

// State is the host.
type State struct {
	Domains []*Domain          `json:"domains"`
	LastID  int                `json:"last_id"`
	Devices map[string]*Device `json:"devices"` // by path; block devices
	VGs     map[string]int64   `json:"vgs"`     // what is free, in bytes
	Xl      XlBehaviour        `json:"xl"`

	UntagSays string `json:"untag_says"` // lvchange --deltag fails with this
}

// Device is a block device. One with an LV is a logical volume.
type Device struct {
	Size  int64    `json:"size"` // bytes
	Major uint32   `json:"major"`
	Minor uint32   `json:"minor"`
	LV    string   `json:"lv"` // VG/LV
	UUID  string   `json:"uuid"`
	Tags  []string `json:"tags"`
	Used  string   `json:"used"` // how this host uses it: "mounted on /mnt"

	Sector int          `json:"sector"` // bytes, 512 if 0
	DM     string       `json:"dm"`     // UUID of a device of device-mapper that is no LV
	Phase  mirror.Phase `json:"phase"`  // of the mirror that it is the device of, "" without a volume
	On     []string     `json:"on"`     // what it is built on: devices, or the image of a loop device
	Holds  string       `json:"holds"`  // what is on it

	Written int64          `json:"written"` // sectors
	Origin  string         `json:"origin"`  // LV of which it is a snapshot
	Lost    bool           `json:"lost"`    // a snapshot that overflowed
	Changed []extent.Range `json:"changed"` // of its origin, since the snapshot was made
}

// Call is one call of a fake. Its output is printed after the state was written.
type Call struct {
	State  *State
	Args   []string
	Stdout strings.Builder
}

// fake is a program. The error goes to standard error as it is, with exit
// status 1 or that of an exitError.
type fake func(*Call) error

// exitError is an error with an exit status of its own.
type exitError struct {
	error
	code int
}

// says is what a program prints, in its own style.
type says string

func (s says) Error() string { return string(s) }

// Commands are all fakes, for testscript.Main.
func Commands() map[string]func() {
	fakes := map[string]fake{"xl": xl, "xenstore-ls": xenstoreLs, "xenstore-read": xenstoreRead, "lvs": lvs, "lvchange": lvchange,
		"vgs": vgs, "lvcreate": lvcreate, "lvremove": lvremove}
	commands := map[string]func(){}
	for name, f := range fakes {
		commands[name] = func() { os.Exit(play(name, f)) }
	}
	return commands
}

// play runs one fake in its process.
func play(name string, f fake) (status int) {
	n, err := record(name)
	if err != nil {
		fmt.Fprintf(os.Stderr, "fakehost: %v\n", err)
		return 99
	}
	c := &Call{Args: os.Args[1:]}
	kind := faultOf(n)
	if kind != "" {
		if done, status := before(kind, isQuery(name, c.Args)); done {
			return status
		}
		defer func() { status = behind(kind, status) }()
	}
	var said error
	err = update(func(s *State) error {
		c.State = s
		said = f(c)
		return nil
	})
	if err != nil {
		fmt.Fprintf(os.Stderr, "fakehost: %v\n", err)
		return 99
	}
	if _, err := io.WriteString(os.Stdout, c.Stdout.String()); err != nil {
		return 99
	}
	if said == nil {
		return 0
	}
	fmt.Fprintln(os.Stderr, said)
	if e, ok := said.(exitError); ok {
		return e.code
	}
	return 1
}

// unknown is what a fake returns for arguments it does not know.
func (c *Call) unknown() error {
	return exitError{fmt.Errorf("fakehost: this fake does not know the arguments %q", c.Args), 99}
}

// record appends the call, and returns its number.
func record(name string) (int, error) {
	f, err := os.OpenFile(filepath.Join(os.Getenv("WORK"), "calls"), os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o644)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return 0, err
	}
	if _, err = fmt.Fprintln(f, run.Quote(slices.Concat([]string{name}, os.Args[1:])...)); err != nil {
		return 0, err
	}
	all, err := os.ReadFile(f.Name())
	return bytes.Count(all, []byte("\n")), err
}

func statePath() string {
	if p := os.Getenv("FAKEHOST_STATE"); p != "" {
		return p
	}
	return filepath.Join(os.Getenv("WORK"), "host.json")
}

// Load reads the state of the host.
func Load() (*State, error) { return load(statePath()) }

func load(path string) (*State, error) {
	var s State
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", path, err)
	}
	return &s, nil
}

// Edit changes the state at path, for a test.
func Edit(path string, change func(*State)) error {
	return edit(path, func(s *State) error {
		change(s)
		return nil
	})
}

// update changes the state of this host.
func update(change func(*State) error) error { return edit(statePath(), change) }

// edit changes a state under a lock.
func edit(path string, change func(*State) error) error {
	lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return err
	}
	s, err := load(path)
	if err != nil {
		return err
	}
	if err := change(s); err != nil {
		return err
	}
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	// A query may be killed at any moment.
	if err := os.WriteFile(path+".new", b, 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
