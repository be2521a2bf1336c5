package dm

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"xenlvm/lib/blkdev"
	"xenlvm/lib/run"
	"xenlvm/lib/units"
)

// Device is a device-mapper device with one target.
type Device struct {
	Name   string // below /dev/mapper
	UUID   string // its maker's, such as LVM-… : what tells whose it is
	Number blkdev.Number
	Open   int    // how many have it open
	Held   bool   // it is suspended: what is written to it, or read, waits
	Table  string // "0 524288 linear 9:127 0"
}

// Path is the device's name in /dev.
func (d Device) Path() string { return "/dev/mapper/" + d.Name }

// Node is the name that the kernel has for it: /dev/dm-3.
func (d Device) Node() string { return fmt.Sprintf("/dev/dm-%d", d.Number.Minor) }

// Find looks for the device called name. The boolean is false when there is none.
func Find(name string) (Device, bool, error) {
	var b buffer
	r := b.request()
	if len(name) >= len(r.Name) {
		return Device{}, false, fmt.Errorf("cannot ask device-mapper for %s: the name is too long", name)
	}
	copy(r.Name[:], name)
	r.Flags = unix.DM_STATUS_TABLE_FLAG
	err := b.ask(unix.DM_TABLE_STATUS, name)
	if errors.Is(err, os.ErrNotExist) {
		return Device{}, false, nil
	}
	if err != nil {
		return Device{}, false, err
	}
	table, err := status(b.bytes(), r.Data_start, r.Target_count)
	if err != nil {
		return Device{}, false, fmt.Errorf("cannot read the table of %s: %w", name, err)
	}
	return Device{Name: name, UUID: text(r.Uuid[:]), Number: blkdev.NumberOf(r.Dev), Open: int(r.Open_count), Held: r.Flags&unix.DM_SUSPEND_FLAG != 0, Table: table}, true, nil
}

// LinearOver says whether the device is all of one other device, as Linear makes it.
func (d Device) LinearOver(n blkdev.Number) bool {
	f := strings.Fields(d.Table)
	return len(f) == 5 && f[2] == "linear" && f[3] == n.String() && f[4] == "0"
}

// Linear is the table of a device that is the first size bytes of another one.
func Linear(device string, size units.Bytes) string {
	return fmt.Sprintf("0 %d linear %s 0", size/units.Sector, device)
}

// Create makes a device.
func Create(name, uuid, table string) run.Cmd {
	return change("create", name, "--uuid", uuid, "--table", table)
}

// Load gives a device a second table, which Resume puts into force.
func Load(name, table string) run.Cmd { return change("load", name, "--table", table) }

// Clear takes the second table away again.
func Clear(name string) run.Cmd { return change("clear", name) }

// Suspend waits until all I/O that is under way has ended, and holds back what
// comes then.
func Suspend(name string) run.Cmd { return change("suspend", name) }

// Resume lets I/O go on, with the second table if there is one.
func Resume(name string) run.Cmd { return change("resume", name) }

// Remove removes a device that nobody has open.
func Remove(name string) run.Cmd { return change("remove", "--retry", name) }

// RemoveLater removes a device as soon as nobody has it open any more.
func RemoveLater(name string) run.Cmd { return change("remove", "--deferred", name) }

func change(args ...string) run.Cmd {
	return run.Cmd{Name: "dmsetup", Args: args, Effect: run.Change}
}
