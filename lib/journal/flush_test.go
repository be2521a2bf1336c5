package journal

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"xenlvm/lib/atomicfile"
)

// diskSize is as much as mkfs.ext4 gives a journal.
const diskSize = 16 << 20

// TestLabEveryFlush writes records and configurations onto a disk that dm-log-writes
// records, and looks at what the disk may hold after a power cut: all that was written
// up to some flush, and any of what was written since. It needs device-mapper: run by
// the scenario test/lab/scenarios/storage-faults.sh, with XENLVM_LAB=1.
func TestLabEveryFlush(t *testing.T) {
	if os.Getenv("XENLVM_LAB") != "1" {
		t.Skip("needs device-mapper: run by the scenario storage-faults, with XENLVM_LAB=1")
	}
	dir := t.TempDir()
	data, log := filepath.Join(dir, "data"), filepath.Join(dir, "log")
	for file, size := range map[string]int64{data: diskSize, log: 8 * diskSize} {
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(file, size); err != nil {
			t.Fatal(err)
		}
	}
	program(t, "mkfs.ext4", "-q", data)
	disk, err := os.ReadFile(data)
	if err != nil {
		t.Fatal(err)
	}
	const name, moves = "xenlvm-flush", 6
	logged(t, name, data, log, func(point string) {
		config, j := files(t, point)
		if err := atomicfile.Create(config, content(0)); err != nil {
			t.Fatal(err)
		}
		program(t, "dmsetup", "message", name, "0", "mark", "0")
		for n := 1; n <= moves; n++ {
			add(t, j, "n", fmt.Sprint(n))
			f, err := atomicfile.Read(config, 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			if err := f.Replace(content(n)); err != nil {
				t.Fatal(err)
			}
			program(t, "dmsetup", "message", name, "0", "mark", fmt.Sprint(n))
		}
	})
	f, err := os.Open(log)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	entries, err := readLog(f)
	if err != nil {
		t.Fatal(err)
	}
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	states, marked := 0, -1
	crashed := func(disk []byte) {
		if marked < 0 {
			return
		}
		states++
		if err := os.WriteFile(data, disk, 0o600); err != nil {
			t.Fatal(err)
		}
		mounted(t, data, func(point string) { check(t, point, marked) })
		if t.Failed() {
			t.Fatalf("state %d, behind move %d, seed %d", states, marked, seed)
		}
	}
	var pending []entry // since the last flush
	for _, e := range entries {
		if e.flags&entryMark != 0 {
			marked++
			continue
		}
		if e.flags&(entryFlush|entryFUA) == 0 {
			pending = append(pending, e)
			continue
		}
		some := bytes.Clone(disk)
		for _, p := range pending {
			if r.IntN(2) == 0 {
				p.apply(some)
			}
		}
		crashed(some)
		// A flush is done before the data that come with it are written.
		for _, p := range append(pending, e) {
			p.apply(disk)
		}
		pending = nil
		crashed(disk)
	}
	// The last mark is that of dm-log-writes itself, when it was removed.
	if marked != moves+1 || states < 4*moves {
		t.Fatalf("%d marks are in the log, %d states; want %d moves and some flushes in each", marked, states, moves)
	}
	t.Logf("%d states", states)
}

// content is configuration number n, of more than one block.
func content(n int) []byte { return bytes.Repeat(fmt.Appendf(nil, "disk %4d\n", n), 1000) }

func files(t *testing.T, point string) (config string, j *Journal) {
	t.Helper()
	j, err := Open(filepath.Join(point, "state"), "vm3", "test")
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(point, "vm3.cfg"), j
}

// check looks at a file system after a power cut behind move n.
func check(t *testing.T, point string, n int) {
	t.Helper()
	config, j := files(t, point)
	got, err := os.ReadFile(config)
	if err != nil || !bytes.Equal(got, content(n)) && !bytes.Equal(got, content(n+1)) {
		t.Errorf("the configuration has %d bytes, %v: neither that of before nor the new one", len(got), err)
	}
	want := make([]string, n)
	for i := range want {
		want[i] = fmt.Sprintf("n=%d", i+1)
	}
	all := texts(t, j)
	if next := append(want, fmt.Sprintf("n=%d", n+1)); all != strings.Join(want, " ") && all != strings.Join(next, " ") {
		t.Errorf("the journal reads %q", all)
	}
}

// mounted does something in the file system in a file.
func mounted(t *testing.T, device string, do func(point string)) {
	t.Helper()
	point := t.TempDir()
	program(t, "mount", device, point)
	defer program(t, "umount", point)
	do(point)
}

// logged does something in the file system in data, while all that reaches the disk
// is written to log as well.
func logged(t *testing.T, name, data, log string, do func(point string)) {
	t.Helper()
	var loops []string
	for _, file := range []string{data, log} {
		loop := program(t, "losetup", "--find", "--show", file)
		loops = append(loops, loop)
		defer program(t, "losetup", "--detach", loop)
	}
	program(t, "dmsetup", "create", name, "--table", fmt.Sprintf("0 %d log-writes %s %s", diskSize/512, loops[0], loops[1]))
	defer program(t, "dmsetup", "remove", "--retry", name)
	mounted(t, "/dev/mapper/"+name, do)
}

func program(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// The flags of an entry (drivers/md/dm-log-writes.c).
const (
	entryFlush = 1 << iota
	entryFUA
	entryDiscard
	entryMark
)

// entry is one request, or a mark. Offsets are in bytes.
type entry struct {
	at    int64
	flags uint64
	data  []byte
}

func (e entry) apply(disk []byte) { copy(disk[e.at:], e.data) }

// readLog reads what dm-log-writes has written: a sector with its superblock, then for
// each entry a sector and its data.
func readLog(f *os.File) ([]entry, error) {
	var super struct {
		Magic, Version, Entries uint64
		Sector                  uint32
	}
	head := make([]byte, 512)
	read := func(at int64, into any) error {
		if _, err := f.ReadAt(head, at); err != nil {
			return err
		}
		_, err := binary.Decode(head, binary.LittleEndian, into)
		return err
	}
	if err := read(0, &super); err != nil {
		return nil, err
	}
	if super.Magic != 0x6a736677736872 || super.Sector < 512 {
		return nil, fmt.Errorf("no log: magic %#x, sectors of %d", super.Magic, super.Sector)
	}
	var all []entry
	at := int64(super.Sector)
	for range super.Entries {
		var e struct{ Sector, Sectors, Flags, Length uint64 }
		if err := read(at, &e); err != nil {
			return nil, err
		}
		at += int64(super.Sector)
		one := entry{at: int64(e.Sector) * int64(super.Sector), flags: e.Flags}
		length := int64(e.Sectors) * int64(super.Sector)
		if e.Flags&entryDiscard != 0 {
			one.data = make([]byte, length)
			length = 0
		} else {
			one.data = make([]byte, length)
			if _, err := f.ReadAt(one.data, at); err != nil {
				return nil, err
			}
		}
		at += length
		all = append(all, one)
	}
	return all, nil
}
