package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParseScenario(t *testing.T) {
	s, err := parseScenario("#!/bin/bash\n# shows a thing\n# lab: vg=12G,512M time=90 xen=no\n# lab: mem=3G boots=2 gotest=./lib/a,./lib/b\n\n# lab: time=7\n")
	if err != nil {
		t.Fatal(err)
	}
	if s.about != "shows a thing" || s.xen || s.limit != 90*time.Second || s.mem != "3G" || s.boots != 2 || s.dom0Mem != defaults().dom0Mem ||
		!slices.Equal(s.vg, []string{"12G", "512M"}) || !slices.Equal(s.gotest, []string{"./lib/a", "./lib/b"}) {
		t.Errorf("got %+v", s)
	}
}

func TestParseScenarioRefuses(t *testing.T) {
	for _, header := range []string{
		"", "lab: time=9", // no word about itself
		"x\n# lab: tim=9", "x\n# lab: time=0", "x\n# lab: time=soon", "x\n# lab: boots=0", "x\n# lab: vg=12", "x\n# lab: vg=1G,", "x\n# lab: xen=maybe", "x\n# lab: mem=3GB", "x\n# lab: suites=trixie:often",
	} {
		if s, err := parseScenario("#!/bin/sh\n# " + header + "\n"); err == nil {
			t.Errorf("%q: accepted as %+v", header, s)
		}
	}
}

// Every scenario of the checkout must be readable, whoever wrote it last.
func TestScenarios(t *testing.T) {
	l := &lab{root: "../.."}
	var out strings.Builder
	if err := l.list(&out); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "smoke ") {
		t.Errorf("no smoke in\n%s", out.String())
	}
}

func TestParseFlagsAnywhere(t *testing.T) {
	opt, words, rest, err := parse([]string{"smoke", "--suite", "trixie", "--gotest=./a", "--gotest", "./b", "--", "--live", "-x"})
	if err != nil {
		t.Fatal(err)
	}
	if opt.suite != "trixie" || !slices.Equal(opt.gotest, []string{"./a", "./b"}) || !slices.Equal(words, []string{"smoke"}) ||
		!slices.Equal(rest, []string{"--live", "-x"}) {
		t.Errorf("got %+v, %q, %q", opt, words, rest)
	}
	if _, _, _, err := parse([]string{"smoke", "--siute", "x"}); !errors.Is(err, errUsage) {
		t.Errorf("an unknown flag: got %v, want a usage error", err)
	}
}

func TestRecipeKey(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range suites {
		seen[s.key()] = true
		s.xen += "x"
		seen[s.key()] = true
	}
	if len(seen) != 2*len(suites) {
		t.Errorf("two recipes share a key: %v", seen)
	}
}

