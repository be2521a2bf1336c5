//go:build faultinject

package step

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// child, set in the environment, makes TestKill the process that is killed.
const child = "XENLVM_STEP_CHILD"

// shown writes what begins and what has ended, unbuffered.
type shown struct{}

func (shown) Started(_, _ int, what string) { fmt.Println("began", what) }
func (shown) Finished(_, _ int, what string, _ time.Duration, _ error) {
	fmt.Println("ended", what)
}

// Two plans begin six steps, taking back and undoing among them.
func TestKill(t *testing.T) {
	if os.Getenv(child) != "" {
		if at, inherited := os.LookupEnv(killVariable); inherited {
			t.Errorf("what we start would be killed at its step %s", at)
		}
		var trace []string
		_ = plan(2, &trace, -1, -1).Run(t.Context(), shown{})
		_ = plan(2, &trace, 1, -1).Run(t.Context(), shown{})
		return
	}
	all := strings.Split("s0,s1,take back: s0,s0,s1,undo: s0", ",")
	for at := 1; at <= len(all)+1; at++ {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKill$")
		cmd.Env = append(os.Environ(), child+"=yes", fmt.Sprint(killVariable, "=", at))
		out, err := cmd.Output()
		var exit *exec.ExitError
		killed := errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
		if want := at <= len(all); killed != want || !want && err != nil {
			t.Fatalf("at %d: %v; killed must be %t: %s", at, err, want, out)
		}
		var want strings.Builder
		for i, what := range all[:min(at, len(all))] {
			fmt.Fprintln(&want, "began", what)
			if i < at-1 {
				fmt.Fprintln(&want, "ended", what)
			}
		}
		if !killed {
			want.WriteString("PASS\n")
		}
		if string(out) != want.String() {
			t.Errorf("at %d it did\n%swant\n%s", at, out, want.String())
		}
	}
}
