package fsmap

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"xenlvm/lib/diskimg"
	"xenlvm/lib/extent"
	"xenlvm/lib/treesum/treetest"
	"xenlvm/lib/units"
)

// partitioned is a disk with the table that sfdisk makes from script.
func partitioned(t testing.TB, size int64, script string) string {
	t.Helper()
	image := treetest.Image(t, size)
	cmd := exec.Command("sfdisk", "-q", image)
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("sfdisk: %v: %s", err, out)
	}
	return image
}

// put writes the file part into image at off.
func put(t testing.TB, image, part string, off int64) {
	t.Helper()
	f, err := os.OpenFile(image, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(contents(t, part), off); err != nil {
		t.Fatal(err)
	}
}

func regions(t testing.TB, image string) (extent.Set, []Region) {
	t.Helper()
	d := open(t, image)
	set, all, err := Used(d.r, units.Bytes(d.size))
	if err != nil {
		t.Fatal(err)
	}
	return set, all
}

// Each partition is mapped for itself, and everything else is used.
func TestPartitions(t *testing.T) {
	t.Parallel()
	dir := tree(t)
	fs := makeExt(t, 40*mib, dir, "-t", "ext4", "-b", "4096")
	alone, _ := used(t, fs)
	for _, c := range []struct{ name, script, names string }{
		{"mbr", "label: dos\nstart=2048,size=81920,type=83\nstart=100000,type=5\nstart=102048,size=81920,type=83\nstart=190000,type=82\n",
			"partition 1 partition 5 partition 6"},
		{"gpt", "label: gpt\nstart=2048,size=81920,type=L\nstart=102048,size=81920,type=L\nstart=190000,type=S\n",
			"partition 1 partition 2 partition 3"},
	} {
		t.Run(c.name, func(t *testing.T) {
			image := partitioned(t, 120*mib, c.script)
			put(t, image, fs, 2048*512)
			put(t, image, fs, 102048*512)
			set, all := regions(t, image)
			var names []string
			for _, r := range all {
				names = append(names, r.Name)
			}
			if strings.Join(names, " ") != c.names || all[0].Whole != "" || all[1].Whole != "" || !strings.Contains(all[2].Whole, "nothing that is known") {
				t.Fatalf("%v", all)
			}
			want := extent.Whole(120 * mib)
			for _, start := range []int64{2048 * 512, 102048 * 512} {
				for r := range alone.Complement(40 * mib).All() {
					want = want.Subtract(extent.Of(extent.Range{Off: start + r.Off, Len: r.Len}))
				}
			}
			if !set.Equal(want) {
				t.Error("the map is not that of its parts")
			}
			d := open(t, image)
			table, err := diskimg.ReadTable(d.r, d.size)
			if err != nil || !table.Own.Contains(0) || c.name == "gpt" != (table.Own.Contains(33*512) && table.Own.Contains(d.size-33*512)) {
				t.Error(err, table)
			}
		})
	}
}

// A table that lies where a filesystem says it is free is used all the same.
func TestTableInFreeSpace(t *testing.T) {
	t.Parallel()
	fs := makeExt(t, 40*mib, tree(t), "-t", "ext2", "-b", "4096")
	image := partitioned(t, 64*mib, "label: dos\nstart=2048,size=81920,type=83\nstart=83968,type=5\nstart=86016,size=2048,type=83\n")
	put(t, image, fs, 2048*512)
	plain, _ := regions(t, image)
	// Make the extended partition begin within the free space of the first one.
	ebr := int64(0)
	for r := range plain.Complement(41 * mib).All() {
		if r.Len > 1<<20 {
			ebr = (r.Off + r.Len/2) / 512 * 512
		}
	}
	d := contents(t, image)
	copy(d[ebr:ebr+512], d[83968*512:])
	entry := func(b []byte, start, count int64) {
		for i := range 4 {
			b[8+i], b[12+i] = byte(start>>(8*i)), byte(count>>(8*i))
		}
	}
	entry(d[446+16:], ebr/512, 131072-ebr/512)
	entry(d[ebr+446:], 86016-ebr/512, 2048)
	set, all, err := Used(bytes.NewReader(d), units.Bytes(len(d)))
	if err != nil || len(all) != 2 || all[0].Whole != "" {
		t.Fatal(all, err)
	}
	if !plain.Complement(64*mib).Contains(ebr) || !set.Contains(ebr) || !set.Contains(ebr+511) || set.Contains(ebr+512) {
		t.Error("the table is not used")
	}
}

func TestOverlap(t *testing.T) {
	t.Parallel()
	fs := makeExt(t, 40*mib, tree(t), "-t", "ext2")
	image := partitioned(t, 64*mib, "label: dos\nstart=2048,size=81920,type=83\nstart=84000,size=4096,type=83\n")
	put(t, image, fs, 2048*512)
	b := contents(t, image)
	b[446+16+8], b[446+16+9], b[446+16+10] = 0x00, 0x40, 0x01 // the second begins at 81920
	set, all, err := Used(bytes.NewReader(b), units.Bytes(len(b)))
	if err != nil || len(all) != 2 || !strings.Contains(all[0].Whole, "overlaps") || !strings.Contains(all[1].Whole, "overlaps") || !set.Equal(extent.Whole(64*mib)) {
		t.Fatal(all, err)
	}
}

// Of a filesystem beside a partition table one is stale.
func TestStaleTable(t *testing.T) {
	t.Parallel()
	image := makeExt(t, 64*mib, tree(t), "-t", "ext4")
	cmd := exec.Command("sfdisk", "-q", "--wipe", "never", image)
	cmd.Stdin = strings.NewReader("label: dos\nstart=2048,type=83\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("sfdisk: %v: %s", err, out)
	}
	if _, region := mapped(t, image); !strings.Contains(region.Whole, "only the guest knows") {
		t.Error(region)
	}
	disk := partitioned(t, 80*mib, "label: dos\nstart=2048,size=131072,type=83\n")
	put(t, disk, image, 2048*512)
	if _, region := mapped(t, disk); region.Name != "partition 1" || !strings.Contains(region.Whole, "only the guest knows") {
		t.Error(region)
	}
}

func TestOtherUses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ command, kind string }{
		{"mkswap -q", "swap"}, {"mkfs.btrfs -q", "btrfs"}, {"mkfs.vfat", "vfat"}, {"mke2fs -q -F -O journal_dev", "jbd"}, {"true", "unknown"},
	} {
		image := treetest.Image(t, 130*mib)
		argv := append(strings.Fields(c.command), image)
		treetest.Run(t, argv[0], argv[1:]...)
		_, region := mapped(t, image)
		if kind := fmt.Sprintf("disk (%s, 130 MiB): copied whole: ", c.kind); !strings.HasPrefix(region.String(), kind) {
			t.Error(region)
		}
	}
}

// broken fails to read from off on.
type broken struct {
	io.ReaderAt
	from int64
}

var errBroken = errors.New("broken")

func (b broken) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > b.from {
		return 0, errBroken
	}
	return b.ReaderAt.ReadAt(p, off)
}

// A disk that cannot be read is an error, wherever it happens; one that is
// shorter than it says as well.
func TestReadErrors(t *testing.T) {
	t.Parallel()
	dir := tree(t)
	for name, image := range map[string]string{"ext4": makeExt(t, 64*mib, dir, "-t", "ext4"), "xfs": makeXFS(t, 340*mib, dir)} {
		d := open(t, image)
		failed := 0
		for off := int64(0); off < d.size; off = off*5/4 + 512 {
			_, _, err := Used(broken{d.r, off}, units.Bytes(d.size))
			if err != nil && !errors.Is(err, errBroken) {
				t.Fatal(name, off, err)
			}
			if err != nil {
				failed++
			}
		}
		if failed < 10 {
			t.Errorf("%s: %d errors", name, failed)
		}
		if _, _, err := Used(bytes.NewReader(make([]byte, 4096)), 8192); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Error(err)
		}
	}
}
