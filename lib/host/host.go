// Package host asks about, and changes, what belongs to the whole machine or
// this process: who we are, free space, priorities.
package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/shirou/gopsutil/v3/disk"
	"github.com/shirou/gopsutil/v3/mem"
	"golang.org/x/sys/unix"

	"xenlvm/lib/fault"
	"xenlvm/lib/units"
)

// NeedRoot refuses to go on for anybody but root.
func NeedRoot(what string) error {
	if os.Geteuid() != 0 {
		return fault.Hint(fault.Refuse("cannot %s: not root", what), "run it with sudo")
	}
	return nil
}

// NeedSpace refuses when the file system of dir, which must exist, has less
// than size bytes for us.
func NeedSpace(ctx context.Context, dir string, size units.Bytes) error {
	free, err := Free(ctx, dir)
	if err != nil {
		return err
	}
	if free < size {
		return fault.Refuse("cannot write %s to %s: only %s are free", size, dir, free)
	}
	return nil
}

// Free is what the file system of dir, which must exist, has left for us.
func Free(ctx context.Context, dir string) (units.Bytes, error) {
	u, err := disk.UsageWithContext(ctx, dir)
	if err != nil {
		return 0, fmt.Errorf("cannot read the free space of %s: %w", dir, err)
	}
	return units.Bytes(u.Free), nil
}

// MemoryAvailable is what programs can have without swapping.
func MemoryAvailable(ctx context.Context) (units.Bytes, error) {
	m, err := mem.VirtualMemoryWithContext(ctx)
	if err != nil {
		return 0, fmt.Errorf("cannot read the memory of this host: %w", err)
	}
	return units.Bytes(m.Available), nil
}

// The scheduling class "idle" of ioprio_set(2): I/O only when nobody else wants
// any. linux/ioprio.h
const (
	ioprioWhoProcess = 1
	ioprioIdle       = 3 << 13
	ioprioNone       = 0
	niceIdle         = 19
)

// Idle puts this process, and the commands that it runs from now on, at the
// lowest CPU and I/O priority: guests go first. The function it returns puts it
// back.
func Idle() (restore func(), err error) {
	before, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot lower the priority: %w", err)
	}
	// The system call returns 20-nice.
	nice := 20 - before
	if err := setPriority(niceIdle, ioprioIdle); err != nil {
		return nil, fmt.Errorf("cannot lower the priority: %w", err)
	}
	return func() { _ = setPriority(nice, ioprioNone) }, nil
}

// setPriority sets both priorities of every thread: on Linux they belong to
// threads, and new threads take those of the thread that starts them.
func setPriority(nice, ioprio int) error {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, t := range tasks {
		tid, err := strconv.Atoi(t.Name())
		if err != nil {
			return err
		}
		if err := unix.Setpriority(unix.PRIO_PROCESS, tid, nice); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
		if _, _, e := unix.Syscall(unix.SYS_IOPRIO_SET, ioprioWhoProcess, uintptr(tid), uintptr(ioprio)); e != 0 && e != unix.ESRCH {
			return e
		}
	}
	return nil
}
