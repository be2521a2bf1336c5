package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"xenlvm/lib/fault"
)

// locks is where the locks of the host's domains are, wherever their journals
// are: a domain belongs to the machine that it runs on.
const locks = "/run/xenlvm/lock"

// Lock takes the domain for one run. It returns what releases it.
func (j *Journal) Lock() (release func(), err error) {
	if err := os.MkdirAll(j.Locks, 0o700); err != nil {
		return nil, fmt.Errorf("cannot lock domain %s: %w", j.Domain, err)
	}
	f, err := os.OpenFile(j.lockFile(), os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot lock domain %s: %w", j.Domain, err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		holder := make([]byte, 64)
		n, _ := f.ReadAt(holder, 0)
		f.Close()
		return nil, fault.Hint(fault.Refuse("cannot work on domain %s: another run has it (%s)", j.Domain, strings.TrimSpace(string(holder[:n]))),
			"wait until it has ended, then run the same command again")
	}
	// Whom to wait for. The lock file itself stays: removing it would let two
	// runs lock two different files.
	if err := f.Truncate(0); err == nil {
		fmt.Fprintln(f, Holder{j.tool, os.Getpid()})
	}
	return func() { f.Close() }, nil
}

func (j *Journal) lockFile() string { return filepath.Join(j.Locks, j.Domain) }

// Holder is who has a domain for a run.
type Holder struct {
	Tool string `json:"tool"` // "" in the moment before it says so
	PID  int    `json:"pid"`
}

func (h Holder) String() string { return fmt.Sprintf("%s, process %d", h.Tool, h.PID) }

// Holder asks who has the domain at this moment, nil for nobody. It does not take it
// for that: a run that begins would be refused.
func (j *Journal) Holder() (*Holder, error) {
	said, err := os.ReadFile(j.lockFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var st unix.Stat_t
	if err == nil {
		err = unix.Stat(j.lockFile(), &st)
	}
	var held []byte
	if err == nil {
		held, err = os.ReadFile("/proc/locks")
	}
	if err != nil {
		return nil, fmt.Errorf("cannot tell whether another run has domain %s: %w", j.Domain, err)
	}
	return holder(string(held), string(said), &st), nil
}

// holder finds the lock of a file in /proc/locks, whose lines are
//
//	1: FLOCK  ADVISORY  WRITE 4711 00:19:1042 0 EOF
//
// with the process and the file's device, in hex, and inode. Some file systems have
// another device there than stat says: then the process that the file names counts.
func holder(locks, said string, st *unix.Stat_t) *Holder {
	tool, number, _ := strings.Cut(strings.TrimSpace(said), ", process ")
	named, _ := strconv.Atoi(number)
	file := fmt.Sprintf("%02x:%02x:%d", unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino)
	for line := range strings.Lines(locks) {
		f := strings.Fields(line)
		if len(f) < 6 || f[1] != "FLOCK" || !strings.HasSuffix(f[5], fmt.Sprintf(":%d", st.Ino)) {
			continue
		}
		pid, err := strconv.Atoi(f[4])
		switch {
		case err != nil:
		case pid == named:
			return &Holder{tool, pid}
		case f[5] == file:
			return &Holder{PID: pid}
		}
	}
	return nil
}
