package main

import (
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"fmt"
	"slices"
)

// builderVersion changes when the image builder does something new with the
// same packages, so that cached images are made again.
const builderVersion = 2

// labInit is the image's own init. It only hands over to the payload's init, so
// that the lab can change without a new image.
//
//go:embed dom0/lab-init
var labInit string

// bootInit is the init of the initramfs that the dom0 boots with.
//
//go:embed dom0/boot-init
var bootInit string

// suite is one Debian release with the Xen it carries.
type suite struct {
	name string
	xen  string // version in the package names
}

var suites = []suite{
	{name: "bookworm", xen: "4.17"},
	{name: "trixie", xen: "4.20"},
}

func suiteByName(name string) (suite, error) {
	i := slices.IndexFunc(suites, func(s suite) bool { return s.name == name })
	if i < 0 {
		return suite{}, fmt.Errorf("unknown suite %q", name)
	}
	return suites[i], nil
}

// packages lists what debootstrap adds to a minimal system.
func (s suite) packages() []string {
	return []string{
		// the host we test on
		"linux-image-amd64",
		"xen-hypervisor-" + s.xen + "-amd64", "xen-utils-" + s.xen, "xen-utils-common", "xenstore-utils",
		"qemu-system-xen", "qemu-utils",
		"lvm2", "thin-provisioning-tools", "dmsetup", "mdadm", "drbd-utils", "kpartx",
		"e2fsprogs", "xfsprogs", "dosfstools", "fdisk", "rsync", "acl", "attr", "libcap2-bin",
		// what it takes to boot it
		"initramfs-tools", "busybox-static", "kmod", "udev", "systemd-sysv", "util-linux", "iproute2", "procps",
		// what scenarios look through
		"strace", "jq", "file", "xxd",
	}
}

// bootModules and guestModules are what dom0 and a DomU need to reach their root
// disk. crc32c_generic is ext4's soft dependency, which modules.dep does not name.
var (
	bootModules  = []string{"crc32c_generic", "ext4", "virtio_pci", "virtio_blk"}
	guestModules = []string{"crc32c_generic", "ext4", "xen-blkfront"}
)

// recipe is everything that decides what an image holds, as text.
func (s suite) recipe() string {
	return fmt.Sprintf("builder %d\nsuite %s\npackages %s\nboot modules %s\nguest modules %s\nboot init\n%s\ninit\n%s",
		builderVersion, s.name, s.packages(), bootModules, guestModules, bootInit, labInit)
}

// key names the recipe's image.
func (s suite) key() string { return s.name + "-" + shortHash([]byte(s.recipe())) }

func shortHash(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:6])
}
