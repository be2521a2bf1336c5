//go:build !faultinject

package step

// mayKill does nothing: only the lab's programs are built with the tag
// faultinject, whose variant kills the process before a chosen step.
func mayKill() {}
