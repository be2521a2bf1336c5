package fsmap

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"xenlvm/lib/treesum/treetest"
)

// layouts are those of xfs that are read.
var layouts = []struct{ name, options string }{
	{"v5", ""},
	{"v5 without reflink", "-m reflink=0,finobt=0"},
	{"v5 rmapbt", "-m rmapbt=1"},
	{"v5 bigtime inobtcount nrext64", "-m bigtime=1,inobtcount=1 -i nrext64=1"},
	{"v5 of 1k", "-b size=1024"},
	{"v5 of 512-byte inodes in 4k sectors", "-s size=4096 -i size=512"},
	{"v5 of 64k", "-b size=65536"},
	{"v5 many groups", "-d agcount=11"},
	{"v5 stripes", "-d su=64k,sw=4 -l su=256k"},
	{"v5 without sparse inodes", "-i sparse=0"},
	{"v4", "-m crc=0"},
	{"v4 without lazy counters", "-m crc=0 -l lazy-count=0"},
	{"v4 with a log of version 1", "-m crc=0 -l version=1 -n ftype=1"},
	{"v4 of 512", "-m crc=0 -b size=512"},
}

// makeXFS is an image with a filesystem made by mkfs.xfs with the options, with
// the tree dir in it.
func makeXFS(t testing.TB, size int64, dir string, options ...string) string {
	t.Helper()
	image := treetest.Image(t, size)
	proto := []string{"/dev/null", "0 0", "d--755 0 0"}
	dirs, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range dirs {
		proto = append(proto, d.Name()+" d--755 0 0")
		files, err := os.ReadDir(filepath.Join(dir, d.Name()))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			proto = append(proto, f.Name()+" ---644 0 0 "+filepath.Join(dir, d.Name(), f.Name()))
		}
		proto = append(proto, "$")
	}
	list := filepath.Join(t.TempDir(), "proto")
	if err := os.WriteFile(list, []byte(strings.Join(append(proto, "$", ""), "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	treetest.Run(t, "mkfs.xfs", append(append([]string{"-q", "-f", "-p", list}, options...), image)...)
	return image
}

func TestXFS(t *testing.T) {
	t.Parallel()
	dir := tree(t)
	for _, l := range layouts {
		t.Run(l.name, func(t *testing.T) {
			image := makeXFS(t, 1<<30, dir, strings.Fields(l.options)...)
			set, region := used(t, image)
			if want := freeXFS(t, image); region.Free != want {
				t.Errorf("%d free bytes, xfs_db %d", region.Free, want)
			}
			if left := set.Complement(1 << 30).Bytes(); left < region.Free*9/10 {
				t.Errorf("only %d of %d free bytes are left out", left, region.Free)
			}
			dst := sparseCopy(t, image, set)
			poison(t, dst, set)
			treetest.Run(t, "xfs_repair", "-n", dst)
			if again, _ := used(t, dst); !again.Equal(set) {
				t.Error("the map of the copy differs")
			}
		})
	}
}

// freeXFS is what the headers of the groups count, by xfs_db.
func freeXFS(t testing.TB, image string) int64 {
	t.Helper()
	number := func(place, field string) int64 {
		out := treetest.Run(t, "xfs_db", "-r", "-c", place, "-c", "print "+field, image)
		_, value, _ := strings.Cut(strings.TrimSpace(out), " = ")
		n, err := strconv.ParseInt(value, 0, 64)
		if err != nil {
			t.Fatal(out, err)
		}
		return n
	}
	sum := int64(0)
	for a := range number("sb 0", "agcount") {
		sum += number(fmt.Sprintf("agf %d", a), "freeblks")
	}
	return sum * number("sb 0", "blocksize")
}

// What is damaged, unknown, or not as it says is copied whole.
func TestXFSDoubts(t *testing.T) {
	t.Parallel()
	dir := tree(t)
	be, le := binary.BigEndian, binary.LittleEndian
	reseal := func(b []byte, off int) { // a sector's checksum
		clear(b[off : off+4])
		le.PutUint32(b[off:], ^crc32c(^uint32(0), b[:512]))
	}
	v5 := makeXFS(t, 340*mib, dir)
	v4 := makeXFS(t, 340*mib, dir, "-m", "crc=0")
	leaf := func(b []byte, magic string) []byte { // a free space btree of the first group
		root := int(be.Uint32(b[512+16:]))
		if magic == "ABTC" {
			root = int(be.Uint32(b[512+20:]))
		}
		if string(b[root*4096:][:4]) != magic {
			t.Fatal(magic)
		}
		return b[root*4096:]
	}
	largest := func(b []byte) []byte {
		b = leaf(b, "ABTC")
		return b[16+8*(int(be.Uint16(b[6:]))-1):]
	}
	x, err := openXFS(open(t, v5))
	if err != nil {
		t.Fatal(err)
	}
	log := func(b []byte) []byte { return b[x.logStart:] } // the last record, after mkfs the first
	for _, c := range []struct {
		name, want string
		image      string
		damage     func(b []byte)
	}{
		{"a bit of the superblock", "checksum of its superblock", v5, func(b []byte) { b[150] ^= 1 }},
		{"its free blocks", "its superblock counts", v4, func(b []byte) { b[151] ^= 1 }},
		{"its free blocks, sealed", "its superblock counts", v5, func(b []byte) { b[151] ^= 1; reseal(b, 224) }},
		{"a needed repair", "feature incompat 0x10", v5, func(b []byte) { b[219] |= 0x10; reseal(b, 224) }},
		{"an unknown ro_compat feature", "feature ro_compat 0x10", v5, func(b []byte) { b[215] |= 0x10; reseal(b, 224) }},
		{"unknown features2", "feature features2 0x1", v4, func(b []byte) { b[203] |= 1 }},
		{"version 6", "version 6 is not known", v4, func(b []byte) { b[101] = b[101]&0xf0 | 6 }},
		{"more blocks than there are", "more than there are", v4, func(b []byte) { b[8] = 1 }},
		{"a realtime device", "realtime", v4, func(b []byte) { b[23] = 1 }},
		{"an external log", "log is on another device", v4, func(b []byte) { clear(b[48:56]) }},
		{"mkfs that did not end", "did not finish", v4, func(b []byte) { b[126] = 1 }},
		{"absurd groups", "allocation groups make no sense", v4, func(b []byte) { clear(b[84:88]) }},
		{"absurd sectors", "sector size makes no sense", v4, func(b []byte) { b[102] = 0xff }},
		{"an absurd log", "its log lies beyond", v4, func(b []byte) { b[96] = 0xff }},
		{"a bit of AGF", "XAGF of group 0 is damaged", v5, func(b []byte) { b[512+55] ^= 1 }},
		{"a bit of AGF in version 4", "group 0 counts", v4, func(b []byte) { b[512+55] ^= 1 }},
		{"a bit of AGI", "XAGI of group 0 is damaged", v5, func(b []byte) { b[1024+30] ^= 1 }},
		{"a bit of AGFL", "XAFL of group 0 is damaged", v5, func(b []byte) { b[1536+60] ^= 1 }},
		{"the headers of another group", "those of another", v4, func(b []byte) { b[512+11] ^= 1 }},
		{"a bit of a btree", "btree of group 0 is damaged", v5, func(b []byte) { leaf(b, "AB3B")[60] ^= 1 }},
		{"a free range moved, version 4", "and its btrees", v4, func(b []byte) { largest(b)[3]-- }},
		{"a free range longer in one btree", "and its btrees", v4, func(b []byte) { largest(b)[7]-- }},
		{"a free range of nothing", "btree of group 0 is damaged", v4, func(b []byte) { clear(leaf(b, "ABTB")[20:24]) }},
		{"a btree of another level", "btree of group 0 is damaged", v4, func(b []byte) { leaf(b, "ABTB")[5] = 1 }},
		{"a btree that is too high", "btree of group 0 is damaged", v4, func(b []byte) { b[512+28] = 1 }},
		{"used blocks marked free in both btrees", "holds metadata", v4, func(b []byte) { clear(leaf(b, "ABTB")[16:20]); clear(leaf(b, "ABTC")[16:20]) }},
		{"a log that was written to", "its log is not empty", v5, func(b []byte) { be.PutUint32(log(b)[1024:], 1) }},
		{"no unmount", "its log is not empty", v5, func(b []byte) { log(b)[512+9] = 1 }},
		{"the log of another", "another filesystem", v5, func(b []byte) { log(b)[304] ^= 1 }},
		{"a log of zeros", "log makes no sense", v5, func(b []byte) { clear(log(b)[:1024]) }},
		{"an ext2 superblock as well", "signatures of xfs and ", v5, func(b []byte) { copy(b[1024+0x38:], "\x53\xef") }},
	} {
		if region := change(t, c.image, c.damage); !strings.Contains(region.Whole, c.want) {
			t.Errorf("%s: %v, want %q", c.name, region, c.want)
		}
	}
}
