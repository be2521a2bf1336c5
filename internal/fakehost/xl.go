package fakehost

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"xenlvm/lib/xlcfg"
)

// Domain is a domain that exists.
type Domain struct {
	Name  string  `json:"name"`
	ID    int     `json:"id"`
	State string  `json:"state"` // the letters of xl list; "" is -b----
	Disks []*Disk `json:"disks"`

	Ending     int    `json:"ending"`     // it is gone after so many calls of xl list
	Reboots    bool   `json:"reboots"`    // and comes back
	MAC        string `json:"mac"`        // of its only network card
	PCI        bool   `json:"pci"`        // it has a PCI device of the host
	VCPUs      int    `json:"vcpus"`      // 1 if 0
	Restarts   string `json:"restarts"`   // the configuration that a reboot leads to
	Connecting int    `json:"connecting"` // its disks are connected after so many
	UUID       string `json:"uuid"`
	TTY        string `json:"tty"` // of its console; one that is created has a FIFO of its own
}

// Disk is a disk that a domain has. Number is "MAJOR:MINOR" in hex, "" for none.
type Disk struct {
	VDev   string `json:"vdev"`
	Path   string `json:"path"`
	Format string `json:"format"`
	State  int    `json:"state"`
	Number string `json:"number"`
	Size   int64  `json:"size"`   // bytes, that the guest was told
	Sector int    `json:"sector"` // the same
	CDROM  bool   `json:"cdrom"`
}

// XlBehaviour is what goes wrong.
type XlBehaviour struct {
	Deaf          bool     `json:"deaf"`           // guests do not react to a shutdown
	Reboots       bool     `json:"reboots"`        // a shutdown becomes a reboot
	CreateSays    string   `json:"create_says"`    // xl create fails with this
	RefusesCreate string   `json:"refuses_create"` // xl create fails with a file that holds this
	WrongDisk     bool     `json:"wrong_disk"`     // a created domain gets device 0:0
	Unconnect     []string `json:"unconnected"`    // vdevs that never connect
	Late          bool     `json:"late"`           // a guest connects its disks right before it is paused
	Dies          bool     `json:"dies"`           // a domain ends as soon as it runs
	Rival         string   `json:"rival"`          // this domain appears during xl create
	Refuses       string   `json:"refuses"`        // xl refuses a file that holds this
	RefuseSays    string   `json:"refuses_says"`   // with these words

	Console    string            `json:"console"`     // a guest that is let run writes this to its console
	ConsoleEnd string            `json:"console_end"` // and this when it ends
	Nodes      map[string]string `json:"nodes"`       // and has these in xenstore, below its own directory
	SlowTTY    int               `json:"slow_tty"`    // a console has its terminal after so many looks

	DestroySays string `json:"destroy_says"` // xl destroy fails with this
	EndsFirst   bool   `json:"ends_first"`   // and the guest had ended by itself

	Caps        string `json:"caps"` // virt_caps, "shadow hap" if empty
	FreeMiB     int    `json:"free_mib"`
	SaveSays    string `json:"save_says"`    // xl save fails with this
	RestoreSays string `json:"restore_says"` // xl restore on other disks fails with this
	Unrestored  bool   `json:"unrestored"`   // and any other restore, too
	MigrateSays string `json:"migrate_says"` // xl migrate fails with this
	Crossed     bool   `json:"crossed"`      // and that after the new domain is there
	UpdateSays  string `json:"update_says"`  // xl config-update fails with this
	Kill        string `json:"kill"`         // whoever called this verb is killed after it
	ToQEMU      bool   `json:"to_qemu"`      // QEMU becomes the backend of a restored domain

	Ghosts  int     `json:"ghosts"` // backends outlive their domain by so many calls of xenstore-ls
	Ghost   []*Disk `json:"ghost_disks"`
	GhostOf int     `json:"ghost_of"`
}

// xl knows: list; shutdown, destroy, pause, unpause DOMAIN; create -q -p FILE;
// -N create -q FILE; and what xlLive knows. DOMAIN is a number if it can be read as one, else a name.
func xl(c *Call) error {
	args := slices.DeleteFunc(slices.Clone(c.Args), func(a string) bool { return a == "--" })
	verb := strings.Join(args[:min(1, len(args))], "")
	switch {
	case slices.Equal(args, []string{"list"}):
		return xlList(c)
	case len(args) == 2 && slices.Contains([]string{"shutdown", "destroy", "pause", "unpause"}, verb):
		d := c.State.domain(args[1])
		if d == nil {
			return fmt.Errorf("%s is an invalid domain identifier (rc=-6)", args[1])
		}
		return c.killing(verb, xlChange(c, verb, d))
	case len(args) == 4 && slices.Equal(args[:3], []string{"create", "-q", "-p"}):
		return c.killing(verb, xlCreate(c, args[3]))
	case len(args) == 4 && slices.Equal(args[:3], []string{"-N", "create", "-q"}):
		return xlParse(c, args[3])
	}
	if known, err := xlLive(c, verb, args); known {
		return c.killing(verb, err)
	}
	return c.unknown()
}

func (s *State) domain(name string) *Domain {
	id, err := strconv.Atoi(name)
	for _, d := range s.Domains {
		if err == nil && d.ID == id || err != nil && d.Name == name {
			return d
		}
	}
	return nil
}

// xlList prints the domains, then lets a moment pass.
func xlList(c *Call) error {
	fmt.Fprintf(&c.Stdout, "%-40s %5s %5s %5s\tState\tTime(s)\n", "Name", "ID", "Mem", "VCPUs")
	for _, d := range append([]*Domain{{Name: "Domain-0", State: "r-----"}}, c.State.Domains...) {
		state := d.State
		if state == "" {
			state = "-b----"
		}
		fmt.Fprintf(&c.Stdout, "%-40s %5d %5d %5d     %s  %8.1f\n", d.Name, d.ID, 256, 1, state, 1.5)
	}
	c.State.tick()
	return nil
}

