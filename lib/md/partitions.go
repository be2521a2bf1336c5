package md

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// blkpg is the ioctl of linux/blkpg.h that makes and removes partitions.
const blkpg = 0x1269 // _IO(0x12, 105)

// partitionLimit is how long DropPartitions waits for others, such as udev, to
// close a partition.
const partitionLimit = 30 * time.Second

// DropPartitions makes the kernel forget the partitions that it found in the
// array. It looks for them when a new array is opened first, and never again on
// its own; others can make it look only while nobody uses the array.
func (a Array) DropPartitions(ctx context.Context) error {
	if err := a.dropPartitions(ctx); err != nil {
		return fmt.Errorf("cannot hide the partitions in %s from this host: %w", a.Path, err)
	}
	return nil
}

func (a Array) dropPartitions(ctx context.Context) error {
	f, err := os.Open(a.Path) // if nobody has yet, the kernel looks now
	if err != nil {
		return err
	}
	defer f.Close()
	numbers, err := filepath.Glob(a.block("*/partition"))
	if err != nil {
		return err
	}
	for _, path := range numbers {
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		n, err := strconv.Atoi(strings.TrimSpace(string(b)))
		if err != nil {
			return err
		}
		for began := time.Now(); ; {
			err := dropPartition(f, n)
			if err == nil || errors.Is(err, unix.ENXIO) {
				break
			}
			if !errors.Is(err, unix.EBUSY) || time.Since(began) > partitionLimit {
				return fmt.Errorf("partition %d: %w", n, err)
			}
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	return nil
}

func dropPartition(disk *os.File, number int) error {
	partition := unix.BlkpgPartition{Pno: int32(number)}
	arg := unix.BlkpgIoctlArg{Op: unix.BLKPG_DEL_PARTITION, Datalen: int32(unsafe.Sizeof(partition)), Data: (*byte)(unsafe.Pointer(&partition))}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, disk.Fd(), blkpg, uintptr(unsafe.Pointer(&arg))); errno != 0 {
		return errno
	}
	return nil
}
