// Package udev keeps this host's udev from acting on what a guest wrote: without
// a rule, a disk of a guest that becomes a device of the host is searched for
// file systems, arrays and volume groups, which are named, assembled and
// activated.
package udev

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"xenlvm/lib/run"
	"xenlvm/lib/step"
)

// dir is where rules live that do not outlast a boot.
const dir = "/run/udev/rules.d"

// UUIDPrefix is how the UUIDs of the device-mapper devices begin that are hidden: all
// of ours.
const UUIDPrefix = "XENLVM-"

// rules run behind those that look into a device (60-persistent-storage,
// 63-md-raid-arrays) and before those that act on what was found
// (64-md-raid-assembly, 69-lvm). Only the links by which we know our devices stay.
// Without a watch udev does not have the kernel look for partitions again whenever
// a program closes a device that it wrote to.
const rules = `# Disks of guests, while xenlvm mirrors them: not this host's business.
SUBSYSTEM!="block", GOTO="xenlvm_end"
ENV{DM_UUID}=="` + UUIDPrefix + `*", SYMLINK="mapper/$env{DM_NAME}", GOTO="xenlvm_hide"
ENV{MD_DEVNAME}=="%[1]s", ENV{DEVTYPE}=="disk", SYMLINK="md/%[1]s", GOTO="xenlvm_hide"
ENV{MD_DEVNAME}=="%[1]s", SYMLINK="", GOTO="xenlvm_hide"
KERNEL=="loop*", ATTR{loop/backing_file}=="%[2]s", SYMLINK="", GOTO="xenlvm_hide"
GOTO="xenlvm_end"
LABEL="xenlvm_hide"
OPTIONS+="nowatch"
ENV{ID_FS_TYPE}="", ENV{ID_FS_USAGE}="", ENV{SYSTEMD_READY}="0"
LABEL="xenlvm_end"
`

// Hide is the step that hides what is in the image file, the array (/dev/md/ARRAY)
// and the device-mapper devices (see UUIDPrefix) of the mirror called name.
func Hide(r run.Runner, name, array, image string) step.Step {
	path := File(name)
	return step.Step{
		What: "keep udev off the disk " + name,
		Do: func(ctx context.Context) error {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
			if err := os.WriteFile(path, fmt.Appendf(nil, rules, pattern(array), pattern(image)), 0o644); err != nil {
				return err
			}
			return reload(ctx, r)
		},
		Undo:     func(ctx context.Context) error { return Show(ctx, r, name) },
		UndoLine: run.Quote("rm", path),
	}
}

// Show takes Hide back. There may be nothing to take back.
func Show(ctx context.Context, r run.Runner, name string) error {
	if err := os.Remove(File(name)); errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	return reload(ctx, r)
}

// File is the rules file of a mirror.
func File(name string) string { return filepath.Join(dir, "63-xenlvm-"+name+".rules") }

func reload(ctx context.Context, r run.Runner) error {
	_, err := r.Run(ctx, run.Cmd{Name: "udevadm", Args: []string{"control", "--reload"}, Effect: run.Change})
	return err
}

// pattern is text as a udev pattern that matches only it; what cannot be written
// in a rule matches any byte.
func pattern(text string) string {
	var b strings.Builder
	for _, r := range text {
		switch {
		case r < ' ' || r == '"' || r == '\\':
			b.WriteByte('?')
		case strings.ContainsRune("*?[]|", r):
			b.WriteString("[" + string(r) + "]")
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}
