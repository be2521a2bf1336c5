package xl

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"xenlvm/lib/run"
)

// ParsedDisk is a disk as xl itself reads it from a configuration.
type ParsedDisk struct {
	Path   string `json:"pdev_path"`
	VDev   string `json:"vdev"`
	Format string `json:"format"`
}

// Libxl is what we want to know of a configuration in libxl's own form.
type Libxl struct {
	Create struct {
		Type string `json:"type"` // pv, pvh, hvm
		Name string `json:"name"`
		UUID string `json:"uuid"`
	} `json:"c_info"`
	Build struct {
		VCPUs int `json:"max_vcpus"`
	} `json:"b_info"`
	Disks []ParsedDisk `json:"disks"`
	NICs  []struct {
		MAC string `json:"mac"`
	} `json:"nics"`

	// What a guest has of the host itself, and would lose.
	PCI  []json.RawMessage `json:"pcidevs"`
	USB  []json.RawMessage `json:"usbdevs"`
	Tree []json.RawMessage `json:"dtdevs"`
	P9   []json.RawMessage `json:"p9s"`
}

// MACs are the addresses of the network cards, in order.
func (l Libxl) MACs() []string {
	var all []string
	for _, n := range l.NICs {
		all = append(all, n.MAC)
	}
	return all
}

// Host names a kind of device of the host that the domain has, "" for none.
func (l Libxl) Host() string {
	switch {
	case len(l.PCI) > 0:
		return "a PCI device of the host"
	case len(l.USB) > 0:
		return "a USB device of the host"
	case len(l.Tree) > 0:
		return "a device of the host's device tree"
	case len(l.P9) > 0:
		return "a directory of the host (9pfs)"
	}
	return ""
}

// DryParse lets xl read a configuration without doing anything. The error says
// what xl does not like.
func DryParse(ctx context.Context, r run.Runner, config string) (Libxl, error) {
	var l Libxl
	res, err := r.Run(ctx, run.Cmd{Name: "xl", Args: []string{"-N", "create", "-q", config}})
	if err != nil {
		return l, err
	}
	if err := decode(res.Stdout, '{', &l); err != nil {
		return l, fmt.Errorf("cannot read the output of xl create -N: %w", err)
	}
	return l, nil
}

// Stored is the configuration that a running domain has.
func Stored(ctx context.Context, r run.Runner, d Domain) (Libxl, error) {
	res, err := r.Run(ctx, run.Cmd{Name: "xl", Args: []string{"list", "-l", d.Number()}})
	if err != nil {
		return Libxl{}, fmt.Errorf("cannot ask for the configuration of %s: %w", d.Name, err)
	}
	var list []struct {
		ID     int   `json:"domid"`
		Config Libxl `json:"config"`
	}
	err = decode(res.Stdout, '[', &list)
	if err == nil && (len(list) != 1 || list[0].ID != d.ID) {
		err = errors.New("it is not about one domain")
	}
	if err != nil {
		return Libxl{}, fmt.Errorf("cannot read the output of xl list -l: %w", err)
	}
	return list[0].Config, nil
}

// decode reads the JSON that begins with start, behind lines of text.
func decode(out []byte, start byte, v any) error {
	return json.Unmarshal(out[max(0, bytes.IndexByte(out, start)):], v)
}
