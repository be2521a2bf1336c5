package mkfs

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"xenlvm/lib/run"
	"xenlvm/lib/units"
)

type extDetails struct {
	blocks, reserved int64
	cluster          int64 // bytes, of bigalloc; else 0
	errors           string
	hash             string // of directory indexes; "" without
	mountOptions     []string
}

// extSettable are the features that mke2fs -O takes and an empty filesystem can
// have. Others are a state, not a choice (needs_recovery), or in extLoses.
var extSettable = []string{
	"64bit", "bigalloc", "dir_index", "dir_nlink", "ea_inode", "ext_attr", "extent", "extra_isize", "fast_commit",
	"filetype", "flex_bg", "has_journal", "huge_file", "inline_data", "large_dir", "large_file", "meta_bg",
	"metadata_csum", "metadata_csum_seed", "mmp", "orphan_file", "resize_inode", "sparse_super", "sparse_super2", "uninit_bg",
}

// extStates come and go with use.
var extStates = []string{"needs_recovery", "orphan_present", "orphan_inode", "read-only", "shared_blocks", "stable_inodes", "imagic_inodes", "dir_prealloc"}

// extLoses are features behind which is something that a copy of the files
// does not bring along.
var extLoses = map[string]string{
	"casefold": "directories that ignore case", "encrypt": "encrypted directories", "verity": "files with verity",
	"quota": "quota limits", "project": "project ids", "journal_dev": "the journal of another filesystem",
	"replica": "replicas", "snapshot_bitmap": "snapshots", "compression": "compressed files",
}

// extMountOptions are the default mount options that tune2fs -o knows.
var extMountOptions = []string{"debug", "bsdgroups", "user_xattr", "acl", "uid16", "journal_data", "journal_data_ordered",
	"journal_data_writeback", "nobarrier", "block_validity", "discard", "nodelalloc"}

func (d *Description) describeExt(ctx context.Context, r run.Runner) error {
	res, err := r.Run(ctx, run.Cmd{Name: "dumpe2fs", Args: []string{"-h", d.Device}})
	if err != nil {
		return fmt.Errorf("cannot describe the filesystem on %s: %w", d.Device, err)
	}
	values, err := pairs(res.Stdout, ":")
	if err == nil {
		err = d.readExt(values)
	}
	if err != nil {
		return blocks(d.Device, "its superblock is odd: %v", err)
	}
	return nil
}

func (d *Description) readExt(values map[string]string) error {
	var free int64
	err := ints(values, map[string]*int64{
		"Block size": &d.BlockSize, "Block count": &d.ext.blocks, "Reserved block count": &d.ext.reserved,
		"Inode size": &d.InodeSize, "Inode count": &d.Inodes, "Free inodes": &free, "Cluster size": &d.ext.cluster,
	}, "Inode size", "Cluster size")
	if err != nil {
		return err
	}
	if d.InodeSize == 0 { // revision 0 has no field for it
		d.InodeSize = 128
	}
	d.UsedNodes = d.Inodes - free
	const maxBlocks = 1 << 48 // of ext4
	if d.BlockSize < 1024 || d.BlockSize > 64<<10 || d.ext.blocks < 1 || d.ext.blocks > maxBlocks ||
		d.ext.reserved > d.ext.blocks/2 || d.Inodes < 1 || d.UsedNodes < 0 {
		return fmt.Errorf("%d blocks of %d bytes, %d reserved, %d inodes, %d free", d.ext.blocks, d.BlockSize, d.ext.reserved, d.Inodes, free)
	}
	d.Size = units.Bytes(d.ext.blocks * d.BlockSize)
	if f := values["Filesystem features"]; f != "(none)" {
		d.Features = strings.Fields(f)
		slices.Sort(d.Features)
	}
	if !slices.Contains(d.Features, "bigalloc") {
		d.ext.cluster = 0
	}
	d.ext.hash = values["Default directory hash"]
	switch strings.ToLower(values["Errors behavior"]) {
	case "remount read-only":
		d.ext.errors = "remount-ro"
	case "panic":
		d.ext.errors = "panic"
	default:
		d.ext.errors = "continue"
	}
	if o := values["Default mount options"]; o != "(none)" {
		d.ext.mountOptions = strings.Fields(o)
	}
	return nil
}

func (d Description) makeExt(dev string, size units.Bytes) ([]run.Cmd, error) {
	features := []string{"none"}
	for _, f := range d.Features {
		what, loses := extLoses[f]
		switch {
		case loses:
			return nil, blocks(d.Device, "a file by file copy loses what its feature %s stands for, %s", f, what)
		case slices.Contains(extSettable, f):
			features = append(features, f)
		case slices.Contains(extStates, f), strings.HasPrefix(f, "FEATURE_C"):
			// A compatible feature (C) unknown here may be left out: kernels may ignore it.
		default:
			return nil, blocks(d.Device, "this e2fsprogs does not know its feature %s", f)
		}
	}
	args := []string{"-q", "-F", "-t", d.Type, "-O", strings.Join(features, ","),
		"-b", strconv.FormatInt(d.BlockSize, 10),
		"-I", strconv.FormatInt(d.InodeSize, 10),
		"-N", strconv.FormatInt(d.extInodes(size), 10),
		"-m", strconv.FormatFloat(100*float64(d.ext.reserved)/float64(d.ext.blocks), 'f', 4, 64),
		"-e", d.ext.errors, "-U", d.UUID}
	if d.ext.cluster > 0 {
		args = append(args, "-C", strconv.FormatInt(d.ext.cluster, 10))
	}
	if d.Label != "" {
		args = append(args, "-L", d.Label)
	}
	cmds := []run.Cmd{{Name: "mke2fs", Args: append(args, dev), Effect: run.Change}}
	// What mke2fs takes from its configuration only.
	tune := []string{"-o", strings.Join(d.extMountChanges(), ",")}
	if slices.Contains([]string{"half_md4", "tea", "legacy"}, d.ext.hash) {
		tune = append(tune, "-E", "hash_alg="+d.ext.hash)
	}
	return append(cmds, run.Cmd{Name: "tune2fs", Args: append(tune, dev), Effect: run.Change}), nil
}

// extInodes keeps the share of inodes per byte, and leaves a quarter free where
// a smaller filesystem would have too few.
func (d Description) extInodes(size units.Bytes) int64 {
	share := float64(d.Inodes) * float64(size) / float64(d.Size)
	return int64(min(max(share, 1.25*float64(d.UsedNodes), 16), 1<<32-1))
}

// extMountChanges sets the mount options of d and clears those that
// mke2fs.conf sets everywhere.
func (d Description) extMountChanges() []string {
	var changes []string
	for _, o := range []string{"acl", "user_xattr"} {
		if !slices.Contains(d.ext.mountOptions, o) {
			changes = append(changes, "^"+o)
		}
	}
	for _, o := range extMountOptions {
		if slices.Contains(d.ext.mountOptions, o) {
			changes = append(changes, o)
		}
	}
	return changes
}