func TestMirror(t *testing.T) {
	const main = "Debian\toldstable\tbookworm\thttp://mirror.example/debian/\n"
	for _, c := range []struct{ name, targets, want string }{
		{"main", main, "http://mirror.example/debian/"},
		{"not the updates, not the security archive",
			"Debian\toldstable-updates\tbookworm-updates\thttp://a.example/\nDebian\toldstable-security\tbookworm-security\thttp://b.example/\n" + main,
			"http://mirror.example/debian/"},
		{"not another vendor", "Ubuntu\tnoble\tnoble\thttp://u.example/\n", ""},
		{"not what debootstrap cannot read", "Debian\tstable\ttrixie\tmirror+file:/etc/apt/mirrors\n", ""},
		{"nothing", "", ""},
	} {
		if got := mirrorIn(c.targets); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

func TestLoadOrder(t *testing.T) {
	const dep = "kernel/fs/ext4/ext4.ko.xz: kernel/fs/mbcache.ko.xz kernel/fs/jbd2.ko.xz kernel/lib/crc16.ko.xz\n" +
		"kernel/lib/crc16.ko.xz:\nkernel/drivers/xen-blkfront.ko.xz:\nkernel/fs/jbd2.ko.xz: kernel/lib/crc16.ko.xz\n"
	got, err := loadOrder(dep, "kernel/crypto/crc32c_generic.ko\n", []string{"crc32c_generic", "ext4", "xen-blkfront"})
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 5 {
		t.Errorf("got %q, want ext4 and the three it needs, and xen-blkfront", got)
	}
	for i, p := range got {
		for line := range strings.Lines(dep) {
			path, needs, _ := strings.Cut(strings.TrimSpace(line), ":")
			if path != p {
				continue
			}
			for need := range strings.FieldsSeq(needs) {
				if at := slices.Index(got, need); at < 0 || at > i {
					t.Errorf("%s comes before %s, which it needs: %q", p, need, got)
				}
			}
		}
	}
	if _, err := loadOrder(dep, "", []string{"xfs"}); err == nil {
		t.Error("a module that is not there was accepted")
	}
}

func TestConsole(t *testing.T) {
	var log, live strings.Builder
	c := newConsole(&log, &live, false)
	for _, piece := range []string{"boot\r\nnoise @lab@ re", "ady\r\n@lab@ | one\n@lab@ |   @lab@ done\n", "@lab@ done\nKernel pan", "ic"} {
		if _, err := c.Write([]byte(piece)); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if live.String() != "one\n  @lab@ done\n" {
		t.Errorf("live: got %q", live.String())
	}
	if first, second := <-c.events, <-c.events; first.kind != eventReady || second.kind != eventDone || len(c.events) != 0 {
		t.Errorf("got events %v, %v and %d more", first, second, len(c.events))
	}
	if !strings.HasSuffix(c.last(), "\nKernel panic") || strings.Count(log.String(), "\n") != 6 {
		t.Errorf("last: %q, log: %q", c.last(), log.String())
	}
}

// write makes a result folder from file names and texts.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestResult(t *testing.T) {
	for _, c := range []struct {
		name  string
		files map[string]string
		want  string
	}{
		{"ok", map[string]string{"status": "0\n", "leftovers": "", "fields": "pause\t1.50\nxen\u200bv\t4.17.5\nlive\ttrue\nqmp\tnull\n"},
			`{"ok":true,"scenario":"s","suite":"trixie","xen":false,"leftovers":0,"seconds":0,"boot_seconds":0,"live":true,"pause":1.50,"qmp":null,"xen` + "\u200b" + `v":"4.17.5"}`},
		{"a scenario that failed", map[string]string{"status": "3\n", "leftovers": ""},
			`{"ok":false,"scenario":"s","suite":"trixie","xen":false,"leftovers":0,"seconds":0,"boot_seconds":0,"error":"the scenario ended with exit status 3"}`},
		{"leftovers", map[string]string{"status": "0\n", "leftovers": "loop /a\nmd md127\n"},
			`{"ok":false,"scenario":"s","suite":"trixie","xen":false,"leftovers":2,"seconds":0,"boot_seconds":0,"error":"the scenario left something behind"}`},
		{"leftovers never looked for", map[string]string{"status": "0\n"},
			`{"ok":false,"scenario":"s","suite":"trixie","xen":false,"leftovers":null,"seconds":0,"boot_seconds":0,"error":"the scenario never looked for leftovers"}`},
	} {
		r := result{Scenario: "s", Suite: "trixie"}
		if err := r.read(write(t, c.files)); err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if got, err := r.line(); err != nil || got != c.want {
			t.Errorf("%s:\ngot  %s, %v\nwant %s", c.name, got, err, c.want)
		}
	}
}

func TestResultRefuses(t *testing.T) {
	for name, files := range map[string]map[string]string{
		"no status":        {"leftovers": ""},
		"no number":        {"status": "\n", "leftovers": ""},
		"the lab's own ok": {"status": "1\n", "leftovers": "", "fields": "ok\ttrue\n"},
		"no value":         {"status": "0\n", "leftovers": "", "fields": "pause\n"},
	} {
		r := result{}
		if err := r.read(write(t, files)); err == nil || r.OK {
			t.Errorf("%s: accepted as %+v", name, r)
		}
	}
}

func TestUntar(t *testing.T) {
	tmp := t.TempDir()
	disk := filepath.Join(tmp, "disk")
	f, err := os.Create(disk)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(f)
	for name, text := range map[string]string{"./status": "0\n", "./logs/dmesg": "x"} {
		if err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Size: int64(len(text)), Mode: 0o644}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, text); err != nil {
			t.Fatal(err)
		}
	}
	// A disk is longer than its tar.
	if err := errors.Join(w.Close(), f.Truncate(1<<20), f.Close()); err != nil {
		t.Fatal(err)
	}
	out := t.TempDir()
	if err := untar(disk, out); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(filepath.Join(out, "logs/dmesg")); err != nil || string(text) != "x" {
		t.Errorf("got %q, %v", text, err)
	}
}

