package fakehost

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A Fault is what goes wrong with one call. FAKEHOST_FAULT is the number of the call,
// a colon and the fault.
type Fault string

// The faults.
const (
	Fails  Fault = "fails"  // it does nothing and ends with an error
	Late   Fault = "late"   // it does its work and ends with an error
	Killed Fault = "killed" // it does its work and is killed
	Hangs  Fault = "hangs"  // there is $WORK/hangs; when there is $WORK/go-on, a query fails, and a change is made
	Kills  Fault = "kills"  // it does its work, and whoever called it is killed
)

// Faults are all of them.
var Faults = []Fault{Fails, Late, Killed, Hangs, Kills}

// FaultMark is the file below $WORK that says that the fault came to pass.
const FaultMark = "fault"

// faultOf is what goes wrong with call n, "" for nothing.
func faultOf(n int) Fault {
	at, kind, _ := strings.Cut(os.Getenv("FAKEHOST_FAULT"), ":")
	if want, err := strconv.Atoi(at); err != nil || want != n {
		return ""
	}
	mark(FaultMark)
	return Fault(kind)
}

func mark(name string) {
	if err := os.WriteFile(filepath.Join(os.Getenv("WORK"), name), nil, 0o644); err != nil {
		fmt.Fprintf(os.Stderr, "fakehost: %v\n", err)
	}
}

// before is what goes wrong instead of the call; done: it is over.
func before(kind Fault, query bool) (done bool, status int) {
	switch kind {
	case Fails:
		fmt.Fprintln(os.Stderr, "fakehost: as the test wants it")
		return true, 1
	case Hangs:
		mark("hangs")
		for !exists("go-on") {
			time.Sleep(2 * time.Millisecond)
		}
		if query {
			return true, 1
		}
	}
	return false, 0
}

// behind is what goes wrong after the call, which ended with status.
func behind(kind Fault, status int) int {
	switch kind {
	case Late:
		fmt.Fprintln(os.Stderr, "fakehost: as the test wants it")
		return 1
	case Killed:
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	case Kills:
		_ = syscall.Kill(os.Getppid(), syscall.SIGKILL)
	}
	return status
}

func exists(name string) bool {
	_, err := os.Stat(filepath.Join(os.Getenv("WORK"), name))
	return err == nil
}

// isQuery says whether a call changes nothing.
func isQuery(name string, args []string) bool {
	switch name {
	case "xl":
		return len(args) > 0 && slices.Contains([]string{"list", "info", "-N"}, args[0])
	case "xenstore-ls", "xenstore-read", "lvs", "vgs", "blkid", "dumpe2fs", "xfs_db":
		return true
	}
	return false
}
