// Package mkfs describes a filesystem and makes an empty one like it on
// another device, of another size: same type, label and UUID, and only features
// that the first one has, because the guest's kernel and boot loader know those
// and maybe no others.
//
// Ext2, ext3, ext4, XFS and swap can be remade. What would lose something when
// its files are copied (subvolumes, quotas, encryption, …) is refused: such a
// filesystem is copied block by block.
//
// The filesystem described is a guest's: what the tools print of it is checked
// before it becomes an argument of another.
package mkfs

import (
	"bytes"
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"xenlvm/lib/fault"
	"xenlvm/lib/run"
	"xenlvm/lib/units"
)

// Description is a filesystem, or swap area, as its superblock tells.
type Description struct {
	Device   string // where it was found
	Type     string // as blkid names it: ext4, xfs, swap, …
	Label    string // any bytes
	UUID     string
	Features []string // those that are on, sorted, named as its tools do

	Size      units.Bytes // of the filesystem; its device may be larger
	BlockSize int64       // bytes
	InodeSize int64       // bytes
	Inodes    int64       // ext: how many it can hold
	UsedNodes int64       // ext: how many of them are in use

	ext extDetails
	xfs xfsDetails
}

// Describe asks blkid and the filesystem's own tools about dev, a device or a
// file. It changes nothing. What holds no filesystem is refused.
func Describe(ctx context.Context, r run.Runner, dev string) (Description, error) {
	d := Description{Device: dev}
	res, err := r.Run(ctx, run.Cmd{Name: "blkid", Args: []string{"-p", "-o", "udev", "--", dev}, OK: []int{2}})
	if err != nil {
		return d, fmt.Errorf("cannot identify the filesystem on %s: %w", dev, err)
	}
	values := map[string]string{}
	for line := range strings.Lines(string(res.Stdout)) {
		if key, value, found := strings.Cut(strings.TrimSuffix(line, "\n"), "="); found {
			values[key] = decode(value)
		}
	}
	d.Type = values["ID_FS_TYPE"]
	d.Label = values["ID_FS_LABEL_ENC"]
	d.UUID = values["ID_FS_UUID_ENC"]
	switch d.Type {
	case "ext2", "ext3", "ext4":
		err = d.describeExt(ctx, r)
	case "xfs":
		err = d.describeXFS(ctx, r)
	case "":
		if a := values["ID_FS_AMBIVALENT"]; a != "" {
			return d, blocks(dev, "blkid finds several filesystems on it (%s)", a)
		}
		return d, fault.Refuse("cannot find a filesystem on %s", dev)
	}
	return d, err
}

// escaped is a byte as blkid -o udev prints it in values that end in _ENC.
var escaped = regexp.MustCompile(`\\x[0-9a-f]{2}`)

func decode(s string) string {
	return escaped.ReplaceAllStringFunc(s, func(e string) string {
		n, _ := strconv.ParseUint(e[2:], 16, 8) // two hexadecimal digits: the pattern says so
		return string([]byte{byte(n)})
	})
}

// blocks refuses a filesystem and names the way that is left.
func blocks(dev, format string, args ...any) error {
	return fault.Hint(fault.Refuse("cannot remake the filesystem on %s: %s", dev, fmt.Sprintf(format, args...)), "--method blocks")
}

var uuidPattern = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// Make is the commands that make an empty filesystem like d on dev, a device of
// size bytes. What dev holds is overwritten without a question: the caller has
// made sure. Make itself only asks the tools for their versions, and refuses
// what cannot be remade.
func Make(ctx context.Context, r run.Runner, d Description, dev string, size units.Bytes) ([]run.Cmd, error) {
	if strings.HasPrefix(dev, "-") {
		return nil, fault.BadUsage("cannot make a filesystem on %s: a device has no leading dash", dev)
	}
	switch d.Type {
	case "ext2", "ext3", "ext4", "xfs", "swap":
		if !uuidPattern.MatchString(d.UUID) {
			return nil, blocks(d.Device, "its UUID is %q", d.UUID)
		}
	}
	switch d.Type {
	case "ext2", "ext3", "ext4":
		return d.makeExt(dev, size)
	case "xfs":
		return d.makeXFS(ctx, r, dev, size)
	case "swap":
		args := []string{"-U", d.UUID}
		if d.Label != "" {
			args = append(args, "-L", d.Label)
		}
		return []run.Cmd{{Name: "mkswap", Args: append(args, dev), Effect: run.Change}}, nil
	case "swsuspend":
		return nil, blocks(d.Device, "the guest is suspended to this swap area")
	case "btrfs":
		return nil, blocks(d.Device, "a file by file copy of btrfs loses subvolumes, shared extents and properties")
	case "vfat":
		return nil, blocks(d.Device, "a file by file copy of FAT loses short names, attributes and boot code")
	}
	return nil, blocks(d.Device, "its type is %s", d.Type)
}

// Check describes what was made on dev and says in what it is not like d. A
// newer tool may turn features on that nobody asked for.
func Check(ctx context.Context, r run.Runner, d Description, dev string) error {
	made, err := Describe(ctx, r, dev)
	if err != nil {
		return err
	}
	differs := func(what string, got, want any) error {
		return fmt.Errorf("cannot use the new filesystem on %s: its %s is %v instead of %v", dev, what, got, want)
	}
	switch {
	case made.Type != d.Type:
		return differs("type", made.Type, d.Type)
	case made.UUID != d.UUID:
		return differs("UUID", made.UUID, d.UUID)
	case made.Label != d.Label:
		return differs("label", strconv.Quote(made.Label), strconv.Quote(d.Label))
	case made.BlockSize != d.BlockSize:
		return differs("block size", made.BlockSize, d.BlockSize)
	case made.InodeSize != d.InodeSize:
		return differs("inode size", made.InodeSize, d.InodeSize)
	}
	if extra := without(made.Features, d.Features); len(extra) > 0 {
		return fmt.Errorf("cannot use the new filesystem on %s: it has features that the one on %s does not have: %s",
			dev, d.Device, strings.Join(extra, " "))
	}
	return nil
}

// without is the elements of a that b does not have.
func without(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(s string) bool { return slices.Contains(b, s) })
}

// pairs reads lines of a key and a value. A key that comes twice is an error:
// a line break in a text of the superblock would look like that.
func pairs(out []byte, separator string) (map[string]string, error) {
	values := map[string]string{}
	for line := range bytes.Lines(out) {
		key, value, found := strings.Cut(string(line), separator)
		if !found {
			continue
		}
		key = strings.TrimSpace(key)
		if _, twice := values[key]; twice {
			return nil, fmt.Errorf("it says %q twice", key)
		}
		values[key] = strings.TrimSpace(value)
	}
	return values, nil
}

// ints reads numbers of a superblock. Base 0 takes decimal and 0x. Absent ones
// are zero if they are optional.
func ints(values map[string]string, want map[string]*int64, optional ...string) error {
	for key, p := range want {
		text, found := values[key]
		if !found && slices.Contains(optional, key) {
			continue
		}
		n, err := strconv.ParseInt(text, 0, 64)
		if err != nil || n < 0 {
			return fmt.Errorf("its %q is %q", key, text)
		}
		*p = n
	}
	return nil
}
