package main

import (
	"archive/tar"
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
	s, err := parseScenario("#!/bin/bash\n# shows a thing\n# lab: vg=12G,512M time=90 xen=no\n# lab: mem=3G gotest=./lib/a,./lib/b\n\n# lab: time=7\n")
	if err != nil {
		t.Fatal(err)
	}
	if s.about != "shows a thing" || s.xen || s.limit != 90*time.Second || s.mem != "3G" || s.dom0Mem != defaults().dom0Mem ||
		!slices.Equal(s.vg, []string{"12G", "512M"}) || !slices.Equal(s.gotest, []string{"./lib/a", "./lib/b"}) {
		t.Errorf("got %+v", s)
	}
}

func TestParseScenarioRefuses(t *testing.T) {
	for _, header := range []string{
		"", "lab: time=9", // no word about itself
		"x\n# lab: tim=9", "x\n# lab: time=0", "x\n# lab: time=soon", "x\n# lab: vg=12", "x\n# lab: vg=1G,", "x\n# lab: xen=maybe", "x\n# lab: mem=3GB",
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
	l := &lab{cache: t.TempDir(), stderr: io.Discard}
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
	m := machine{xen: true, dom0Mem: "1G", payload: "/tmp/a,b/p", result: "/r", disks: []string{"/d"}}
	argv := m.argv()
	for _, want := range []string{
		"file=/tmp/a,,b/p,format=raw,if=virtio,cache=unsafe,discard=unmap,readonly=on",
		"file=root.img,format=raw,if=virtio,cache=unsafe,discard=unmap,snapshot=on",
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
			dir := t.TempDir()
			qemu := "#!/bin/sh\necho >>" + dir + "/boots\nif [ $(wc -l <" + dir + "/boots) = 1 ]; then\n" + c.first + "\nelse\n" + c.second + "\nfi\n"
			if err := os.WriteFile(filepath.Join(dir, "qemu-system-x86_64"), []byte(qemu), 0o755); err != nil {
				t.Fatal(err)
			}
			t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
			l := &lab{stderr: io.Discard}
			_, err := l.bootTwice(t.Context(), machine{image: image{dir: dir}}, io.Discard, options{}, 1, time.Minute)
			if got := fmt.Sprint(err); got != c.err {
				t.Errorf("error %v, want %q", err, c.err)
			}
			boots, err := os.ReadFile(filepath.Join(dir, "boots"))
			if err != nil || len(boots) != c.boots {
				t.Errorf("%d boots (%v), want %d", len(boots), err, c.boots)
			}
		})
	}
}
