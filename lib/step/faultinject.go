//go:build faultinject

package step

import "xenlvm/lib/run"

// killVariable numbers the step, counted over all plans of the process and with the
// undoing, before which the process is killed as by a crash.
const killVariable = "XENLVM_KILL_AT"

var mayKill = run.KillAt(killVariable)
