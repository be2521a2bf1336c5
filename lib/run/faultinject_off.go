//go:build !faultinject

package run

func mayKill() {}
