package fsmap

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"xenlvm/lib/extent"
	"xenlvm/lib/treesum/treetest"
	"xenlvm/lib/units"
)

const mib = 1 << 20

// tree is a directory of files of many sizes, with holes and gaps.
func tree(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range 60 {
		b := make([]byte, rng.IntN(300<<10))
		for k := range b {
			b[k] = byte(rng.Uint32())
		}
		name := filepath.Join(dir, fmt.Sprintf("d%d", i%7), fmt.Sprintf("file-%d", i))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// makeExt is an image of size bytes with a filesystem made by mke2fs with the
// options, with the tree dir in it and holes in its space.
func makeExt(t testing.TB, size int64, dir string, options ...string) string {
	t.Helper()
	image := treetest.Image(t, size)
	args := append([]string{"-q", "-F", "-E", "lazy_itable_init=1", "-d", dir}, options...)
	treetest.Run(t, "mke2fs", append(args, image)...)
	var gone []string
	for i := 0; i < 60; i += 3 {
		gone = append(gone, fmt.Sprintf("rm /d%d/file-%d", i%7, i))
	}
	debugfs(t, image, gone...)
	return image
}

// debugfs runs commands that change the filesystem in image.
func debugfs(t testing.TB, image string, commands ...string) {
	t.Helper()
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte(strings.Join(commands, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	treetest.Run(t, "debugfs", "-w", "-f", script, image)
}

// used maps the image, which must be understood as one filesystem.
func used(t testing.TB, image string) (extent.Set, Region) {
	t.Helper()
	set, region := mapped(t, image)
	if region.Whole != "" || set.Empty() {
		t.Fatalf("%v", region)
	}
	return set, region
}

func mapped(t testing.TB, image string) (extent.Set, Region) {
	t.Helper()
	d := open(t, image)
	set, regions, err := Used(d.r, units.Bytes(d.size))
	if err != nil || len(regions) != 1 {
		t.Fatal(regions, err)
	}
	if whole := set.Equal(extent.Whole(d.size)); whole != (regions[0].Whole != "") {
		t.Fatalf("all is used: %v, but %v", whole, regions[0])
	}
	return set, regions[0]
}

// open is the image as the readers of filesystems take it.
func open(t testing.TB, image string) disk {
	t.Helper()
	f, err := os.Open(image)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return disk{f, st.Size()}
}

// contents is the bytes of a file. Changes to them stay in memory.
func contents(t testing.TB, path string) []byte {
	t.Helper()
	d := open(t, path)
	b, err := unix.Mmap(int(d.r.(*os.File).Fd()), 0, int(d.size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Munmap(b); err != nil {
			t.Error(err)
		}
	})
	return b
}

// sparseCopy is what a copy of the used bytes of image makes of a destination of
// zeros.
func sparseCopy(t testing.TB, image string, set extent.Set) string {
	t.Helper()
	src := open(t, image)
	dst := treetest.Image(t, src.size)
	out, err := os.OpenFile(dst, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	for r := range set.Chunks(1 << 20) {
		b, err := src.at(r.Off, int(r.Len))
		if err != nil {
			t.Fatal(err)
		}
		if len(bytes.TrimLeft(b, "\x00")) == 0 {
			continue
		}
		if _, err := out.WriteAt(b, r.Off); err != nil {
			t.Fatal(err)
		}
	}
	return dst
}

// poison writes into what is not used, at both ends of every gap and often
// between, so that whoever reads it stumbles.
func poison(t testing.TB, image string, set extent.Set) {
	t.Helper()
	f, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	garbage := bytes.Repeat([]byte{0xa5}, 4096)
	for r := range set.Complement(st.Size()).Chunks(256 << 10) {
		n := min(r.Len, int64(len(garbage)))
		for _, off := range []int64{r.Off, r.End() - n} {
			if _, err := f.WriteAt(garbage[:n], off); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// duplicate is a sparse copy of a whole image.
func duplicate(t testing.TB, image string) string {
	t.Helper()
	return sparseCopy(t, image, extent.Whole(open(t, image).size))
}

// change applies f to the bytes of an image in memory and maps the result.
func change(t testing.TB, image string, f func(b []byte)) Region {
	t.Helper()
	b := contents(t, image)
	f(b)
	_, regions, err := Used(bytes.NewReader(b), units.Bytes(len(b)))
	if err != nil || len(regions) != 1 {
		t.Fatal(regions, err)
	}
	return regions[0]
}
