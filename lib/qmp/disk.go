package qmp

import (
	"context"
	"encoding/json"
	"strings"
	"unicode"

	"xenlvm/lib/fault"
)

// Disk is a disk that QEMU serves to its guest. It can be kept as JSON, for the
// run that takes up a mirror again.
type Disk struct {
	VDev     string `json:"vdev"`   // xvda; "" if the device is none of Xen's
	QDev     string `json:"qdev"`   // the device in QEMU: its id or path
	Node     string `json:"node"`   // the block node that the device is on
	Format   string `json:"format"` // of that node: qcow2, raw
	File     string `json:"file"`   // the image file or block device below it
	Size     int64  `json:"size"`   // of the disk that the guest sees, in bytes
	ReadOnly bool   `json:"read_only"`
}

// node is a block node in query-block and query-named-block-nodes.
type node struct {
	Name     string `json:"node-name"`
	Driver   string `json:"drv"`
	File     string `json:"file"`
	ReadOnly bool   `json:"ro"`
	Image    struct {
		Size int64 `json:"virtual-size"`
	} `json:"image"`
}

// Disks are the disks that devices of the guest are on now. A device is told by
// what it says of itself and not by the names of nodes, which differ from one
// QEMU to another: xen-block calls the node of a qcow2 image xvda-qcow2.
func (c *Client) Disks(ctx context.Context) ([]Disk, error) {
	disks, err := c.attached(ctx)
	for i := range disks {
		if err == nil {
			disks[i].VDev, err = c.vdev(ctx, disks[i].QDev)
		}
	}
	if err != nil {
		return nil, err
	}
	return disks, nil
}

// attached is Disks without the names that the guest knows.
func (c *Client) attached(ctx context.Context) ([]Disk, error) {
	var backends []struct {
		QDev     string `json:"qdev"`
		Inserted *node  `json:"inserted"` // nil: a drive without a medium
	}
	if err := c.Execute(ctx, "query-block", nil, &backends); err != nil {
		return nil, err
	}
	var disks []Disk
	for _, b := range backends {
		if n := b.Inserted; n != nil && b.QDev != "" {
			disks = append(disks, Disk{QDev: b.QDev, Node: n.Name, Format: n.Driver, File: filename(n.File), Size: n.Image.Size, ReadOnly: n.ReadOnly})
		}
	}
	return disks, nil
}

// vdev is the virtual device that a device of Xen's is for the guest, "" for
// any other device.
func (c *Client) vdev(ctx context.Context, qdev string) (string, error) {
	get := func(property string) (value string, err error) {
		err = c.Execute(ctx, "qom-get", map[string]string{"path": qdev, "property": property}, &value)
		return value, err
	}
	kind, err := get("type")
	if err != nil || kind != "xen-disk" && kind != "xen-cdrom" {
		return "", err
	}
	vdev, err := get("vdev")
	// QEMU calls the whole disk its partition 0.
	if disk := strings.TrimRight(vdev, "0123456789"); vdev == disk+"0" {
		return disk, err
	}
	return vdev, err
}

// Disk is the disk vdev (xvda) of the guest. It refuses what cannot be found with
// certainty, a file whose name would be more than one word on a line, and an image
// that this QEMU has open twice: the emulated drive of an HVM guest is the same
// image again, and would stay behind on it.
func (c *Client) Disk(ctx context.Context, vdev string) (Disk, error) {
	disks, err := c.Disks(ctx)
	if err != nil {
		return Disk{}, err
	}
	var found []Disk
	for _, d := range disks {
		if d.VDev == vdev {
			found = append(found, d)
		}
	}
	if len(found) != 1 {
		return Disk{}, fault.Refuse("cannot find disk %s in QEMU at %s: it has %d of that name", vdev, c.socket, len(found))
	}
	d := found[0]
	if d.Node == "" || d.File == "" || d.Size <= 0 {
		return Disk{}, fault.Refuse("cannot tell what disk %s is on in QEMU at %s", vdev, c.socket)
	}
	if strings.ContainsFunc(d.File, unicode.IsControl) {
		return Disk{}, fault.Refuse("cannot use disk %s: the name of its file in QEMU has a control character: %q", vdev, d.File)
	}
	nodes, err := c.nodesOn(ctx, d.File)
	if err != nil {
		return Disk{}, err
	}
	opened := 0
	for _, n := range nodes {
		if n.Driver == "file" || n.Driver == "host_device" {
			opened++
		}
	}
	if opened != 1 {
		return Disk{}, fault.Refuse("cannot tell who uses %s of disk %s: QEMU has it open %d times", printable(d.File), vdev, opened)
	}
	return d, nil
}

// nodesOn are the nodes whose data is in file, from the guest's side down.
func (c *Client) nodesOn(ctx context.Context, file string) ([]node, error) {
	var all, nodes []node
	if err := c.Execute(ctx, "query-named-block-nodes", map[string]bool{"flat": true}, &all); err != nil {
		return nil, err
	}
	for _, n := range all {
		if filename(n.File) == file {
			nodes = append(nodes, n)
		}
	}
	return nodes, nil
}

// mostLayers is how deep a guest that has taken over its QEMU can have us look.
const mostLayers = 32

// filename is the file below a node. QEMU writes a node with options as json:
// and those options, of which each layer has the next one as its file.
func filename(s string) string {
	options, isJSON := strings.CutPrefix(s, "json:")
	if !isJSON {
		return s
	}
	type layer struct {
		Filename string          `json:"filename"`
		File     json.RawMessage `json:"file"`
	}
	rest := json.RawMessage(options)
	for range mostLayers {
		var l layer
		if json.Unmarshal(rest, &l) != nil {
			break
		}
		if l.Filename != "" {
			return l.Filename
		}
		rest = l.File
	}
	return s
}
