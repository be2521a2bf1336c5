package fakehost

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"xenlvm/lib/xlcfg"
)

// nodes are the parts of xenstore that concern disks.
func (s *State) nodes() map[string]string {
	tree := map[string]string{}
	for _, d := range s.Domains {
		s.domainNodes(tree, d.ID, d.Disks, true)
	}
	s.domainNodes(tree, s.Xl.GhostOf, s.Xl.Ghost, false)
	return tree
}

func (s *State) domainNodes(tree map[string]string, domid int, disks []*Disk, alive bool) {
	for _, k := range disks {
		id, _ := xlcfg.DevID(k.VDev)
		kind, params, kindType := "vbd", k.Path, "phy"
		if k.Format != "" && k.Format != "raw" {
			kind, params, kindType = "qdisk", k.Format+":"+k.Path, "qdisk"
		}
		front := fmt.Sprintf("/local/domain/%d/device/vbd/%d", domid, id)
		back := fmt.Sprintf("/local/domain/0/backend/%s/%d/%d", kind, domid, id)
		frontState := 1
		if k.State == 4 {
			frontState = 4
		}
		if alive {
			tree[front] = ""
			tree[front+"/backend"] = back
			tree[front+"/backend-id"] = "0"
			tree[front+"/state"] = fmt.Sprint(frontState)
			tree[front+"/virtual-device"] = fmt.Sprint(id)
		}
		tree[back] = ""
		tree[back+"/frontend"] = front
		tree[back+"/params"] = params
		tree[back+"/online"] = "1"
		tree[back+"/state"] = fmt.Sprint(k.State)
		tree[back+"/dev"] = k.VDev
		tree[back+"/type"] = kindType
		tree[back+"/mode"] = "w"
		tree[back+"/device-type"] = "disk"
		if k.CDROM {
			tree[back+"/device-type"] = "cdrom"
		}
		if k.Number != "" && kind == "vbd" {
			tree[back+"/physical-device"] = k.Number
			tree[back+"/physical-device-path"] = k.Path
			tree[back+"/hotplug-status"] = "connected"
			if k.State == 4 {
				tree[back+"/sectors"] = fmt.Sprint(k.Size / 512)
				tree[back+"/sector-size"] = fmt.Sprint(cmp.Or(k.Sector, 512))
			}
		}
	}
}

// xenstoreLs knows: -f PATH.
func xenstoreLs(c *Call) error {
	if len(c.Args) != 2 || c.Args[0] != "-f" {
		return c.unknown()
	}
	tree := c.State.nodes()
	found := false
	for _, key := range slices.Sorted(maps.Keys(tree)) {
		if strings.HasPrefix(key, c.Args[1]+"/") {
			found = true
			fmt.Fprintf(&c.Stdout, "%s = \"%s\"\n", key, strings.ReplaceAll(tree[key], `\`, `\\`))
		}
	}
	c.State.fade(c.Args[1])
	if !found {
		return fmt.Errorf("xenstore-ls: xs_directory (%s): No such file or directory", c.Args[1])
	}
	return nil
}

// fade lets the backends of a domain that is gone go, after some looks at them.
func (s *State) fade(looked string) {
	if s.Xl.Ghost == nil || !strings.Contains(looked, "/backend/") {
		return
	}
	if s.Xl.Ghosts--; s.Xl.Ghosts == 0 {
		s.Xl.Ghost = nil
	}
}

// xenstoreRead knows: PATH.
func xenstoreRead(c *Call) error {
	if len(c.Args) != 1 {
		return c.unknown()
	}
	value, ok := c.State.nodes()[c.Args[0]]
	if !ok {
		value, ok = c.State.ownNode(c.Args[0])
	}
	if !ok {
		return fmt.Errorf("xenstore-read: couldn't read path %s", c.Args[0])
	}
	fmt.Fprintln(&c.Stdout, value)
	return nil
}
