package mkfs

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"xenlvm/lib/fault"
	"xenlvm/lib/run"
	"xenlvm/lib/treesum/treetest"
	"xenlvm/lib/units"
)

const mib = 1 << 20

// filesystems is one of each kind that can be remade, and the size of the
// smaller one to be made like it.
var filesystems = []struct {
	name        string
	mkfs        []string
	size, small int64
}{
	{"ext4 of today", []string{"mke2fs", "-q", "-t", "ext4", "-L", "root fs"}, 200 * mib, 90 * mib},
	{"ext4 of 2012", []string{"mke2fs", "-q", "-t", "ext4", "-O", "^metadata_csum,^64bit,^orphan_file", "-L", "-dash"}, 200 * mib, 90 * mib},
	{"ext4 with the newest", []string{"mke2fs", "-q", "-t", "ext4", "-O", "metadata_csum_seed,orphan_file,inline_data,large_dir,ea_inode,fast_commit"}, 200 * mib, 90 * mib},
	{"ext4, 4k blocks, bigalloc", []string{"mke2fs", "-q", "-t", "ext4", "-b", "4096", "-O", "bigalloc", "-C", "65536"}, 400 * mib, 200 * mib},
	{"ext4, no journal, large inodes", []string{"mke2fs", "-q", "-t", "ext4", "-b", "4096", "-I", "512", "-O", "^has_journal"}, 200 * mib, 90 * mib},
	{"ext4, many inodes", []string{"mke2fs", "-q", "-t", "ext4", "-b", "1024", "-i", "1024", "-m", "0", "-e", "remount-ro"}, 100 * mib, 60 * mib},
	{"ext3, 1k blocks", []string{"mke2fs", "-q", "-t", "ext3", "-b", "1024", "-L", "sixteen letters!"}, 100 * mib, 40 * mib},
	{"ext3, small inodes", []string{"mke2fs", "-q", "-t", "ext3", "-I", "128", "-b", "4096"}, 100 * mib, 60 * mib},
	{"ext2", []string{"mke2fs", "-q", "-t", "ext2", "-L", "a=b\n$x"}, 100 * mib, 40 * mib},
	{"ext2 without features", []string{"mke2fs", "-q", "-t", "ext2", "-O", "none"}, 100 * mib, 40 * mib},
	{"xfs of today", []string{"mkfs.xfs", "-q", "-L", "data 1"}, 500 * mib, 320 * mib},
	{"xfs with all", []string{"mkfs.xfs", "-q", "-m", "rmapbt=1,reflink=1,bigtime=1,inobtcount=1", "-i", "nrext64=1,size=1024", "-n", "size=8192"}, 500 * mib, 320 * mib},
	{"xfs of 2018", []string{"mkfs.xfs", "-q", "-m", "rmapbt=0,reflink=0,bigtime=0,inobtcount=0", "-i", "sparse=0"}, 500 * mib, 320 * mib},
	{"xfs version 4", []string{"mkfs.xfs", "-q", "-m", "crc=0,finobt=0,reflink=0,bigtime=0,inobtcount=0", "-i", "sparse=0,size=256,projid32bit=0", "-n", "ftype=0"}, 500 * mib, 320 * mib},
	{"swap", []string{"mkswap", "-L", "swap 1"}, 20 * mib, 10 * mib},
}

// create makes a filesystem as a guest's administrator would have.
func create(t *testing.T, mkfs []string, size int64) string {
	t.Helper()
	image := treetest.Image(t, size)
	if out, err := exec.Command(mkfs[0], append(slices.Clone(mkfs[1:]), image)...).CombinedOutput(); err != nil {
		t.Fatalf("%q: %v\n%s", mkfs, err, out)
	}
	return image
}

