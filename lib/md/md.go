// Package md mirrors one block device onto another with the kernel's RAID1,
// without a superblock: size and bytes of the first member stay what they are.
//
// An array is known by its first member, never by its number or a name in
// /dev/md. What it does is read from sysfs (kernel documentation
// admin-guide/md); mdadm builds it, changes its members and stops it.
package md

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"xenlvm/lib/run"
	"xenlvm/lib/units"
)

// Array is a running RAID1 of two.
type Array struct {
	Path string // /dev/md127
	Size units.Bytes

	sysfs string // "" for that of the kernel
}

// Member is one half of an array.
type Member struct {
	Node  string // /dev/loop1, /dev/dm-3
	State string // in_sync, spare (being recovered), faulty, … as sysfs has it
	Slot  int    // 0: the array was built on it; -1: it has no place any more
}

// InSync says whether the member is equal to the other one.
func (m Member) InSync() bool { return m.has("in_sync") && !m.Faulty() }

// Faulty says whether md gave the member up.
func (m Member) Faulty() bool { return m.has("faulty") }

func (m Member) has(flag string) bool { return slices.Contains(strings.Split(m.State, ","), flag) }

// Status is what an array does.
type Status struct {
	Members    []Member    // by slot
	Action     string      // idle, recover, check, frozen, …
	Done       units.Bytes // of Total
	Total      units.Bytes // 0 while nothing is under way
	Speed      units.Bytes // a second, the mean of half a minute
	Least      units.Bytes // a second that md takes however busy the disks are
	Most       units.Bytes // a second
	Mismatches units.Bytes // that the last check found different
	ReadOnly   bool        // no recovery starts
}

// Build makes an array of the device first and a missing second member, and names
// it /dev/md/NAME.
func Build(name, first string) run.Cmd {
	// mdadm from 4.4 on asks about a bitmap where it is not told.
	return change("--build", "/dev/md/"+name, "--run", "--bitmap=none", "--level=1", "--raid-devices=2", first, "missing")
}

// ReadWrite ends the state in which Debian starts arrays: read-only until the
// first write, and without recovery.
func (a Array) ReadWrite() run.Cmd { return change("--readwrite", a.Path) }

// Add adds a second member, which md fills from the first.
func (a Array) Add(device string) run.Cmd { return change("--manage", a.Path, "--add", device) }

// Drop takes the member at node, which may be in use, out of the array.
func (a Array) Drop(node string) run.Cmd {
	return change("--manage", a.Path, "--fail", node, "--remove", node)
}

// Stop ends the array. It fails while anybody has the array open.
func (a Array) Stop() run.Cmd { return change("--stop", a.Path) }

func change(args ...string) run.Cmd {
	return run.Cmd{Name: "mdadm", Args: args, Effect: run.Change}
}

// sysfs is where the kernel has its block devices.
const sysfs = "/sys/block"

// Over is the array that is built on the block device called kernelName (loop1).
// The boolean is false when there is none.
func Over(kernelName string) (Array, bool, error) {
	holders, err := filepath.Glob(sysfs + "/" + kernelName + "/holders/md*")
	if err != nil || len(holders) == 0 {
		return Array{}, false, err
	}
	a := Array{Path: "/dev/" + filepath.Base(holders[0])}
	level, err := a.read("level")
	if err == nil && level != "raid1" {
		err = fmt.Errorf("it is %s, not raid1", level)
	}
	if err != nil {
		return Array{}, false, fmt.Errorf("cannot use the array %s over %s: %w", a.Path, kernelName, err)
	}
	b, err := os.ReadFile(a.block("size"))
	if err != nil {
		return Array{}, false, fmt.Errorf("cannot read the size of %s: %w", a.Path, err)
	}
	a.Size, err = units.Count(strings.TrimSpace(string(b)), units.Sector)
	return a, err == nil, err
}

// block is a file of the array in sysfs, attribute one of md's own.
func (a Array) block(name string) string {
	return filepath.Join(cmp.Or(a.sysfs, sysfs), filepath.Base(a.Path), name)
}
func (a Array) attribute(name string) string { return a.block("md/" + name) }

func (a Array) read(name string) (string, error) { return attribute(a.attribute(name)) }

// attribute reads a file of sysfs by one read(2). For a second one md makes the text
// anew, which may have become longer: the end of that would follow the first.
func attribute(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b := make([]byte, 4096) // no attribute is longer
	n, err := f.Read(b)
	if err == io.EOF {
		err = nil
	}
	return strings.TrimSpace(string(b[:n])), err
}

// Status asks the kernel. The error is os.ErrNotExist when the array is gone.
func (a Array) Status() (Status, error) {
	s, err := a.status()
	if err != nil {
		return Status{}, fmt.Errorf("cannot read the state of %s: %w", a.Path, err)
	}
	return s, nil
}

