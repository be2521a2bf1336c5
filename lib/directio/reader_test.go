package directio

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// fresh is a file of size bytes of which nothing is in memory, and those bytes.
func fresh(t *testing.T, size int) (*os.File, []byte) {
	t.Helper()
	want := make([]byte, size)
	rand.NewChaCha8([32]byte{1}).Read(want)
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if _, err := f.Write(want); err != nil {
		t.Fatal(err)
	}
	if err := Forget(f); err != nil {
		t.Fatal(err)
	}
	return f, want
}

func reader(t *testing.T, f *os.File, size int, mode Mode) *Reader {
	t.Helper()
	r, err := NewReader(f, int64(size), mode)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// resident is how many of the first size bytes of f are in memory.
func resident(t *testing.T, f *os.File, size int) (n int) {
	t.Helper()
	var p residency
	p.open(f, int64(size))
	defer p.close()
	if p.m == nil {
		t.Fatal("cannot map the file")
	}
	for off := 0; off < size; off += p.page {
		if p.mostly(int64(off), p.page) {
			n += p.page
		}
	}
	return n
}

// fromDisk is how many bytes this process has had to read from disks.
func fromDisk(t *testing.T) (n int64) {
	t.Helper()
	text, err := os.ReadFile("/proc/self/io")
	if err != nil {
		t.Skip(err) // a kernel that does not count
	}
	_, after, _ := strings.Cut(string(text), "\nread_bytes: ")
	if _, err := fmt.Sscan(after, &n); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return n
}

// In every mode the bytes are right, aligned or not, to the end and not beyond.
func TestReader(t *testing.T) {
	const size = 1<<20 + 1234
	for _, mode := range []Mode{Auto, On, Off} {
		f, want := fresh(t, size)
		if mode == On && Reopen(f, os.O_RDONLY) == nil {
			t.Skip("no O_DIRECT in " + t.TempDir())
		}
		r := reader(t, f, size, mode)
		for _, at := range [][2]int{{0, 65536}, {4096, 8192}, {1, 100}, {1 << 20, 1234}, {512 << 10, 512<<10 + 1234}} {
			b := Buffer(at[1])
			if n, err := r.ReadAt(b, int64(at[0])); n != len(b) || !bytes.Equal(b, want[at[0]:at[0]+at[1]]) {
				t.Errorf("%v: %v: %d bytes, %v", mode, at, n, err)
			}
		}
		if n, err := r.ReadAt(Buffer(4096), size-10); n != 10 || err == nil {
			t.Errorf("%v: behind the end: %d bytes, %v", mode, n, err)
		}
	}
}

// What is not in memory is not brought there, and what is is not read again.
func TestAutoReadsFromMemoryWhatIsThere(t *testing.T) {
	const size = 4 << 20
	f, want := fresh(t, size)
	if d := Reopen(f, os.O_RDONLY); d == nil {
		t.Skip("no O_DIRECT in " + t.TempDir())
	} else {
		d.Close()
	}
	if resident(t, f, size) > 0 {
		t.Skip("this file system keeps its files in memory")
	}
	b := Buffer(1 << 20)
	remember(t, f, 2<<20, b)
	before := resident(t, f, size)
	auto := reader(t, f, size, Auto)
	for off := int64(0); off < size; off += 1 << 20 {
		if fromMemory := auto.pages.mostly(off, len(b)); fromMemory != (off == 2<<20) {
			t.Errorf("the MiB at %d: in memory %v", off, fromMemory)
		}
		disk := fromDisk(t)
		if _, err := auto.ReadAt(b, off); err != nil || !bytes.Equal(b, want[off:off+1<<20]) {
			t.Fatalf("%d: %v", off, err)
		}
		if n := fromDisk(t) - disk; (n == 0) != (off == 2<<20) {
			t.Errorf("the MiB at %d: %d bytes from the disk", off, n)
		}
	}
	if after := resident(t, f, size); after != before {
		t.Errorf("%d bytes in memory, %d before", after, before)
	}
	if _, err := reader(t, f, size, Off).ReadAt(b, 0); err != nil || resident(t, f, size) <= before {
		t.Errorf("off went past the page cache: %v", err)
	}
}

// remember brings len(b) bytes of f into memory, and none behind them.
func remember(t *testing.T, f *os.File, off int64, b []byte) {
	t.Helper()
	g, err := os.Open(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	if err := unix.Fadvise(int(g.Fd()), 0, 0, unix.FADV_RANDOM); err != nil {
		t.Fatal(err)
	}
	if _, err := g.ReadAt(b, off); err != nil {
		t.Fatal(err)
	}
}

// A request that is mostly in memory brings the rest of itself there, no more.
func TestAutoDoesNotReadAhead(t *testing.T) {
	const size = 4 << 20
	f, _ := fresh(t, size)
	b := Buffer(1 << 20)
	remember(t, f, 0, b[:640<<10])
	if n := resident(t, f, size); n != 640<<10 {
		t.Skipf("%d bytes are in memory", n)
	}
	if _, err := reader(t, f, size, Auto).ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	if n := resident(t, f, size); n > 1<<20 {
		t.Errorf("%d bytes are in memory after a request of 1 MiB", n)
	}
}

func TestOnWhereItCannot(t *testing.T) {
	f, err := os.Open("/proc/version")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if r, err := NewReader(f, 100, On); err == nil {
		r.Close()
		t.Error("nobody noticed")
	}
	b := make([]byte, 10)
	if n, err := reader(t, f, 100, Auto).ReadAt(b, 0); n != 10 {
		t.Errorf("auto does not fall back: %d bytes, %v", n, err)
	}
}

// The mapping is never touched: a file that shrinks under it does no harm.
func TestTruncatedMeanwhile(t *testing.T) {
	const size = 1 << 20
	f, _ := fresh(t, size)
	r := reader(t, f, size, Auto)
	if err := f.Truncate(0); err != nil {
		t.Fatal(err)
	}
	if n, err := r.ReadAt(Buffer(65536), size-65536); n != 0 || err == nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	if r.pages.mostly(2*size, 4096) {
		t.Error("what is behind the end is in memory")
	}
}

func TestMode(t *testing.T) {
	for _, want := range []Mode{Auto, On, Off} {
		var got Mode
		if err := got.Set(want.String()); err != nil || got != want {
			t.Errorf("%v: %v, %v", want, got, err)
		}
	}
	if err := new(Mode).Set("yes"); err == nil {
		t.Error("an unknown mode was taken")
	}
}
