package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/u-root/u-root/pkg/uroot/unixflag"

	"xenlvm/lib/fault"
	"xenlvm/lib/lvm"
	"xenlvm/lib/run"
	"xenlvm/lib/snap"
	"xenlvm/lib/units"
	"xenlvm/lib/xl"
	"xenlvm/lib/xlcfg"
)

// trialConfig is the file beside the journal that xl is given.
const trialConfig = "rehearsal.cfg"

// rehearsing is what rehearse is told, and what it needs of the host.
type rehearsing struct {
	until      marker
	copyMemory units.Bytes // 0: as much as the domain has
	share      units.Share
	without    unixflag.StringArray // disks

	usage    func(lvm.LV) (lvm.Usage, error)
	terminal func(path string) (*os.File, error) // opens one to read from
}

func newRehearsing() rehearsing {
	share, _ := units.ParseShare(snap.DefaultCOW)
	return rehearsing{until: loginPrompt, share: share, usage: snap.Usage, terminal: openTerminal}
}

func (o *rehearsing) rehearsalFlags(fs *flag.FlagSet) {
	fs.Func("memory", "rehearse: give the copy `MIB` of memory, not as much as the domain has", read(mebibytes, &o.copyMemory))
	fs.Func("snapshot-size", "rehearse: COW space of a thick snapshot, room in the pool of a thin one: a `SIZE` such as 5G, or a share such as 10%ORIGIN (default "+snap.DefaultCOW+")", read(units.ParseShare, &o.share))
	fs.Func("until", "rehearse: the copy is up when `MARKER` is seen: console:REGEXP, xenstore:KEY[=VALUE], or a time that it runs, such as 60s (default: a login prompt)", read(parseMarker, &o.until))
	fs.Var(&o.without, "without", "rehearse: leave the disk `VDEV` out of the copy; repeatable")
}

func mebibytes(text string) (units.Bytes, error) {
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil || n <= 0 {
		return 0, fmt.Errorf("want a number of MiB above 0")
	}
	return units.Bytes(n) << 20, nil
}

// harmless are the settings that a copy may share with the domain: how it boots, and
// what its machine is like. Others may name what only one domain can have, such as a
// network address, a device or a port, or an option of QEMU that does: the copy lacks
// them.
var harmless = strings.Fields(`
	type builder kernel ramdisk cmdline root extra bootloader bootloader_args firmware bios bios_path_override
	firmware_override smbios_firmware acpi_firmware pvshim pvshim_path pvshim_cmdline pvshim_extra boot
	memory maxmem shadow_memory videoram vcpus maxvcpus pool cpu_weight cap disk hdtype run_hotplug_scripts
	acpi acpi_s3 acpi_s4 acpi_laptop_slate apic pae hap oos nx hpet viridian vpt_align timer_mode tsc_mode localtime
	rtc_timeoffset cpuid nestedhvm altp2m altp2mhvm e820_host msr_relaxed mmio_hole ms_vm_genid xen_platform_pci
	device_model_version device_model_override stdvga vga max_grant_frames max_maptrack_frames max_grant_version
	max_event_channels seclabel init_seclabel suppress_spurious_page_faults xend_suspend_evtchn_compat gic_version`)

// fixed are the settings that the copy has in any case: whatever ends it ends it for
// good, and nothing listens for its screen.
var fixed = [][2]string{
	{"on_poweroff", "destroy"}, {"on_reboot", "destroy"}, {"on_crash", "destroy"},
	{"on_watchdog", "destroy"}, {"on_soft_reset", "destroy"}, {"vnc", "0"},
}

// hvm says whether the domain's machine is emulated.
func (d *domain) hvm() bool {
	kind, _ := d.cfg.String("type")
	builder, _ := d.cfg.String("builder")
	return kind == "hvm" || builder == "hvm"
}

