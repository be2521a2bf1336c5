package md

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"xenlvm/lib/run"
	"xenlvm/lib/units"
)

// The kernel of a machine that builds this seldom has md: these run in the lab,
// in the scenario test/lab/scenarios/md.sh.
func needLab(t *testing.T) {
	t.Helper()
	if os.Getenv("XENLVM_LAB") != "1" {
		t.Skip("needs md: run by the scenario test/lab/scenarios/md.sh, with XENLVM_LAB=1")
	}
}

const testSize = 64 << 20

func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	res, err := run.Host{}.Run(context.Background(), run.Cmd{Name: name, Args: args})
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(res.Stdout))
}

// device is a loop device over a file that content fills.
func device(t *testing.T, content []byte) (path, file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	path = command(t, "losetup", "--find", "--show", "--direct-io=on", file)
	t.Cleanup(func() { command(t, "losetup", "--detach", path) })
	return path, file
}

func random(t *testing.T, n int) []byte {
	t.Helper()
	b := make([]byte, n)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	return b
}

// array is a degraded array over a device.
func array(t *testing.T, first string) Array {
	t.Helper()
	name := strings.ReplaceAll(t.Name(), "/", "-")
	do(t, Build(name, first))
	t.Cleanup(func() { do(t, run.Cmd{Name: "mdadm", Args: []string{"--stop", "/dev/md/" + name}}) })
	a, found, err := Over(filepath.Base(first))
	if err != nil || !found {
		t.Fatalf("Over(%s): %v, %v", first, found, err)
	}
	if a.Size != testSize {
		t.Fatalf("size %d, want %d", a.Size, testSize)
	}
	do(t, a.ReadWrite())
	return a
}

func do(t *testing.T, c run.Cmd) {
	t.Helper()
	command(t, c.Name, c.Args...)
}

// settle waits until the array does nothing, and returns its status.
func settle(t *testing.T, a Array) Status {
	t.Helper()
	for range 600 {
		s, err := a.Status()
		if err != nil {
			t.Fatal(err)
		}
		if s.Action == "idle" {
			return s
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatal("the array does not come to rest")
	return Status{}
}

// written is how many bytes were written to a device so far.
func written(t *testing.T, path string) int64 {
	t.Helper()
	b, err := os.ReadFile("/sys/block/" + filepath.Base(path) + "/stat")
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseInt(strings.Fields(string(b))[6], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n * 512
}

func write(t *testing.T, path string, off int64, b []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_SYNC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(b, off); err != nil {
		t.Fatal(err)
	}
}

func equal(t *testing.T, a, b string) {
	t.Helper()
	x, err1 := os.ReadFile(a)
	y, err2 := os.ReadFile(b)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(x, y) {
		t.Errorf("%s and %s differ", a, b)
	}
}

// synced says whether two members are in sync.
func synced(s Status) bool {
	return len(s.Members) == 2 && s.Members[0].InSync() && s.Members[1].InSync()
}

func TestMirror(t *testing.T) {
	needLab(t)
	first, image := device(t, random(t, testSize))
	second, copied := device(t, make([]byte, testSize))
	if _, found, err := Over(filepath.Base(first)); found || err != nil {
		t.Fatalf("an array before there is one: %v, %v", found, err)
	}
	a := array(t, first)
	s, err := a.Status()
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Members) != 1 || s.Members[0].Node != first || !s.Members[0].InSync() || synced(s) || s.ReadOnly {
		t.Fatalf("degraded: %+v", s)
	}
	if err := a.Limit(8 << 20); err != nil {
		t.Fatal(err)
	}
	do(t, a.Add(second))
	seen := false
	for range 100 {
		s, err = a.Status()
		if err != nil {
			t.Fatal(err)
		}
		if s.Action == "recover" && s.Total == testSize {
			seen = true
			if s.Least != 1000<<10 || s.Most != 8<<20 {
				t.Errorf("between %d and %d bytes a second, want 1000 KiB and 8 MiB", s.Least, s.Most)
			}
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if !seen || synced(s) || len(s.Members) != 2 || s.Members[1].Node != second || s.Members[1].InSync() {
		t.Fatalf("recovering: %+v", s)
	}
	if err := a.Limit(0); err != nil {
		t.Fatal(err)
	}
	if s = settle(t, a); !synced(s) {
		t.Fatalf("synced: %+v", s)
	}
	write(t, a.Path, 12345678/4096*4096, random(t, 1<<20))
	if err := a.Check(); err != nil {
		t.Fatal(err)
	}
	settle(t, a)
	if differ, err := a.Checked(); differ != 0 || err != nil {
		t.Errorf("%d bytes differ, %v", differ, err)
	}
	equal(t, image, copied)
	// What changes behind its back is found.
	write(t, copied, 32<<20, random(t, 4096))
	if err := a.Check(); err != nil {
		t.Fatal(err)
	}
	settle(t, a)
	if differ, err := a.Checked(); differ == 0 || err != nil {
		t.Errorf("a difference was not found: %v", err)
	}
	do(t, a.Drop(second))
	if s, err = a.Status(); err != nil || len(s.Members) != 1 || synced(s) {
		t.Errorf("dropped: %+v, %v", s, err)
	}
}

// With a bitmap, what was equal before is not copied again.
func TestAddKnown(t *testing.T) {
	needLab(t)
	content := random(t, testSize)
	first, image := device(t, content)
	second, copied := device(t, content)
	a := array(t, first)
	const chunk = 64 << 10
	if err := a.StartBitmap(filepath.Join(t.TempDir(), "bitmap"), chunk); err != nil {
		t.Fatal(err)
	}
	for _, off := range []int64{0, 10 << 20, 33<<20 + 4096, testSize - 4096} {
		write(t, a.Path, off, random(t, 4096))
	}
	before := written(t, second)
	if err := a.AddKnown(second); err != nil {
		t.Fatal(err)
	}
	if s := settle(t, a); !synced(s) {
		t.Fatalf("synced: %+v", s)
	}
	recovered := units.Bytes(written(t, second) - before)
	t.Logf("recovered %d bytes for 4 writes of 4096 in chunks of %d", recovered, chunk)
	if recovered == 0 || recovered > 4*chunk {
		t.Errorf("recovered %d bytes, want at most %d", recovered, 4*chunk)
	}
	equal(t, image, copied)
	write(t, a.Path, 1<<20, random(t, 4096))
	equal(t, image, copied)
}

// The partitions of a guest do not stay devices of this host.
func TestDropPartitions(t *testing.T) {
	needLab(t)
	content := make([]byte, testSize)
	for i := range 2 { // a DOS table: two partitions of type 83 with 16 MiB each
		entry := content[446+16*i:]
		entry[4] = 0x83
		binary.LittleEndian.PutUint32(entry[8:], uint32(2048+i*32768))
		binary.LittleEndian.PutUint32(entry[12:], 32768)
	}
	content[510], content[511] = 0x55, 0xaa
	first, _ := device(t, content)
	a := array(t, first)
	partitions := func() int {
		f, err := os.Open(a.Path) // as whoever makes the kernel look
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		found, err := filepath.Glob(a.block("*/partition"))
		if err != nil {
			t.Fatal(err)
		}
		return len(found)
	}
	if n := partitions(); n != 2 {
		t.Fatalf("%d partitions before, want 2", n)
	}
	if err := a.DropPartitions(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := partitions(); n != 0 {
		t.Errorf("%d partitions are left", n)
	}
	if err := a.DropPartitions(t.Context()); err != nil {
		t.Errorf("again: %v", err)
	}
}
