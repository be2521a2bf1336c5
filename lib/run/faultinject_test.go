//go:build faultinject

package run

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// child, set in the environment, makes TestKillCommand the process that is killed.
const child = "XENLVM_RUN_CHILD"

// Two changes are counted, and neither a query nor what is stopped half-way.
func TestKillCommand(t *testing.T) {
	if os.Getenv(child) != "" {
		for i, c := range []Cmd{{}, {Effect: Change}, {Effect: Change, Interruptible: true}, {Effect: Change}} {
			c.Name, c.Args = "sh", []string{"-c", `echo "$0$XENLVM_KILL_COMMAND"`, fmt.Sprint(i)}
			c.Stdout = os.Stdout
			if _, err := (Host{}).Run(t.Context(), c); err != nil {
				t.Error(err)
			}
		}
		return
	}
	for at, want := range []string{"", "0", "0 1 2", "0 1 2 3 PASS"} {
		if at == 0 {
			continue
		}
		cmd := exec.Command(os.Args[0], "-test.run=^TestKillCommand$")
		cmd.Env = append(os.Environ(), child+"=yes", fmt.Sprint("XENLVM_KILL_COMMAND=", at))
		out, err := cmd.Output()
		var exit *exec.ExitError
		killed := errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
		if got := strings.Join(strings.Fields(string(out)), " "); got != want || killed != (at < 3) {
			t.Errorf("at %d: %q, %v; want %q", at, got, err, want)
		}
	}
}