// configure makes the configuration of the copy.
func (r *rehearsal) configure(ctx context.Context) error {
	uuid, err := os.ReadFile("/proc/sys/kernel/random/uuid")
	if err != nil {
		return err
	}
	r.copy.UUID = strings.TrimSpace(string(uuid))
	set := append(slices.Clone(fixed), [2]string{"uuid", r.copy.UUID}, [2]string{"name", r.copy.Name})
	if r.d.hvm() {
		set = append(set, [2]string{"serial", "pty"}) // its console
	}
	if r.c.copyMemory != 0 {
		set = append(set, [2]string{"memory", strconv.Itoa(int(r.c.copyMemory >> 20))}, [2]string{"maxmem", strconv.Itoa(int(r.c.copyMemory >> 20))})
	}
	given := func(key string) bool { return slices.ContainsFunc(set, func(s [2]string) bool { return s[0] == key }) }
	for _, key := range r.d.cfg.Keys() {
		if !slices.Contains(harmless, key) && !given(key) {
			r.leftOut = append(r.leftOut, key)
		}
	}
	if len(r.leftOut) > 0 {
		r.e.Infof("%s is made without the settings %s", r.copy.Name, strings.Join(r.leftOut, ", "))
	}
	if r.cfg, err = r.onSnapshots(); err == nil {
		r.cfg, err = r.cfg.Without(func(key string) bool { return slices.Contains(r.leftOut, key) })
	}
	for _, s := range set {
		if err == nil {
			r.cfg, err = r.cfg.With(s[0], s[1])
		}
	}
	if err != nil {
		return refused(err)
	}
	return r.safe(ctx)
}

// onSnapshots is the configuration with the disks of the copy.
func (r *rehearsal) onSnapshots() (*xlcfg.File, error) {
	cfg := r.d.cfg
	for _, k := range r.d.disks {
		i := slices.IndexFunc(r.disks, func(t trialDisk) bool { return t.VDev == k.VDev })
		var err error
		switch {
		case i < 0:
			cfg, err = cfg.WithoutDisk(k.VDev)
		case r.disks[i].origin.Name != "":
			cfg, err = cfg.SetDisk(k.VDev, r.disks[i].snapshot.Path)
		}
		if err != nil {
			return nil, err
		}
	}
	return cfg, nil
}

// safe lets xl itself say what the copy is.
func (r *rehearsal) safe(ctx context.Context) error {
	if err := checkWithXL(ctx, r.e.Runner, r.d, r.cfg); err != nil {
		return err
	}
	is, err := parseWithXL(ctx, r.e.Runner, r.d, r.cfg)
	switch {
	case err != nil:
		return err
	case is.Create.Name != r.copy.Name || is.Create.UUID != r.copy.UUID:
		return fault.Refuse("cannot rehearse %s: xl reads the name and UUID of the copy as %s and %s, not %s and %s", r.d.name, is.Create.Name, is.Create.UUID, r.copy.Name, r.copy.UUID)
	case len(is.NICs) > 0 || is.Host() != "":
		return fault.Refuse("cannot rehearse %s: xl finds a network card, or a device of the host, in what is to be the copy's configuration", r.d.name)
	}
	return nil
}

// fits refuses a copy for which the hypervisor has not enough memory.
func (r *rehearsal) fits(ctx context.Context) error {
	memory := r.c.copyMemory
	if memory == 0 {
		text, _ := r.d.cfg.String("memory")
		n, err := strconv.ParseInt(text, 0, 32)
		if err != nil || n <= 0 {
			return fault.Hint(fault.Refuse("cannot rehearse %s: its configuration does not say how much memory it has", r.d.name), "say it: --memory MIB")
		}
		memory = units.Bytes(n) << 20
	}
	info, err := xl.Host(ctx, r.e.Runner)
	if err != nil {
		return err
	}
	need := imageSize(memory)
	if need <= info.Free {
		return nil
	}
	err = fault.Refuse("cannot rehearse %s: the copy needs %s of memory, and Xen has %s free: %s are missing", r.d.name, need, info.Free, need-info.Free)
	if least := (info.Free - 16<<20) / 65 * 64 >> 20; least > 0 {
		err = fault.Hint(err, "try it with less: domuswitch rehearse --memory %d %s", least, run.Quote(r.d.name))
	}
	return err
}
