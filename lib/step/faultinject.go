//go:build faultinject

package step

import (
	"fmt"
	"os"
	"strconv"
	"sync/atomic"
	"syscall"
)

// killVariable has the number of the step, counted over all plans of the process
// and with the undoing, before which the process is killed as by a crash.
const killVariable = "XENLVM_KILL_AT"

// untilKill is how many steps may still begin; what is not asked for is never
// reached.
var untilKill = func() *atomic.Int64 {
	n := new(atomic.Int64)
	if at, set := os.LookupEnv(killVariable); set {
		steps, err := strconv.ParseInt(at, 10, 64)
		if err != nil || steps < 1 {
			panic(fmt.Sprintf("%s=%s: want the number of a step", killVariable, at))
		}
		n.Store(steps)
		// The programs that we start have steps of their own.
		os.Unsetenv(killVariable)
	}
	return n
}()

// mayKill kills the process if it is to end before the step that begins now.
func mayKill() {
	if untilKill.Add(-1) == 0 {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
}
