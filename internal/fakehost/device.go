package fakehost

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"xenlvm/lib/blkdev"
	"xenlvm/lib/dm"
	"xenlvm/lib/fault"
	"xenlvm/lib/mirror"
	"xenlvm/lib/udev"
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
	return blkdev.Device{Path: path, Node: path, Number: d.number(), Size: units.Bytes(d.Size), SectorSize: cmp.Or(d.Sector, 512)}, nil
}

func (d *Device) number() blkdev.Number { return blkdev.Number{Major: d.Major, Minor: d.Minor} }

// numbered is the path of the device with the number.
func (s *State) numbered(n blkdev.Number) string {
	for _, path := range slices.Sorted(maps.Keys(s.Devices)) {
		if s.Devices[path].number() == n {
			return path
		}
	}
	return ""
}

// leads goes down from upper.
func (s *State) leads(upper, path string) bool {
	d := s.Devices[upper]
	return upper == path || d != nil && slices.ContainsFunc(d.On, func(below string) bool { return s.leads(below, path) })
}

// Mirror finds the device of mdmirror that has a number.
func Mirror(n blkdev.Number) (dm.Device, bool, error) {
	s, err := Load()
	if err != nil {
		return dm.Device{}, false, err
	}
	path := s.numbered(n)
	d := s.Devices[path]
	if d == nil || !strings.HasPrefix(d.DM, udev.UUIDPrefix) {
		return dm.Device{}, false, nil
	}
	table := ""
	if len(d.On) == 1 && s.Devices[d.On[0]] != nil {
		table = fmt.Sprintf("0 1 linear %s 0", s.Devices[d.On[0]].number())
	}
	return dm.Device{Name: filepath.Base(path), UUID: d.DM, Number: n, Table: table}, true, nil
}

// Filling says how far a mirror is that has a volume.
func Filling(d mirror.Disk) (mirror.Phase, error) {
	s, err := Load()
	if err != nil || s.Devices[d.Path()] == nil {
		return "", err
	}
	return s.Devices[d.Path()].Phase, nil
}

// MirrorState is what there is of a mirror: its phase, and whether a domain has it.
func MirrorState(d mirror.Disk) (mirror.State, error) {
	s, err := Load()
	if err != nil || s.Devices[d.Path()] == nil {
		return mirror.State{Phase: mirror.Absent}, err
	}
	dev := s.Devices[d.Path()]
	state := mirror.State{Phase: cmp.Or(dev.Phase, mirror.Built), Top: dm.Device{Name: d.Name(), Number: dev.number()}}
	if s.open(dev) {
		state.Top.Open = 1
	}
	return state, nil
}

// Leads says whether a device is built on what is at a path, or is it.
func Leads(upper blkdev.Device, path string) bool {
	s, err := Load()
	return err == nil && s.leads(s.numbered(upper.Number), path)
}

// Held is Idle for a device that the one above it may use.
func Held(dev, above blkdev.Device) error {
	s, err := Load()
	if err != nil {
		return err
	}
	if used := s.Devices[dev.Path].Used; used != "" {
		return fault.Refuse("cannot write to %s: it is %s", dev.Path, used)
	}
	for path := range s.Devices {
		if path != dev.Path && s.leads(path, dev.Path) && !s.leads(s.numbered(above.Number), path) {
			return fault.Refuse("cannot write to %s: %s is built on it, and does not lead to the domain's disk", dev.Path, path)
		}
	}
	return nil
}

// Holds says what is on a device.
func Holds(path string) (string, error) {
	s, err := Load()
	if err != nil {
		return "", err
	}
	return s.Devices[path].Holds, nil
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
	if s.open(s.Devices[dev.Path]) {
		return fault.Refuse("cannot write to %s: somebody has it open", dev.Path)
	}
	return nil
}

// open says whether a domain has the device as a disk.
func (s *State) open(dev *Device) bool {
	number := fmt.Sprintf("%x:%x", dev.Major, dev.Minor)
	return slices.ContainsFunc(s.Domains, func(d *Domain) bool {
		return slices.ContainsFunc(d.Disks, func(k *Disk) bool { return k.Number == number })
	})
}

// lvs reports the volume that a selection by device number, or by its names, picks;
// all without a selection.
func lvs(c *Call) error {
	all := len(c.Args) == 8
	if !all && len(c.Args) != 10 || strings.Join(c.Args[:7], " ") != "--reportformat json --units b --nosuffix --binary -o" || !all && c.Args[8] != "-S" {
		return c.unknown()
	}
	var major, minor uint32
	var vgName, lvName string
	if all {
	} else if n, _ := fmt.Sscanf(c.Args[9], "lv_kernel_major=%d && lv_kernel_minor=%d", &major, &minor); n != 2 {
		if n, err := fmt.Sscanf(c.Args[9], "vg_name=%q && lv_name=%q", &vgName, &lvName); n != 2 || err != nil {
			return c.unknown()
		}
	}
	var rows []string
	for path, d := range c.State.Devices {
		vg, lv, ok := strings.Cut(d.LV, "/")
		if !ok || !all && (vgName == "" && (d.Major != major || d.Minor != minor) || vgName != "" && (vg != vgName || lv != lvName)) {
			continue
		}
		rows = append(rows, fmt.Sprintf(`{"vg_name":%q, "lv_name":%q, "lv_uuid":%q, "lv_path":%q, "lv_size":"%d", "lv_tags":%q, "lv_kernel_major":"%d", "lv_kernel_minor":"%d", "lv_active":"active", "origin":%q, "origin_size":"%d"}`,
			vg, lv, d.UUID, path, d.Size, strings.Join(d.Tags, ","), d.Major, d.Minor, d.Origin, c.State.sizeOf(vg+"/"+d.Origin)))
	}
	fmt.Fprintf(&c.Stdout, `{"report":[{"lv":[%s]}]}`+"\n", strings.Join(rows, ","))
	return nil
}