func TestUntarStaysInside(t *testing.T) {
	tmp := t.TempDir()
	disk := filepath.Join(tmp, "disk")
	f, err := os.Create(disk)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(f)
	if err := w.WriteHeader(&tar.Header{Name: "../escaped", Typeflag: tar.TypeReg, Mode: 0o644}); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(tmp, "out")
	if err := os.Mkdir(out, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := untar(disk, out); err == nil || exists(filepath.Join(tmp, "escaped")) {
		t.Errorf("a file was written outside: %v", err)
	}
}

func TestSlots(t *testing.T) {
	t.Setenv("XENLVM_LAB_JOBS", "2")
	var said bytes.Buffer
	l := &lab{cache: t.TempDir(), stderr: &said}
	first, err := l.slot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	second, err := l.slot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer second()
	full, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.slot(full); !errors.Is(err, context.Canceled) {
		t.Errorf("a third lab: got %v, want it to wait", err)
	}
	if want := "waiting for one of the 2 labs on this host to end; XENLVM_LAB_JOBS"; !strings.Contains(said.String(), want) {
		t.Errorf("said %q; want %q", &said, want)
	}
	first()
	again, err := l.slot(full)
	if err != nil {
		t.Fatal(err)
	}
	again()
}

func TestShellEnv(t *testing.T) {
	text := shellEnv(map[string]string{"A": "it's $HOME\n`x`"}, []string{"--live", "two words"})
	out, err := exec.Command("sh", "-c", text+`printf '%s|%s|%s|%s' "$A" "$#" "$1" "$2"`).Output()
	if err != nil {
		t.Fatal(err)
	}
	if want := "it's $HOME\n`x`|2|--live|two words"; string(out) != want {
		t.Errorf("got %q, want %q", out, want)
	}
}

func TestMachine(t *testing.T) {
	m := machine{xen: true, dom0Mem: "1G", env: "LAB_BOOT=2", root: "/q", payload: "/tmp/a,b/p", result: "/r", disks: []string{"/d"}}
	argv := m.argv()
	for _, want := range []string{
		"file=/tmp/a,,b/p,format=raw,if=virtio,cache=unsafe,discard=unmap,readonly=on",
		"file=/q,format=qcow2,if=virtio,cache=unsafe,discard=unmap",
		linux + " console=hvc0 root=/dev/vda rw init=/lab-init panic=-1 quiet LAB_BOOT=2," + initrd,
		"console=com1 com1=115200,8n1 dom0_mem=1G,max:1G dom0_max_vcpus=1 spec-ctrl=eager-fpu",
	} {
		if !slices.Contains(argv, want) {
			t.Errorf("no %q in %q", want, argv)
		}
	}
}

// A machine that ends before its scenario begins is booted once more; one that
// ends in its scenario, or twice, is not.
func TestBootTwice(t *testing.T) {
	for _, c := range []struct {
		name, first, second string
		boots               int
		err                 string
	}{
		{"well", "echo '@lab@ ready'; echo '@lab@ done'; exec sleep 60", "exit 9", 1, "<nil>"},
		{"panic at first", "echo 'Kernel panic'", "echo '@lab@ ready'; echo '@lab@ done'; exec sleep 60", 2, "<nil>"},
		{"panic twice", "exit 3", "exit 4", 2, "it did not boot: QEMU ended: exit status 4"},
		{"panic in the scenario", "echo '@lab@ ready'; sleep 0.1", "exit 9", 1, "the scenario did not end: QEMU ended: exit status 0"},
		{"refused by its init", "echo '@lab@ fail no disk'; exec sleep 60", "exit 9", 1, "no disk"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := fakeQEMU(t, c.first, c.second)
			l := &lab{stderr: io.Discard}
			_, err := l.bootTwice(t.Context(), machine{image: image{dir: dir}}, io.Discard, options{}, 1, time.Minute)
			if got := fmt.Sprint(err); got != c.err {
				t.Errorf("error %v, want %q", err, c.err)
			}
			boots, err := os.ReadFile(filepath.Join(dir, "boots"))
			if n := strings.Count(string(boots), "\n"); err != nil || n != c.boots {
				t.Errorf("%d boots (%v), want %d", n, err, c.boots)
			}
		})
	}
}