func (s *State) tick() {
	for _, d := range slices.Clone(s.Domains) {
		if d.Connecting > 0 {
			if d.Connecting--; d.Connecting == 0 {
				for _, disk := range d.Disks {
					if !slices.Contains(s.Xl.Unconnect, disk.VDev) {
						disk.State = 4
					}
				}
			}
		}
		if d.Ending > 0 {
			if d.Ending--; d.Ending == 0 {
				s.end(d)
			}
		}
	}
}

func (s *State) end(d *Domain) {
	d.types(s.Xl.ConsoleEnd)
	if d.Reboots {
		s.LastID++
		d.ID, d.Reboots = s.LastID, false
		return
	}
	s.Domains = slices.DeleteFunc(s.Domains, func(o *Domain) bool { return o == d })
	if s.Xl.Ghosts > 0 {
		s.Xl.Ghost, s.Xl.GhostOf = d.Disks, d.ID
	}
}

func xlChange(c *Call, verb string, d *Domain) error {
	switch verb {
	case "shutdown":
		fmt.Fprintf(&c.Stdout, "Shutting down domain %d\n", d.ID)
		if !c.State.Xl.Deaf {
			d.Ending, d.Reboots = 2, c.State.Xl.Reboots
		}
	case "destroy":
		if c.State.Xl.EndsFirst {
			c.State.end(d)
		}
		if c.State.Xl.DestroySays != "" {
			return errors.New(c.State.Xl.DestroySays)
		}
		d.Reboots = false
		c.State.end(d)
	case "pause":
		d.State = "--p---"
		for _, k := range d.Disks {
			if c.State.Xl.Late {
				k.State = 4
			}
		}
	case "unpause":
		d.State, d.Connecting = "", 1
		d.types(c.State.Xl.Console)
		if c.State.Xl.Dies {
			d.Ending = 1
		}
	}
	return nil
}

func xlCreate(c *Call, path string) error {
	if c.State.Xl.CreateSays != "" {
		return errors.New(c.State.Xl.CreateSays)
	}
	name, disks, err := c.parse(path)
	if err != nil {
		return err
	}
	if t := c.State.Xl.RefusesCreate; t != "" && slices.ContainsFunc(disks, func(d xlcfg.Disk) bool { return strings.Contains(d.Target, t) }) {
		return says("libxl: error: cannot open " + t)
	}
	if c.State.Xl.Rival == name {
		c.State.add(name, "-b----", nil)
	}
	if c.State.domain(name) != nil {
		return says("libxl: error: libxl_domain.c:101:libxl__domain_rename: Domain 7:Domain with name \"" + name + "\" already exists.")
	}
	var live []*Disk
	for _, d := range disks {
		l, err := c.attach(d)
		if err != nil {
			return err
		}
		live = append(live, l)
	}
	return c.addConsole(c.State.add(name, "--p---", live), path)
}

func (s *State) add(name, state string, disks []*Disk) *Domain {
	s.LastID++
	d := &Domain{Name: name, ID: s.LastID, State: state, Disks: disks}
	s.Domains = append(s.Domains, d)
	return d
}

// attach makes the backend of a disk, which waits for the guest.
func (c *Call) attach(d xlcfg.Disk) (*Disk, error) {
	live := &Disk{VDev: d.VDev, Path: d.Target, Format: string(d.Format), State: 2, CDROM: d.CDROM}
	if d.Format == xlcfg.Empty {
		return live, nil
	}
	if dev := c.State.Devices[d.Target]; dev != nil {
		live.Number = fmt.Sprintf("%x:%x", dev.Major, dev.Minor)
		live.Size, live.Sector = dev.Size, dev.Sector
	} else if _, err := os.Stat(d.Target); err == nil {
		live.Number = "7:1"
	} else {
		return nil, fmt.Errorf("libxl: error: libxl_disk.c:290:libxl__device_disk_setdefault: Domain 7:Disk vdev=%s failed to stat: %s: No such file or directory", d.VDev, d.Target)
	}
	if c.State.Xl.WrongDisk {
		live.Number = "0:0"
	}
	return live, nil
}

func (c *Call) parse(path string) (string, []xlcfg.Disk, error) {
	src, err := os.ReadFile(path)
	if err != nil {
		return "", nil, says("Failed to read config file: " + path + ": No such file or directory")
	}
	f, err := xlcfg.Parse(path, src)
	if err != nil {
		return "", nil, fmt.Errorf("%w\nFailed to parse config: Invalid argument", err)
	}
	if t := c.State.Xl.Refuses; t != "" && strings.Contains(string(src), t) {
		return "", nil, errors.New(c.State.Xl.RefuseSays)
	}
	name, _ := f.String("name")
	disks, err := f.Disks()
	return name, disks, err
}

func xlParse(c *Call, path string) error {
	name, disks, err := c.parse(path)
	if err != nil {
		return err
	}
	type disk struct {
		Path   string `json:"pdev_path"`
		VDev   string `json:"vdev"`
		Format string `json:"format"`
	}
	doc := c.libxl(path, name)
	var list []disk
	for _, d := range disks {
		list = append(list, disk{d.Target, d.VDev, string(d.Format)})
	}
	doc["disks"] = list
	b, err := json.MarshalIndent(doc, "", "    ")
	c.Stdout.Write(append(b, '\n'))
	return err
}