// remake is an image of size bytes with an empty filesystem like the one on src,
// where another one was before.
func remake(t *testing.T, src string, size int64) (Description, string) {
	t.Helper()
	d, err := Describe(t.Context(), run.Host{}, src)
	if err != nil {
		t.Fatal(err)
	}
	dst := create(t, []string{"mke2fs", "-q", "-t", "ext4", "-b", "1024"}, size)
	cmds, err := Make(t.Context(), run.Host{}, d, dst, units.Bytes(size))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cmds {
		if c.Effect != run.Change {
			t.Errorf("%s says that it changes nothing", c.Line())
		}
		if _, err := (run.Host{}).Run(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	return d, dst
}

func TestRemake(t *testing.T) {
	for _, tt := range filesystems {
		t.Run(tt.name, func(t *testing.T) {
			src := create(t, tt.mkfs, tt.size)
			before, err := os.Stat(src)
			if err != nil {
				t.Fatal(err)
			}
			d, dst := remake(t, src, tt.small)
			if err := Check(t.Context(), run.Host{}, d, dst); err != nil {
				t.Error(err)
			}
			made, err := Describe(t.Context(), run.Host{}, dst)
			if err != nil {
				t.Fatal(err)
			}
			if missing := without(d.Features, made.Features); len(missing) > 0 {
				t.Errorf("the features %q are missing", missing)
			}
			if made.ext.errors != d.ext.errors || made.ext.hash != d.ext.hash || !slices.Equal(made.ext.mountOptions, d.ext.mountOptions) ||
				made.ext.cluster != d.ext.cluster || made.xfs != d.xfs {
				t.Errorf("details %+v %+v; want %+v %+v", made.ext, made.xfs, d.ext, d.xfs)
			}
			if d.ext.blocks > 0 {
				if was, is := d.ext.reserved*1000/d.ext.blocks, made.ext.reserved*1000/made.ext.blocks; is < was-1 || is > was+1 {
					t.Errorf("%d per mille are reserved; want %d", is, was)
				}
			}
			if after, err := os.Stat(src); err != nil || !after.ModTime().Equal(before.ModTime()) {
				t.Error("the source was written to")
			}
			fsck(t, d.Type, dst)
			// The other tools' word for what a guest mounts by.
			for _, key := range []string{"TYPE", "UUID", "LABEL"} {
				if was, is := tag(t, src, key), tag(t, dst, key); was != is {
					t.Errorf("%s is %q; want %q", key, is, was)
				}
			}
		})
	}
}

func fsck(t *testing.T, fstype, image string) {
	t.Helper()
	argv := []string{"e2fsck", "-fn", image}
	switch fstype {
	case "swap":
		return
	case "xfs":
		argv = []string{"xfs_repair", "-n", "-f", image}
	}
	if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
		t.Errorf("%q: %v\n%s", argv, err, out)
	}
}

func tag(t *testing.T, image, key string) string {
	t.Helper()
	out, err := exec.Command("blkid", "-p", "-o", "value", "-s", key, image).Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func TestRemadeFilesystemsCanBeMounted(t *testing.T) {
	treetest.Root(t)
	for _, tt := range filesystems {
		if tt.name == "swap" {
			continue
		}
		t.Run(tt.name, func(t *testing.T) {
			if tt.name == "xfs version 4" && !strings.Contains(kernelConfig(t), "CONFIG_XFS_SUPPORT_V4=y") {
				t.Skip("this kernel has no XFS version 4")
			}
			src := create(t, tt.mkfs, tt.size)
			_, dst := remake(t, src, tt.small)
			dir := treetest.Mount(t, dst)
			if err := os.WriteFile(dir+"/f", []byte("x"), 0o600); err != nil {
				t.Error(err)
			}
			s, err := SpaceOf(dir)
			if err != nil {
				t.Fatal(err)
			}
			if s.Total <= 0 || s.Total > units.Bytes(tt.small) || s.Used > s.Total || s.UsedInodes < 1 {
				t.Errorf("space %+v", s)
			}
		})
	}
}

func kernelConfig(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("sh", "-c", "zcat /proc/config.gz 2>/dev/null || cat /boot/config-$(uname -r)").Output()
	if err != nil {
		return ""
	}
	return string(out)
}

func TestRefusals(t *testing.T) {
	for _, tt := range []struct {
		name string
		mkfs []string
		size int64
		want string
	}{
		{"encryption", []string{"mke2fs", "-q", "-t", "ext4", "-O", "encrypt"}, 50 * mib, "encrypt"},
		{"quota", []string{"mke2fs", "-q", "-t", "ext4", "-O", "quota"}, 50 * mib, "quota"},
		{"ignoring case", []string{"mke2fs", "-q", "-t", "ext4", "-O", "casefold"}, 50 * mib, "casefold"},
		{"btrfs", []string{"mkfs.btrfs", "-q"}, 200 * mib, "btrfs"},
		{"FAT", []string{"mkfs.vfat"}, 40 * mib, "FAT"},
		{"small xfs", []string{"mkfs.xfs", "-q"}, 400 * mib, "smaller than"},
		{"xfs, ascii-ci", []string{"mkfs.xfs", "-q", "-n", "version=ci"}, 400 * mib, "ascii-ci"},
		{"a text with a line break", []string{"mke2fs", "-q", "-t", "ext4", "-M", "/\nInode size: 1024"}, 50 * mib, `"Inode size" twice`},
		{"LUKS", []string{"sh", "-c", `printf 'LUKS\272\276\000\001' | dd of="$1" conv=notrunc status=none`, "sh"}, 20 * mib, "crypto_LUKS"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d, err := Describe(t.Context(), run.Host{}, create(t, tt.mkfs, tt.size))
			if err == nil {
				_, err = Make(t.Context(), run.Host{}, d, "/dev/null", 200*mib)
			}
			if fault.StatusOf(err) != fault.Refused || !strings.Contains(err.Error(), tt.want) || !slices.Equal(fault.Hints(err), []string{"--method blocks"}) {
				t.Errorf("error %v, hints %q; want a refusal that says %q", err, fault.Hints(err), tt.want)
			}
		})
	}
	if _, err := Describe(t.Context(), run.Host{}, treetest.Image(t, mib)); fault.StatusOf(err) != fault.Refused {
		t.Errorf("an empty image gave %v", err)
	}
	if _, err := Describe(t.Context(), run.Host{}, t.TempDir()+"/none"); err == nil {
		t.Error("a missing image was described")
	}
}

// Check must see what a tool did on its own account.
func TestCheck(t *testing.T) {
	uuid := "7a3a4a6e-0d8e-4f0c-8a54-3c7f2f0f1a11"
	old := []string{"mke2fs", "-q", "-t", "ext4", "-b", "4096", "-U", uuid, "-L", "l", "-O", "^metadata_csum,^64bit"}
	d, err := Describe(t.Context(), run.Host{}, create(t, old, 50*mib))
	if err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string][]string{
		"features that the one": {"-O", "metadata_csum"}, "UUID": {"-U", "7a3a4a6e-0d8e-4f0c-8a54-3c7f2f0f1a12"},
		"label": {"-L", "m"}, "inode size": {"-I", "512"}, "block size": {"-b", "2048"}, "type": {"-O", "none"},
	} {
		err := Check(t.Context(), run.Host{}, d, create(t, append(slices.Clone(old), change...), 50*mib))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v; want it to name the %s", change, err, want)
		}
	}
	if err := Check(t.Context(), run.Host{}, d, create(t, old, 60*mib)); err != nil {
		t.Error(err)
	}
}