// fakeQEMU puts a QEMU into PATH that runs one of the scripts at each start, in order, and the last one from then on.
// It returns the machine's folder, where the file boots gets a line at each start: the command line.
func fakeQEMU(t *testing.T, scripts ...string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	qemu := "#!/bin/sh\ncd " + dir + "\necho \"$*\" >>boots\ncase $(wc -l <boots) in\n"
	for i, s := range scripts {
		pattern := fmt.Sprint(i + 1)
		if i == len(scripts)-1 {
			pattern = "*"
		}
		qemu += pattern + ")\n" + s + "\n;;\n"
	}
	if err := os.WriteFile(filepath.Join(dir, "qemu-system-x86_64"), []byte(qemu+"esac\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return dir
}

// A scenario that has the host go down runs again with the same disks, as often as it declares and not more often. A boot
// in between may need its second try as any other.
func TestCrash(t *testing.T) {
	const (
		crash = "echo '@lab@ ready'; echo '@lab@ crash'; exec sleep 60"
		done  = "echo '@lab@ ready'; echo '@lab@ done'; exec sleep 60"
		panic = "echo 'Kernel panic'"
	)
	for _, c := range []struct {
		name    string
		scripts []string
		boots   int
		limit   time.Duration
		starts  string // LAB_BOOT of each start of QEMU
		err     string
	}{
		{"none", []string{done}, 1, time.Minute, "1", "<nil>"},
		{"one", []string{crash, done}, 2, time.Minute, "1 2", "<nil>"},
		{"a panic in the boot after it", []string{crash, panic, done}, 2, time.Minute, "1 2 2", "<nil>"},
		{"no boot after it", []string{crash, panic}, 2, time.Minute, "1 2 2", "boot 2: it did not boot: QEMU ended: exit status 0"},
		{"more than declared", []string{crash, crash, done}, 2, time.Minute, "1 2", "the scenario had the host go down in boot 2, and declares boots=2"},
		{"time is up", []string{crash, done}, 2, time.Second, "1", "the scenario did not end: time limit in boot 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := fakeQEMU(t, c.scripts...)
			m := machine{image: image{dir: dir}, root: "/the-layer"}
			l := &lab{stderr: io.Discard}
			sum, err := l.boots(t.Context(), m, scenario{boots: c.boots, limit: c.limit}, io.Discard, options{}, 1)
			if got := fmt.Sprint(err); got != c.err {
				t.Errorf("error %v, want %q", err, c.err)
			}
			text, err := os.ReadFile(filepath.Join(dir, "boots"))
			if err != nil {
				t.Fatal(err)
			}
			var starts []string
			for line := range strings.Lines(string(text)) {
				_, boot, _ := strings.Cut(line, "LAB_BOOT=")
				starts = append(starts, strings.Fields(boot)[0])
				if !strings.Contains(line, "file=/the-layer,") {
					t.Errorf("another root disk: %s", line)
				}
			}
			if strings.Join(starts, " ") != c.starts || fmt.Sprint(sum.boots) != starts[len(starts)-1] {
				t.Errorf("started with LAB_BOOT %q and counted %d boots, want %q", starts, sum.boots, c.starts)
			}
		})
	}
}

// A boot gets what its predecessors left of the time.
func TestCrashLimit(t *testing.T) {
	dir := fakeQEMU(t, "echo '@lab@ ready'; sleep 1.2; echo '@lab@ crash'; exec sleep 60", "echo '@lab@ ready'; echo '@lab@ done'; exec sleep 60")
	l := &lab{stderr: io.Discard}
	sum, err := l.boots(t.Context(), machine{image: image{dir: dir}}, scenario{boots: 2, limit: 10 * time.Second}, io.Discard, options{}, 1)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "boots"))
	if err != nil || !strings.Contains(string(text), "LAB_BOOT=1 LAB_LIMIT=10") || !strings.Contains(string(text), "LAB_BOOT=2 LAB_LIMIT=8") {
		t.Errorf("got %s, %v; want limits of 10 and 8 s", text, err)
	}
	if took := sum.done - sum.ready; took < 1200*time.Millisecond {
		t.Errorf("both runs together took %v", took)
	}
}

// A run's own layer leaves the cached image alone.
func TestLayer(t *testing.T) {
	dir := t.TempDir()
	base, file := filepath.Join(dir, rootDisk), filepath.Join(t.TempDir(), "root.qcow2")
	if err := sparse(base, 1<<20); err != nil {
		t.Fatal(err)
	}
	if err := layer(t.Context(), image{dir: dir}, file); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("qemu-img", "info", file).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "backing file: "+base) || !strings.Contains(string(out), "virtual size: 1 MiB") {
		t.Errorf("got %v\n%s", err, out)
	}
}
