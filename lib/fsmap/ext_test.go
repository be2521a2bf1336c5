package fsmap

import (
	"encoding/binary"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"xenlvm/lib/treesum"
	"xenlvm/lib/treesum/treetest"
)

// matrix is every layout of ext2, ext3 and ext4 that is read.
var matrix = []struct {
	name    string
	options string
}{
	{"ext2", "-t ext2"},
	{"ext2 of revision 0", "-r 0 -O none -b 1024"},
	{"ext2 with all backups", "-t ext2 -O ^sparse_super,^resize_inode -b 1024"},
	{"ext3", "-t ext3"},
	{"ext3 2k", "-t ext3 -b 2048"},
	{"ext4", "-t ext4"},
	{"ext4 1k", "-t ext4 -b 1024"},
	{"ext4 2k", "-t ext4 -b 2048"},
	{"ext4 4k", "-t ext4 -b 4096"},
	{"ext4 ^64bit", "-t ext4 -b 4096 -O ^64bit"},
	{"ext4 ^metadata_csum", "-t ext4 -O ^metadata_csum"},
	{"ext4 uninit_bg", "-t ext4 -O ^metadata_csum,uninit_bg"},
	{"ext4 uninit_bg ^64bit", "-t ext4 -b 1024 -O ^metadata_csum,uninit_bg,^64bit"},
	{"ext4 ^flex_bg", "-t ext4 -b 1024 -O ^flex_bg"},
	{"ext4 meta_bg", "-t ext4 -b 1024 -O meta_bg,^resize_inode"},
	{"ext4 meta_bg ^flex_bg", "-t ext4 -b 1024 -O meta_bg,^resize_inode,^flex_bg,^64bit"},
	{"ext4 bigalloc", "-t ext4 -b 4096 -O bigalloc -C 65536"},
	{"ext4 bigalloc 1k", "-t ext4 -b 1024 -O bigalloc -C 16384"},
	{"ext4 sparse_super2", "-t ext4 -b 1024 -O sparse_super2"},
	{"ext4 many features", "-t ext4 -O project,orphan_file,inline_data,encrypt,casefold,large_dir,ea_inode,metadata_csum_seed,verity,stable_inodes"},
	{"ext4 fast_commit", "-t ext4 -O fast_commit"},
	{"ext4 short groups", "-t ext4 -b 1024 -g 2048"},
	{"ext4 large inodes", "-t ext4 -b 4096 -I 1024 -N 5000"},
	{"ext4 small journal", "-t ext4 -b 1024 -J size=1"},
}

// The proof for every layout: the used bytes alone are a filesystem as whole as
// the original, with the same files, and not one free block too many or too few.
func TestExt(t *testing.T) {
	t.Parallel()
	dir := tree(t)
	for _, m := range matrix {
		t.Run(m.name, func(t *testing.T) {
			// The last group is short, and something lies behind the end.
			image := makeExt(t, 150*mib+512, dir, strings.Fields(m.options)...)
			set, region := used(t, image)
			if want := freeBytes(t, image); region.Free != want {
				t.Errorf("%d free bytes, dumpe2fs %d", region.Free, want)
			}
			if !set.Contains(150*mib + 511) {
				t.Error("what lies behind the filesystem is not used")
			}
			if left := set.Complement(150 * mib).Bytes(); left < region.Free*9/10 {
				t.Errorf("only %d of %d free bytes are left out", left, region.Free)
			}
			dst := sparseCopy(t, image, set)
			treetest.Run(t, "e2fsck", "-fn", dst)
			if again, _ := used(t, dst); !again.Equal(set) {
				t.Error("the map of the copy differs")
			}
			poison(t, dst, set)
			treetest.Run(t, "e2fsck", "-fn", dst)
			sameFiles(t, image, dst)
		})
	}
}

// A filesystem that is protected against being mounted twice is used like any
// other. (e2fsck waits for it, so it has a test of its own.)
func TestExtMMP(t *testing.T) {
	t.Parallel()
	image := makeExt(t, 32*mib, tree(t), "-t", "ext4", "-O", "mmp")
	if _, region := used(t, image); region.Free != freeBytes(t, image) {
		t.Error(region)
	}
}

