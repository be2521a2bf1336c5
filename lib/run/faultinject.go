//go:build faultinject

package run

import (
	"fmt"
	"os"
	"strconv"
	"sync/atomic"
	"syscall"
)

// mayKill kills the process right before the command that XENLVM_KILL_COMMAND
// numbers, of those that change something and are not stopped half-way.
var mayKill = KillAt("XENLVM_KILL_COMMAND")

// KillAt returns what ends the process as by a crash when it is called for the Nth
// time. N is what the variable has in the environment; without it, nothing happens.
func KillAt(variable string) func() {
	text, set := os.LookupEnv(variable)
	if !set {
		return func() {}
	}
	// The programs that we start have steps and commands of their own.
	os.Unsetenv(variable)
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 1 {
		panic(fmt.Sprintf("%s=%s: want a number above 0", variable, text))
	}
	var until atomic.Int64
	until.Store(n)
	return func() {
		if until.Add(-1) == 0 {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		}
	}
}
