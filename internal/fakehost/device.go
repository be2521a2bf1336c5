package fakehost

import (
	"fmt"
	"strings"

	"xenlvm/lib/blkdev"
	"xenlvm/lib/fault"
	"xenlvm/lib/units"
)

// Stat stands in for blkdev.Stat: the block devices are those of the state.
func Stat(path string) (blkdev.Device, error) {
	s, err := Load()
	if err != nil {
		return blkdev.Device{}, err
	}
	d := s.Devices[path]
	if d == nil {
		return blkdev.Device{}, fault.Refuse("cannot use %s: it is not a block device", path)
	}
	return blkdev.Device{Path: path, Node: path, Number: blkdev.Number{Major: d.Major, Minor: d.Minor}, Size: units.Bytes(d.Size), SectorSize: 512}, nil
}

// Idle stands in for dm.Idle: a device is used as the state says, and open while
// a domain has it.
func Idle(dev blkdev.Device) error {
	s, err := Load()
	if err != nil {
		return err
	}
	if used := s.Devices[dev.Path].Used; used != "" {
		return fault.Refuse("cannot write to %s: it is %s", dev.Path, used)
	}
	for _, d := range s.Domains {
		for _, k := range d.Disks {
			if k.Number == fmt.Sprintf("%x:%x", dev.Number.Major, dev.Number.Minor) {
				return fault.Refuse("cannot write to %s: somebody has it open", dev.Path)
			}
		}
	}
	return nil
}

// lvs reports the volume that a selection by device number picks.
func lvs(c *Call) error {
	if len(c.Args) != 10 || strings.Join(c.Args[:7], " ") != "--reportformat json --units b --nosuffix --binary -o" || c.Args[8] != "-S" {
		return c.unknown()
	}
	var major, minor uint32
	if n, err := fmt.Sscanf(c.Args[9], "lv_kernel_major=%d && lv_kernel_minor=%d", &major, &minor); n != 2 || err != nil {
		return c.unknown()
	}
	var rows []string
	for path, d := range c.State.Devices {
		vg, lv, ok := strings.Cut(d.LV, "/")
		if !ok || d.Major != major || d.Minor != minor {
			continue
		}
		rows = append(rows, fmt.Sprintf(`{"vg_name":%q, "lv_name":%q, "lv_uuid":%q, "lv_path":%q, "lv_size":"%d", "lv_tags":%q, "lv_kernel_major":"%d", "lv_kernel_minor":"%d", "lv_active":"active"}`,
			vg, lv, d.UUID, path, d.Size, strings.Join(d.Tags, ","), d.Major, d.Minor))
	}
	fmt.Fprintf(&c.Stdout, `{"report":[{"lv":[%s]}]}`+"\n", strings.Join(rows, ","))
	return nil
}