func TestXFSOptionsByVersion(t *testing.T) {
	d := Description{Type: "xfs", UUID: "u", Features: []string{"crc", "finobt", "ftype", "nrext64"}}
	for _, tt := range []struct {
		v        version
		has, not []string
	}{
		{version{4, 9}, []string{"crc=1", "finobt=1", "reflink=0", "sparse=0"}, []string{"bigtime=0", "nrext64=1", "parent=0", "lazy-count=0"}},
		{version{6, 1}, []string{"bigtime=0", "inobtcount=0", "nrext64=1"}, []string{"parent=0", "exchange=0"}},
		{version{6, 13}, []string{"parent=0", "exchange=0"}, []string{"projid32bit=0"}},
	} {
		args := d.xfsArgs(tt.v)
		for _, a := range tt.has {
			if !slices.Contains(args, a) {
				t.Errorf("%v: no %s in %q", tt.v, a, args)
			}
		}
		for _, a := range tt.not {
			if slices.Contains(args, a) {
				t.Errorf("%v: %s in %q", tt.v, a, args)
			}
		}
	}
}

func TestUnknownFeatures(t *testing.T) {
	d := Description{Device: "x", Type: "ext4", UUID: "7a3a4a6e-0d8e-4f0c-8a54-3c7f2f0f1a11", Features: []string{"FEATURE_C30", "extent", "needs_recovery"}, Size: 1}
	cmds, err := d.makeExt("/dev/x", mib)
	if err != nil || !slices.Contains(cmds[0].Args, "none,extent") {
		t.Errorf("%v, %v; want the feature extent alone", cmds, err)
	}
	d.Features = []string{"FEATURE_I30"}
	if _, err := d.makeExt("/dev/x", mib); fault.StatusOf(err) != fault.Refused {
		t.Errorf("an unknown incompatible feature gave %v", err)
	}
}

func TestFits(t *testing.T) {
	src := Space{Path: "/a", Total: 100 * mib, Used: 40 * mib, BlockSize: 1024, Inodes: 5000, UsedInodes: 1000}
	for _, tt := range []struct {
		name string
		dst  Space
		ok   bool
	}{
		{"smaller", Space{Total: 41 * mib, BlockSize: 1024, Inodes: 1000}, true},
		{"too small", Space{Total: 39 * mib, BlockSize: 1024, Inodes: 1000}, false},
		{"too few inodes", Space{Total: 50 * mib, BlockSize: 1024, Inodes: 999}, false},
		{"larger blocks take more", Space{Total: 41 * mib, BlockSize: 4096, Inodes: 1000}, false},
		{"inodes out of the space", Space{Total: 40*mib + 511*1000, BlockSize: 1024}, false},
		{"inodes out of the space, enough", Space{Total: 40*mib + 512*1000, BlockSize: 1024}, true},
	} {
		err := Fits(src, tt.dst)
		if (err == nil) != tt.ok || err != nil && fault.StatusOf(err) != fault.Refused {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func TestDecode(t *testing.T) {
	for in, want := range map[string]string{`a\x20b`: "a b", `\xff\x5cx41`: "\xff\\x41", "plain": "plain", `\x2`: `\x2`} {
		if got := decode(in); got != want {
			t.Errorf("decode(%q) = %q; want %q", in, got, want)
		}
	}
}
