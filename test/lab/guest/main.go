// Command guest is the whole user space of the lab's DomU: the /init of its initramfs, and its /sbin/poweroff and
// /sbin/reboot. It is the judge of "nothing lost".
//
// It mounts its root disk, verifies every record and file it ever wrote there, and then appends numbered, checksummed
// records (package record), each acknowledged on the console only after its fsync. It writes on its console:
//
//	GUEST start kernel R t=NS                     first line of every boot
//	GUEST boot N kernel R t=NS                    the root disk is mounted, and this is its boot number N
//	GUEST verified disk=D records=N last=N bytes=N t=NS
//	GUEST torn disk=D bytes=N reason=… t=NS       a tail that never was acknowledged was cut off
//	GUEST files disk=D verified=N bad=N t=NS
//	GUEST LOST disk=D … t=NS                      something acknowledged is missing or damaged: nothing is written any more
//	GUEST FAIL … t=NS                             cannot go on for another reason
//	GUEST doing COMMAND t=NS
//	GUEST did COMMAND ok|error … t=NS
//	GUEST note … t=NS
//	GUEST shutdown poweroff|reboot t=NS           everything is synced and unmounted
//	ACK D FIRST[-LAST] NS                         these records are on the disk
//	HB NS [lost]                                  the heartbeat
//
// NS is the wall clock in Unix nanoseconds. Options come from the kernel command line (options.go), commands from xenstore
// (commands.go). The kernel runs /sbin/poweroff and /sbin/reboot when the host asks for a shutdown; under these names
// the program only tells the first process.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	sigPoweroff = syscall.SIGUSR1
	sigReboot   = syscall.SIGUSR2
)

func main() {
	var err error
	switch name := filepath.Base(os.Args[0]); {
	case os.Getpid() == 1:
		initMain()
	case name == "poweroff" || name == "halt":
		err = syscall.Kill(1, sigPoweroff)
	case name == "reboot":
		err = syscall.Kill(1, sigReboot)
	default:
		err = fmt.Errorf("cannot run as %q: this is the init of a lab guest", name)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "guest: %v\n", err)
		os.Exit(1)
	}
}

// initMain is the first process. It does not return: the kernel panics when its init ends.
func initMain() {
	// Before all else: a signal that the first process does not handle is dropped, and with it a shutdown.
	stop := make(chan os.Signal, 4)
	signal.Notify(stop, sigPoweroff, sigReboot)

	prepErr := prepare()
	g, err := newGuest()
	if err != nil {
		panic(err)
	}
	g.con.say("start kernel %s", kernelRelease())
	if prepErr != nil {
		g.con.say("note %v", prepErr) // if it matters, a disk will be missing
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	finished := make(chan struct{})
	go func() {
		g.run(ctx)
		close(finished)
	}()
	for sig := range stop {
		what, how := "poweroff", unix.LINUX_REBOOT_CMD_POWER_OFF
		if sig == sigReboot {
			what, how = "reboot", unix.LINUX_REBOOT_CMD_RESTART
		}
		if g.opt.ignoreShutdown {
			g.con.say("ignored %s", what)
			continue
		}
		cancel()
		<-finished
		g.shutdown(what)
		if err := unix.Reboot(how); err != nil {
			panic(err)
		}
	}
}
