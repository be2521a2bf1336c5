package journal

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"xenlvm/lib/fault"
)

func open(t *testing.T) *Journal {
	t.Helper()
	j, err := Open(t.TempDir(), "vm3", "test")
	if err != nil {
		t.Fatal(err)
	}
	j.Locks = filepath.Join(t.TempDir(), "lock")
	return j
}

func add(t *testing.T, j *Journal, kind, text string) {
	t.Helper()
	if err := j.Append(kind, text); err != nil {
		t.Fatal(err)
	}
}

func texts(t *testing.T, j *Journal) string {
	t.Helper()
	records, err := j.Read()
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, r := range records {
		var s string
		if err := json.Unmarshal(r.Data, &s); err != nil {
			t.Fatal(err)
		}
		all = append(all, r.Kind+"="+s)
	}
	return strings.Join(all, " ")
}

func TestAppendAndRead(t *testing.T) {
	j := open(t)
	if got := texts(t, j); got != "" {
		t.Errorf("an absent journal reads %q", got)
	}
	add(t, j, "a", "1")
	add(t, j, "b", "2<>&\u2028")
	add(t, j, "a", "3")
	if got, want := texts(t, j), "a=1 b=2<>&\u2028 a=3"; got != want {
		t.Errorf("read %q; want %q", got, want)
	}
	records, _ := j.Read()
	if r, ok := Last(records, "a", nil); !ok || string(r.Data) != `"3"` {
		t.Errorf("Last = %v, %v", r, ok)
	}
	if _, ok := Last(records, "c", nil); ok {
		t.Error("found a kind that is not there")
	}
	if info, err := os.Stat(j.Path(fileName)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

// Every prefix of the file is a crash: whole lines are kept, the torn one is
// not, and the next record lands behind the whole ones.
func TestTornAtEveryByte(t *testing.T) {
	j := open(t)
	add(t, j, "a", "1")
	first, _ := os.ReadFile(j.Path(fileName))
	add(t, j, "b", "2")
	all, _ := os.ReadFile(j.Path(fileName))
	for n := range all {
		if err := os.WriteFile(j.Path(fileName), all[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		want := ""
		if n >= len(first) {
			want = "a=1"
		}
		if got := texts(t, j); got != want {
			t.Fatalf("cut at %d: read %q; want %q", n, got, want)
		}
		add(t, j, "c", "3")
		if got := texts(t, j); got != strings.TrimSpace(want+" c=3") {
			t.Fatalf("cut at %d, then appended: read %q", n, got)
		}
	}
}

func TestDamageIsReported(t *testing.T) {
	j := open(t)
	add(t, j, "a", "1")
	add(t, j, "b", "2")
	all, _ := os.ReadFile(j.Path(fileName))
	for n := range all {
		flipped := append([]byte(nil), all...)
		flipped[n] ^= 1
		if err := os.WriteFile(j.Path(fileName), flipped, 0o600); err != nil {
			t.Fatal(err)
		}
		records, err := j.Read()
		// The newline of the last line makes it torn; everything else is damage.
		if n == len(all)-1 {
			if err != nil || len(records) != 1 {
				t.Errorf("last newline flipped: %d records, %v", len(records), err)
			}
			continue
		}
		if err == nil {
			t.Errorf("byte %d (%q) flipped: not noticed", n, all[n])
		} else if fault.StatusOf(err) != fault.Refused {
			t.Errorf("byte %d: status of %v", n, err)
		}
	}
}

func TestNewerVersionIsRefused(t *testing.T) {
	j := open(t)
	add(t, j, "a", "1")
	all, _ := os.ReadFile(j.Path(fileName))
	newer := strings.Replace(string(all), `"v":1`, `"v":2`, 1)
	if err := os.WriteFile(j.Path(fileName), []byte(newer), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := j.Read(); err == nil || !strings.Contains(err.Error(), "newer version") {
		t.Errorf("error = %v", err)
	}
}

func TestLock(t *testing.T) {
	j := open(t)
	release, err := j.Lock()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := j.Lock(); fault.StatusOf(err) != fault.Refused || !strings.Contains(err.Error(), "test, process ") {
		t.Errorf("second lock: %v", err)
	}
	release()
	release, err = j.Lock()
	if err != nil {
		t.Fatalf("after release: %v", err)
	}
	release()
}

// Who has a domain is told without taking it, and nobody has it once he is gone.
func TestHolder(t *testing.T) {
	j := open(t)
	if h, err := j.Holder(); h != nil || err != nil {
		t.Errorf("before any run: %v, %v", h, err)
	}
	release, err := j.Lock()
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if h, err := j.Holder(); err != nil || h == nil || *h != (Holder{"test", os.Getpid()}) {
			t.Errorf("while it is held: %v, %v", h, err)
		}
	}
	release()
	if h, err := j.Holder(); h != nil || err != nil {
		t.Errorf("after it was released: %v, %v", h, err)
	}
}

func TestHolderInLocks(t *testing.T) {
	st := unix.Stat_t{Dev: unix.Mkdev(0, 0x19), Ino: 1042}
	for _, tt := range []struct {
		locks, said string
		want        *Holder
	}{
		{"1: FLOCK  ADVISORY  WRITE 4711 00:19:1042 0 EOF\n", "imgconv, process 4711\n", &Holder{"imgconv", 4711}},
		{"1: FLOCK  ADVISORY  WRITE 4711 00:2a:1042 0 EOF\n", "imgconv, process 4711\n", &Holder{"imgconv", 4711}},
		{"1: FLOCK  ADVISORY  WRITE 4711 00:19:1042 0 EOF\n", "imgconv, process 12\n", &Holder{PID: 4711}},
		{"1: FLOCK  ADVISORY  WRITE 4711 00:2a:1042 0 EOF\n", "imgconv, process 12\n", nil},
		{"1: FLOCK  ADVISORY  WRITE 4711 00:19:11042 0 EOF\n", "imgconv, process 4711\n", nil},
		{"1: POSIX  ADVISORY  WRITE 4711 00:19:1042 0 EOF\n", "imgconv, process 4711\n", nil},
		{"1: FLOCK\n\n1: -> FLOCK  ADVISORY  WRITE 4711 00:19:1042 0 EOF\n", "", nil},
	} {
		got := holder(tt.locks, tt.said, &st)
		if (got == nil) != (tt.want == nil) || got != nil && *got != *tt.want {
			t.Errorf("%q, %q: %v; want %v", tt.locks, tt.said, got, tt.want)
		}
	}
}

// Two runs see each other wherever each keeps its journal.
func TestLockBelongsToTheMachine(t *testing.T) {
	var all []*Journal
	for _, name := range []string{"vm3", "vm3", "vm4"} {
		j, err := Open(t.TempDir(), name, "test")
		if err != nil {
			t.Fatal(err)
		}
		if j.Locks != "/run/xenlvm/lock" {
			t.Errorf("the lock is in %s", j.Locks)
		}
		all = append(all, j)
	}
	dir := t.TempDir()
	for _, j := range all {
		j.Locks = dir
	}
	release, err := all[0].Lock()
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	if _, err := all[1].Lock(); fault.StatusOf(err) != fault.Refused {
		t.Errorf("the same domain, another journal: %v", err)
	}
	other, err := all[2].Lock()
	if err != nil {
		t.Fatalf("another domain: %v", err)
	}
	other()
}

func TestNamesThatAreNoDirectory(t *testing.T) {
	for _, name := range []string{"", ".", "..", "a/b", "a\nb", "a\x00b"} {
		if _, err := Open(t.TempDir(), name, "test"); err == nil {
			t.Errorf("Open(%q) was accepted", name)
		}
	}
}

// JSON cannot hold them: another file would be named.
func TestNamesThatAreNoUTF8(t *testing.T) {
	j := open(t)
	for _, name := range []string{"/srv/\xff.img", "\xff", "/srv/\\\xff"} {
		if err := j.Append("a", Mirror{Source: name}); fault.StatusOf(err) != fault.Refused {
			t.Errorf("%q: %v; want a refusal", name, err)
		}
	}
	if _, err := os.Stat(j.Dir); err == nil {
		t.Error("something was written")
	}
	for _, name := range []string{"/srv/\ufffd.img", `/srv/\ufffd.img`, `/srv/\\ufffd.img`, "/srv/\u00e9<>&.img"} {
		add(t, j, "a", name)
		records, err := j.Read()
		if err != nil {
			t.Fatal(err)
		}
		var got string
		if err := json.Unmarshal(records[len(records)-1].Data, &got); err != nil || got != name {
			t.Errorf("%q became %q, %v", name, got, err)
		}
	}
}

// A FIFO would hang whoever reads it.
func TestNoRegularFile(t *testing.T) {
	for what, place := range map[string]func(string) error{
		"FIFO":        func(path string) error { return unix.Mkfifo(path, 0o600) },
		"directory":   func(path string) error { return os.Mkdir(path, 0o700) },
		"device node": func(path string) error { return os.Symlink("/dev/zero", path) },
	} {
		j := open(t)
		if err := errors.Join(j.MakeDir(), place(j.Path(fileName))); err != nil {
			t.Fatal(err)
		}
		if records, err := j.Read(); err == nil {
			t.Errorf("%s: read %d records", what, len(records))
		}
		if err := j.Append("a", "1"); err == nil {
			t.Errorf("%s: appended to", what)
		}
	}
	j := open(t)
	if err := errors.Join(j.MakeDir(), unix.Mkfifo(j.Path(fileName), 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := j.Read(); fault.StatusOf(err) != fault.Refused || len(fault.Hints(err)) != 1 {
		t.Errorf("%v; want a refusal with a hint", err)
	}
}

func TestDirectoryThatIsNone(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range [][2]string{{file, "vm3"}, {file + "/below", "vm3"}, {dir, "file"}} {
		if _, err := Open(tt[0], tt[1], "test"); fault.StatusOf(err) != fault.Refused || len(fault.Hints(err)) != 1 {
			t.Errorf("Open(%s, %s): %v; want a refusal with a hint", tt[0], tt[1], err)
		}
	}
	if _, err := All(file, "test"); fault.StatusOf(err) != fault.Refused {
		t.Errorf("All: %v", err)
	}
}

func TestAll(t *testing.T) {
	dir := t.TempDir()
	if all, err := All(filepath.Join(dir, "none"), "test"); len(all) != 0 || err != nil {
		t.Errorf("a directory that is missing: %v, %v", all, err)
	}
	elsewhere := t.TempDir()
	err := errors.Join(os.Mkdir(filepath.Join(dir, "vm3"), 0o700), os.Symlink(elsewhere, filepath.Join(dir, "vm4")),
		os.WriteFile(filepath.Join(dir, "notes"), nil, 0o600), unix.Mkfifo(filepath.Join(dir, "pipe"), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	all, err := All(dir, "test")
	var names []string
	for _, j := range all {
		names = append(names, j.Domain)
	}
	if want := []string{"vm3", "vm4"}; !slices.Equal(names, want) || err != nil {
		t.Errorf("All = %q, %v; want %q", names, err, want)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"v":1,"time":"2026-01-01T00:00:00Z","boot":"x","tool":"t","kind":"k","data":{},"crc":1}`))
	f.Add([]byte(`{"v":9}`))
	f.Add([]byte(``))
	f.Fuzz(func(t *testing.T, line []byte) {
		if r, err := decode(line); err == nil {
			if want, _ := r.sum(); want != r.Sum {
				t.Errorf("accepted a wrong checksum in %q", line)
			}
		}
	})
}