// freeBytes is what dumpe2fs counts in the groups.
func freeBytes(t testing.TB, image string) int64 {
	t.Helper()
	out := treetest.Run(t, "dumpe2fs", image)
	number := func(pattern string) (sum int64) {
		for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(out, -1) {
			n, err := strconv.ParseInt(m[1], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			sum += n
		}
		return sum
	}
	unit := max(number(`(?m)^Cluster size: +(\d+)`), number(`(?m)^Block size: +(\d+)`))
	return number(`(?m)^  (\d+) free (?:blocks|clusters), `) * unit
}

// sameFiles compares the trees in two ext images without mounting them.
func sameFiles(t testing.TB, a, b string) {
	t.Helper()
	var dirs []string
	for _, image := range []string{a, b} {
		dir := t.TempDir()
		treetest.Run(t, "debugfs", "-R", "rdump / "+dir, image)
		dirs = append(dirs, dir)
	}
	same(t, dirs[0], dirs[1])
}

func same(t testing.TB, a, b string) {
	t.Helper()
	report, err := treesum.Compare(t.Context(), a, b, treesum.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if !report.Equal() || report.Source.Files < 20 {
		t.Errorf("%d files, differences: %v", report.Source.Files, report.Differences)
	}
}

// What is damaged, unknown, or not as it says is copied whole.
func TestExtDoubts(t *testing.T) {
	t.Parallel()
	dir := tree(t)
	le := binary.LittleEndian
	sb := func(b []byte) []byte { return b[1024:2048] }
	reseal := func(b []byte) { le.PutUint32(sb(b)[0x3fc:], crc32c(^uint32(0), sb(b)[:0x3fc])) }
	csum := makeExt(t, 64*mib, dir, "-t", "ext4", "-b", "4096")
	plain := makeExt(t, 64*mib, dir, "-t", "ext2", "-b", "4096")
	bitmap := func(b []byte) []byte { return b[le.Uint32(b[4096:])*4096:] } // of the first group
	for _, c := range []struct {
		name, want string
		image      string
		damage     func(b []byte)
	}{
		{"a bit of a bitmap", "checksum of the block bitmap of group 0", csum, func(b []byte) { bitmap(b)[3000] ^= 4 }},
		{"a bit of a bitmap without checksums", "group 0 counts", plain, func(b []byte) { bitmap(b)[1500] ^= 4 }},
		{"a used block marked free instead of another", "marked free and holds metadata", plain, func(b []byte) { bitmap(b)[0] ^= 1; bitmap(b)[4095] ^= 128 }},
		{"a bit of a descriptor", "checksum of the descriptor of group 0", csum, func(b []byte) { b[4096+0xc] ^= 1 }},
		{"a bit of a descriptor without checksums", "group 0 counts", plain, func(b []byte) { b[4096+0xc] ^= 1 }},
		{"a bit of the superblock", "checksum of its superblock", csum, func(b []byte) { sb(b)[0x80] ^= 1 }},
		{"the free blocks of the superblock", "its superblock counts", plain, func(b []byte) { sb(b)[0xc] ^= 1 }},
		{"the free blocks of a sealed superblock", "its superblock counts", csum, func(b []byte) { sb(b)[0xc] ^= 1; reseal(b) }},
		{"an unknown compat feature", "feature compat 0x80000000", plain, func(b []byte) { sb(b)[0x5f] |= 0x80 }},
		{"an unknown incompat feature", "feature incompat 0x1", plain, func(b []byte) { sb(b)[0x60] |= 1 }},
		{"an unknown ro_compat feature", "feature ro_compat 0x80", plain, func(b []byte) { sb(b)[0x64] |= 0x80 }},
		{"mounted, no journal", "has no journal that makes it whole", plain, func(b []byte) { sb(b)[0x3a] &^= 1 }},
		{"never checked", "it was never checked", csum, func(b []byte) { sb(b)[0x3a] = 0; reseal(b) }},
		{"needs recovery, no journal", "journal that it does not have", plain, func(b []byte) { sb(b)[0x60] |= 4 }},
		{"errors", "needs e2fsck", csum, func(b []byte) { sb(b)[0x3a] |= 2; reseal(b) }},
		{"an external journal", "another device", csum, func(b []byte) { clear(sb(b)[0xe0:0xe4]); reseal(b) }},
		{"more blocks than there are", "more than there are", plain, func(b []byte) { sb(b)[6] = 1 }},
		{"a revision of the future", "revision 2", plain, func(b []byte) { sb(b)[0x4c] = 2 }},
		{"absurd blocks", "block size makes no sense", plain, func(b []byte) { sb(b)[0x18] = 20 }},
		{"absurd groups", "group size makes no sense", plain, func(b []byte) { clear(sb(b)[0x20:0x24]) }},
		{"absurd inodes", "number of inodes makes no sense", plain, func(b []byte) { clear(sb(b)[0x28:0x2c]) }},
		{"a bitmap beyond the end", "beyond its end", plain, func(b []byte) { le.PutUint32(b[4096:], 1<<30) }},
		{"an inode table beyond the end", "beyond its end", plain, func(b []byte) { le.PutUint32(b[4096+8:], ^uint32(0)) }},
		{"the signature of swap as well", "signatures of ext2 and swap", plain, func(b []byte) { copy(b[4086:], "SWAPSPACE2") }},
		{"the signature of ZFS as well", "signature of zfs_member", plain, func(b []byte) { le.PutUint64(b[128<<10:], 0xbab10c) }},
		{"the signature of jfs as well", "signature of jfs", plain, func(b []byte) { copy(b[0x8000:], "JFS1") }},
	} {
		if region := change(t, c.image, c.damage); !strings.Contains(region.Whole, c.want) {
			t.Errorf("%s: %v, want %q", c.name, region, c.want)
		}
	}
}