// lvchange knows: --addtag TAG VG/LV, --deltag TAG VG/LV.
func lvchange(c *Call) error {
	if len(c.Args) != 3 || c.Args[0] != "--addtag" && c.Args[0] != "--deltag" {
		return c.unknown()
	}
	if c.State.UntagSays != "" && c.Args[0] == "--deltag" {
		return errors.New(c.State.UntagSays)
	}
	for _, d := range c.State.Devices {
		if d.LV != c.Args[2] {
			continue
		}
		d.Tags = slices.DeleteFunc(d.Tags, func(t string) bool { return t == c.Args[1] })
		if c.Args[0] == "--addtag" {
			d.Tags = append(d.Tags, c.Args[1])
		}
		return nil
	}
	return fmt.Errorf("  Failed to find logical volume \"%s\"", c.Args[2])
}

// vgs reports a volume group, whose extents are of 4 MiB.
func vgs(c *Call) error {
	var name string
	if len(c.Args) != 9 || strings.Join(c.Args[:6], " ") != "--reportformat json --units b --nosuffix -o" || c.Args[7] != "-S" {
		return c.unknown()
	}
	if n, err := fmt.Sscanf(c.Args[8], "vg_name=%q", &name); n != 1 || err != nil {
		return c.unknown()
	}
	row := ""
	if free, ok := c.State.VGs[name]; ok {
		row = fmt.Sprintf(`{"vg_name":%q, "vg_size":"%d", "vg_free":"%d", "vg_extent_size":"4194304"}`, name, free, free)
	}
	fmt.Fprintf(&c.Stdout, `{"report":[{"vg":[%s]}]}`+"\n", row)
	return nil
}

// sizeOf is the size of the volume VG/LV, 0 if there is none.
func (s *State) sizeOf(spec string) int64 {
	for _, d := range s.Devices {
		if d.LV == spec {
			return d.Size
		}
	}
	return 0
}

// lvcreate knows: --yes --wipesignatures y --name LV --size BYTESb [--addtag TAG]... VG,
// and --yes --snapshot --permission r (or rw) in front of the same for VG/LV.
func lvcreate(c *Call) error {
	n := len(c.Args)
	if n > 4 && strings.Join(c.Args[:3], " ") == "--yes --snapshot --permission" && (c.Args[3] == "r" || c.Args[3] == "rw") {
		vg, origin, _ := strings.Cut(c.Args[n-1], "/")
		c.Args = slices.Concat([]string{"--yes", "--wipesignatures", "y"}, c.Args[4:n-1], []string{vg})
		name := vg + "/" + c.Args[4]
		if err := lvcreate(c); err != nil {
			return err
		}
		d := c.State.Devices["/dev/"+name]
		d.Origin, d.UUID = origin, rand.Text()
		return nil
	}
	if n < 8 || strings.Join(c.Args[:4], " ") != "--yes --wipesignatures y --name" || c.Args[5] != "--size" || n%2 != 0 {
		return c.unknown()
	}
	vg := c.Args[n-1]
	d := &Device{LV: vg + "/" + c.Args[4], UUID: "made", Major: 253, Minor: 100 + uint32(len(c.State.Devices))}
	if _, err := fmt.Sscanf(c.Args[6], "%db", &d.Size); err != nil {
		return c.unknown()
	}
	for i := 7; i < n-1; i += 2 {
		if c.Args[i] != "--addtag" {
			return c.unknown()
		}
		d.Tags = append(d.Tags, c.Args[i+1])
	}
	if c.State.Devices == nil {
		c.State.Devices = map[string]*Device{}
	}
	c.State.Devices["/dev/"+d.LV] = d
	return nil
}

// lvremove knows: --yes VG/LV.
func lvremove(c *Call) error {
	if len(c.Args) != 2 || c.Args[0] != "--yes" {
		return c.unknown()
	}
	for path, d := range c.State.Devices {
		if d.LV == c.Args[1] {
			if c.State.open(d) {
				return fmt.Errorf("  Logical volume %s in use", d.LV)
			}
			delete(c.State.Devices, path)
			return nil
		}
	}
	return fmt.Errorf("  Failed to find logical volume \"%s\"", c.Args[1])
}
