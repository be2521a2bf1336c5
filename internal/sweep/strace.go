package sweep

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"xenlvm/internal/fakehost"
)

// short is a write of 512 bytes that wrote none.
const short = "retval=512"

// deepest is the last of its calls that a thread has fail.
const deepest = 4

// syscallFault is a fault of the Nth call of each thread.
type syscallFault struct {
	name, fault string
	when        int
	paths       []string
}

// syscallFaults are the faults of calls; see Plan.
func syscallFaults(calls map[string][]string, lies bool) []syscallFault {
	var all []syscallFault
	for _, name := range slices.Sorted(maps.Keys(calls)) {
		faults := []string{"error=EIO", "error=ENOSPC", "error=EINTR"}
		if lies && strings.Contains(name, "write") {
			faults = append(faults, short)
		}
		for _, fault := range faults {
			for when := 1; when <= deepest; when++ {
				all = append(all, syscallFault{name, fault, when, calls[name]})
			}
		}
	}
	return all
}

func (f syscallFault) inject() string { return fmt.Sprintf("%s:%s:when=%d", f.name, f.fault, f.when) }

// String has no character that a configuration could not have in a path.
func (f syscallFault) String() string {
	fault := strings.TrimPrefix(f.fault, "error=")
	if f.fault == short {
		fault = "short"
	}
	return fmt.Sprintf("%s %s call %d", f.name, fault, f.when)
}

// command is the program under strace.
func (f syscallFault) command(w World, path string, args []string) *exec.Cmd {
	all := []string{"-f", "-qq", "-o", filepath.Join(w.Dir, "strace"), "-e", "trace=" + f.name, "-e", "inject=" + f.inject()}
	for _, p := range f.paths {
		all = append(all, "-P", filepath.Join(w.Dir, p))
	}
	return exec.CommandContext(w.Context(), "strace", slices.Concat(all, []string{"--", path}, args)...)
}

// mark says that the fault came to pass.
func (f syscallFault) mark(w World) {
	if strings.Contains(w.Read("strace"), "(INJECTED)") {
		w.Write(fakehost.FaultMark, "")
	}
}

// needStrace fails where strace is missing; with -short what needs it is left out.
func needStrace(t *testing.T) bool {
	t.Helper()
	if testing.Short() {
		return false
	}
	if _, err := exec.LookPath("strace"); err != nil {
		t.Fatalf("cannot have system calls fail: %v: apt-get install strace, or test with -short", err)
	}
	if b, err := os.ReadFile("/proc/sys/kernel/yama/ptrace_scope"); err == nil && strings.TrimSpace(string(b)) == "3" {
		t.Fatal("cannot have system calls fail: this kernel lets nobody trace (kernel.yama.ptrace_scope)")
	}
	return true
}
