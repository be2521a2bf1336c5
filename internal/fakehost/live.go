package fakehost

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"syscall"

	"xenlvm/lib/xlcfg"
)

// xlLive knows: info; list -l DOMAIN; save DOMAIN FILE; restore -p [CONFIG] FILE;
// migrate -p -s "" -C CONFIG DOMAIN "xl migrate-receive -p"; config-update DOMAIN
// CONFIG.
func xlLive(c *Call, verb string, args []string) (known bool, err error) {
	switch {
	case slices.Equal(args, []string{"info"}):
		fmt.Fprintf(&c.Stdout, "xen_major              : 4\nxen_minor              : 17\nvirt_caps              : %s\nfree_memory            : %d\n",
			cmp.Or(c.State.Xl.Caps, "shadow hap"), c.State.Xl.FreeMiB)
		return true, nil
	case verb == "restore" && len(args) >= 3 && len(args) <= 4 && args[1] == "-p":
		return true, c.restore(args[2:len(args)-1], args[len(args)-1])
	case verb == "migrate" && len(args) == 8 && slices.Equal(args[1:5], []string{"-p", "-s", "", "-C"}) && args[7] == "xl migrate-receive -p":
		return true, c.on(args[6], func(d *Domain) error { return c.migrate(d, args[5]) })
	case len(args) != 3:
		return false, nil
	case verb == "list" && args[1] == "-l":
		return true, c.on(args[2], c.listLong)
	case verb == "save":
		return true, c.on(args[1], func(d *Domain) error { return c.save(d, args[2]) })
	case verb == "config-update":
		return true, c.on(args[1], func(d *Domain) error { return c.configUpdate(d, args[2]) })
	}
	return false, nil
}

func (c *Call) on(domain string, f func(*Domain) error) error {
	if d := c.State.domain(domain); d != nil {
		return f(d)
	}
	return fmt.Errorf("%s is an invalid domain identifier (rc=-6)", domain)
}

// killing kills the caller behind a verb, if the state says so.
func (c *Call) killing(verb string, err error) error {
	if c.State.Xl.Kill == verb {
		c.State.Xl.Kill = ""
		if err := syscall.Kill(os.Getppid(), syscall.SIGKILL); err != nil {
			return err
		}
	}
	return err
}

// libxl is the part of a configuration that the programs look at.
func (c *Call) libxl(path, name string) map[string]any {
	doc := map[string]any{"c_info": map[string]string{"type": "pv", "name": name}}
	vcpus, mac := 1, ""
	if src, err := os.ReadFile(path); err == nil {
		if f, err := xlcfg.Parse(path, src); err == nil {
			kind, _ := f.String("type")
			uuid, _ := f.String("uuid")
			doc["c_info"] = map[string]string{"type": cmp.Or(kind, "pv"), "name": name, "uuid": uuid}
			mac, _ = f.String("lab_mac")
			if n, ok := f.String("lab_vcpus"); ok {
				vcpus, _ = strconv.Atoi(n)
			}
		}
	}
	doc["b_info"] = map[string]int{"max_vcpus": vcpus}
	if mac != "" {
		doc["nics"] = []map[string]string{{"mac": mac}}
	}
	return doc
}

func (c *Call) listLong(d *Domain) error {
	doc := map[string]any{
		"c_info": map[string]string{"type": "pv", "name": d.Name},
		"b_info": map[string]int{"max_vcpus": cmp.Or(d.VCPUs, 1)},
	}
	if d.MAC != "" {
		doc["nics"] = []map[string]string{{"mac": d.MAC}}
	}
	if d.PCI {
		doc["pcidevs"] = []map[string]int{{"bus": 3}}
	}
	b, err := json.MarshalIndent([]any{map[string]any{"domid": d.ID, "config": doc}}, "", "    ")
	c.Stdout.Write(append(b, '\n'))
	return err
}

// save writes the domain as it is to the file.
func (c *Call) save(d *Domain, file string) error {
	if c.State.Xl.SaveSays != "" {
		return errors.New(c.State.Xl.SaveSays)
	}
	b, err := json.Marshal(d)
	if err != nil {
		return err
	}
	if err := os.WriteFile(file, b, 0o644); err != nil {
		return err
	}
	d.Reboots = false
	c.State.end(d)
	return nil
}

func (c *Call) restore(config []string, file string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("cannot open restore file: %w", err)
	}
	var was Domain
	if err := json.Unmarshal(b, &was); err != nil {
		return says("File has wrong magic number - corrupt or for a different tool?")
	}
	if says := c.State.Xl.RestoreSays; says != "" && (len(config) > 0 || c.State.Xl.Unrestored) {
		return errors.New(says)
	}
	if c.State.domain(was.Name) != nil {
		return says("libxl: error: Domain with name \"" + was.Name + "\" already exists.")
	}
	live := was.Disks
	for _, k := range live {
		k.State = 2
	}
	if len(config) > 0 {
		if live, err = c.attachAll(config[0]); err != nil {
			return err
		}
	}
	if len(config) == 0 {
		c.State.Xl.Unconnect = nil
	}
	for _, k := range live {
		if c.State.Xl.ToQEMU && len(config) > 0 {
			k.Format = "qcow2"
		}
	}
	d := c.State.add(was.Name, "--p---", live)
	d.MAC, d.VCPUs, d.Restarts = was.MAC, was.VCPUs, ""
	return nil
}

func (c *Call) attachAll(config string) ([]*Disk, error) {
	_, disks, err := c.parse(config)
	if err != nil {
		return nil, err
	}
	var live []*Disk
	for _, k := range disks {
		l, err := c.attach(k)
		if err != nil {
			return nil, err
		}
		live = append(live, l)
	}
	return live, nil
}

func (c *Call) migrate(d *Domain, config string) error {
	said := c.State.Xl.MigrateSays
	if said != "" && !c.State.Xl.Crossed {
		return errors.New(said)
	}
	live, err := c.attachAll(config)
	if err != nil {
		return err
	}
	name, mac, vcpus := d.Name, d.MAC, d.VCPUs
	if said != "" {
		d.Name, d.State = name+"--migratedaway", "---ss-"
	} else {
		c.State.end(d)
	}
	new := c.State.add(name, "--p---", live)
	new.MAC, new.VCPUs = mac, vcpus
	if said != "" {
		return errors.New(said)
	}
	return nil
}

func (c *Call) configUpdate(d *Domain, config string) error {
	if c.State.Xl.UpdateSays != "" {
		return errors.New(c.State.Xl.UpdateSays)
	}
	if _, _, err := c.parse(config); err != nil {
		return err
	}
	src, err := os.ReadFile(config)
	if err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "WARNING: xl now has better capability to manage domain configuration, avoid using this command when possible")
	d.Restarts = string(src)
	return nil
}
