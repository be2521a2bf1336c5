package xl

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"xenlvm/lib/blkdev"
	"xenlvm/lib/run"
	"xenlvm/lib/units"
)

// XenbusState is how far one end of a device is. xen/include/public/io/xenbus.h
type XenbusState int

// The states that we ask for.
const (
	InitWait  XenbusState = 2 // the backend has its device and waits for the guest
	Connected XenbusState = 4 // the guest can write
	Closed    XenbusState = 6
)

// Disk is a disk that a domain has at this moment.
type Disk struct {
	VDev    string // xvda, as configured
	ID      int    // the number behind it: 51712
	Kind    string // which backend serves it: vbd (the kernel), qdisk (QEMU), vbd3
	Node    string // of the backend in xenstore
	State   XenbusState
	Path    string // the file or device that was configured, without a format in front
	Major   uint32 // of the block device that the guest gets, a loop for a file;
	Minor   uint32 // known only for vbd, and only while HasDevice
	CDROM   bool
	GuestUp bool // the guest's end was initialised: it may have written

	// What a connected guest was told of a disk of kind vbd, and believes until
	// its next start; 0 for others.
	Size       units.Bytes
	SectorSize int // bytes

	HasDevice bool
}

// Number is that of the block device, while HasDevice.
func (d Disk) Number() blkdev.Number { return blkdev.Number{Major: d.Major, Minor: d.Minor} }

// Disks returns the disks of a running domain, by their number.
func Disks(ctx context.Context, r run.Runner, domid int) ([]Disk, error) {
	front := fmt.Sprintf("/local/domain/%d/device/vbd", domid)
	tree, err := list(ctx, r, front)
	if err != nil {
		return nil, fmt.Errorf("cannot read the disks of domain %d: %w", domid, err)
	}
	var disks []Disk
	for _, key := range slices.Sorted(maps.Keys(tree)) {
		rest, below := strings.CutPrefix(key, front+"/")
		id, leaf, _ := strings.Cut(rest, "/")
		if !below || leaf != "backend" {
			continue
		}
		d := Disk{Node: tree[key]}
		if d.ID, err = strconv.Atoi(id); err != nil {
			return nil, fmt.Errorf("cannot read the disks of domain %d: %w", domid, err)
		}
		state, _ := strconv.Atoi(tree[front+"/"+id+"/state"])
		d.GuestUp = state > int(InitWait) && state < int(Closed)
		back, err := list(ctx, r, d.Node)
		if err != nil {
			return nil, fmt.Errorf("cannot read the disks of domain %d: %w", domid, err)
		}
		d.fill(back)
		disks = append(disks, d)
	}
	slices.SortFunc(disks, func(a, b Disk) int { return a.ID - b.ID })
	return disks, nil
}

// fill reads the backend's node: …/backend/KIND/DOMID/DEVID.
func (d *Disk) fill(back map[string]string) {
	get := func(leaf string) string { return back[d.Node+"/"+leaf] }
	d.Kind = path.Base(path.Dir(path.Dir(d.Node)))
	d.VDev = get("dev")
	d.CDROM = get("device-type") == "cdrom"
	state, _ := strconv.Atoi(get("state"))
	d.State = XenbusState(state)
	d.Path = get("params")
	if d.Kind != "vbd" {
		// libxl writes FORMAT:PATH, with aio for raw.
		if _, p, ok := strings.Cut(d.Path, ":"); ok {
			d.Path = p
		}
	}
	if d.Kind == "vbd" {
		sectors, _ := strconv.ParseInt(get("sectors"), 10, 54)
		d.Size = units.Bytes(sectors) * units.Sector // whatever the size of a sector
		d.SectorSize, _ = strconv.Atoi(get("sector-size"))
	}
	major, minor, ok := strings.Cut(get("physical-device"), ":")
	if !ok {
		return
	}
	ma, err1 := strconv.ParseUint(major, 16, 32)
	mi, err2 := strconv.ParseUint(minor, 16, 32)
	d.Major, d.Minor, d.HasDevice = uint32(ma), uint32(mi), errors.Join(err1, err2) == nil
}

// Attached returns those of the backends' nodes that still are in xenstore. A
// domain that is gone from the list may still have writes under way, and its
// device is let go only by the hotplug script, after which libxl removes the node.
func Attached(ctx context.Context, r run.Runner, nodes []string) ([]string, error) {
	var still []string
	for _, n := range nodes {
		tree, err := list(ctx, r, n)
		if err != nil {
			return nil, fmt.Errorf("cannot read backend %s: %w", n, err)
		}
		if len(tree) > 0 {
			still = append(still, n)
		}
	}
	return still, nil
}

// list reads a subtree of xenstore. One that does not exist is empty.
func list(ctx context.Context, r run.Runner, root string) (map[string]string, error) {
	const absent = "No such file or directory"
	res, err := run.Insist(ctx, r, run.Cmd{Name: "xenstore-ls", Args: []string{"-f", root}}, absent)
	var failed *run.Error
	if errors.As(err, &failed) && strings.Contains(failed.Stderr, absent) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return parseTree(string(res.Stdout)), nil
}

// parseTree reads lines PATH = "VALUE". xenstore-ls escapes what is not
// printable, a newline too, but not the quote.
func parseTree(out string) map[string]string {
	tree := map[string]string{}
	for line := range strings.Lines(out) {
		key, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), ` = "`)
		if ok {
			tree[key] = unescape(strings.TrimSuffix(value, `"`))
		}
	}
	return tree
}

// unescape undoes \t \n \r \\ and one to three octal digits.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		i++
		if n := strings.IndexByte("tnr\\", s[i]); n >= 0 {
			b.WriteByte("\t\n\r\\"[n])
			continue
		}
		c, digits := 0, 0
		for digits < 3 && i+digits < len(s) && s[i+digits] >= '0' && s[i+digits] <= '7' {
			c = c*8 + int(s[i+digits]-'0')
			digits++
		}
		if digits == 0 {
			b.WriteByte('\\')
			digits, c = 1, int(s[i])
		}
		b.WriteByte(byte(c))
		i += digits - 1
	}
	return b.String()
}