func (a Array) status() (s Status, err error) {
	if s.Action, err = a.read("sync_action"); err != nil {
		return s, err
	}
	state, err := a.read("array_state")
	if err != nil {
		return s, err
	}
	s.ReadOnly = state == "read-auto" || state == "readonly"
	completed, err := a.read("sync_completed")
	if err != nil {
		return s, err
	}
	if done, total, ok := strings.Cut(completed, " / "); ok {
		var err1, err2 error
		s.Done, err1 = units.Count(done, units.Sector)
		s.Total, err2 = units.Count(total, units.Sector)
		if err := errors.Join(err1, err2); err != nil {
			return s, err
		}
	}
	s.Speed, s.Least, s.Most = a.speed("sync_speed"), a.speed("sync_speed_min"), a.speed("sync_speed_max")
	mismatches, err := a.read("mismatch_cnt")
	if err != nil {
		return s, err
	}
	if s.Mismatches, err = units.Count(mismatches, units.Sector); err != nil {
		return s, err
	}
	s.Members, err = a.members()
	return s, err
}

// speed is an attribute in KiB a second, such as "1000 (system)". It is for people
// only: 0 when there is none.
func (a Array) speed(name string) units.Bytes {
	text, _ := a.read(name)
	number, _, _ := strings.Cut(text, " ")
	speed, _ := units.Count(number, 1<<10)
	return speed
}

func (a Array) members() ([]Member, error) {
	dirs, err := filepath.Glob(a.attribute("dev-*"))
	if err != nil {
		return nil, err
	}
	var members []Member
	for _, dir := range dirs {
		m := Member{Node: "/dev/" + strings.TrimPrefix(filepath.Base(dir), "dev-"), Slot: -1}
		state, err := attribute(dir + "/state")
		slot, err2 := attribute(dir + "/slot")
		if errors.Is(errors.Join(err, err2), os.ErrNotExist) {
			continue // removed meanwhile
		}
		if err := errors.Join(err, err2); err != nil {
			return nil, err
		}
		m.State = state
		if n, err := strconv.Atoi(slot); err == nil {
			m.Slot = n
		}
		members = append(members, m)
	}
	slices.SortFunc(members, func(a, b Member) int { return order(a) - order(b) })
	return members, nil
}

// order sorts members without a place behind the others.
func order(m Member) int {
	if m.Slot < 0 {
		return math.MaxInt32
	}
	return m.Slot
}

// Limit bounds recovery and checks to perSecond bytes; 0 lifts the bound, which
// by default is 200 MB/s.
func (a Array) Limit(perSecond units.Bytes) error {
	const none = 100 << 20 // KiB; md takes numbers of 31 bits
	kib := min(int64(perSecond>>10), none)
	if perSecond == 0 {
		kib = none
	}
	low := min(kib, 1000) // what md takes although the guest is busy, its default
	return errors.Join(a.write("sync_speed_min", fmt.Sprint(max(low, 1))), a.write("sync_speed_max", fmt.Sprint(max(kib, 1))))
}

// Check starts comparing the members, all of them: a check that is under way is
// given up, and one that was interrupted is not gone on with, as md would, which
// counts anew what it finds. Status tells when it has ended, Checked what it found.
func (a Array) Check() error {
	end := fmt.Sprint(int64(a.Size / units.Sector)) // and not "max", for Checked
	err := a.Idle()
	for _, set := range [][2]string{{"sync_min", "0"}, {"sync_max", end}, {"sync_action", "check"}} {
		if err == nil {
			err = a.soon(set[0], set[1])
		}
	}
	return err
}

// Checked is how many bytes the check found to differ, or the error that it did not
// come to its end. Md forgets the bounds of a check that did, and only of that.
func (a Array) Checked() (differ units.Bytes, err error) {
	s, err := a.Status()
	if err != nil {
		return 0, err
	}
	from, err1 := a.read("sync_min")
	to, err2 := a.read("sync_max")
	if err := errors.Join(err1, err2); err != nil {
		return 0, fmt.Errorf("cannot read how far %s was checked: %w", a.Path, err)
	}
	if from != "0" || to != "max" {
		return 0, fmt.Errorf("cannot tell what %s holds: somebody interrupted its check", a.Path)
	}
	return s.Mismatches, nil
}

// soon writes an attribute of an array that may be busy a moment longer, as it is
// after it was told to idle.
func (a Array) soon(name, value string) error {
	const pause, most = 100 * time.Millisecond, 10 * time.Second
	for waited := time.Duration(0); ; waited += pause {
		if err := a.write(name, value); !errors.Is(err, unix.EBUSY) || waited >= most {
			return err
		}
		time.Sleep(pause)
	}
}

// Idle ends a check that is under way.
func (a Array) Idle() error { return a.write("sync_action", "idle") }

func (a Array) write(name, value string) error {
	if err := os.WriteFile(a.attribute(name), []byte(value), 0); err != nil {
		return fmt.Errorf("cannot set %s of %s to %s: %w", name, a.Path, value, err)
	}
	return nil
}
