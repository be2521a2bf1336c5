package main

import (
	"context"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"xenlvm/lib/extent"
)

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 || os.Getenv("XENLVM_ROOT_TESTS") != "1" {
		t.Skip("attaches loop devices: needs root and XENLVM_ROOT_TESTS=1")
	}
}

// small is a bench with small images and one round in a directory of the test.
func small(t *testing.T, line string) *bench {
	t.Helper()
	o, err := parse(append([]string{"--imgconv", "/bin/true", "--rounds", "1", "--seed", "1", "--cache", "warm"}, strings.Fields(line)...))
	if err != nil {
		t.Fatal(err)
	}
	o.dir = t.TempDir()
	return newBench(o)
}

func script(name, text string) tool {
	return tool{name: name, first: func(p place) []string { return []string{"sh", "-ec", text, "sh", p.src, p.dst} }}
}

// What a tool left out, broke, or gave up is told from what it copied.
func TestJudgement(t *testing.T) {
	needRoot(t)
	honest := `dd if="$1" of="$2" bs=1M conv=fsync`
	aware := script("free blocks left out", `e2image -ra "$1" "$2"`)
	aware.fs = true
	lax := script("ours, with old data", aware.first(place{})[2])
	lax.aware = true
	broken := script("a file broken", honest+`; debugfs -w -R "sif folder-0 mtime 12345" "$2"`)
	broken.fs = true
	use := []tool{
		script("honest", honest),
		script("nothing done", "true"),
		script("a byte wrong", honest+`; printf x | dd of="$2" bs=1 seek=4500000 conv=notrunc,fsync`),
		script("given up", "echo first; echo no more >&2; exit 7"),
		aware, lax, broken,
	}
	b := small(t, "--sizes B1=16M,B3=32M,B7=32M")
	states := map[string]map[string]string{}
	for _, w := range workloads() {
		if w.name != "B1" && w.name != "B3" && w.name != "B7" {
			continue
		}
		rows, err := b.workload(context.Background(), w, use)
		if err != nil {
			t.Fatal(err)
		}
		states[w.name] = map[string]string{}
		for _, r := range rows {
			states[w.name][r.Tool] = r.Oracle
			if r.Tool == "nothing done" && r.Stale < r.ImageBytes*9/10 {
				t.Errorf("%s: nothing done, and only %d old bytes", w.name, r.Stale)
			}
			if r.Tool == "given up" && !strings.Contains(r.why, "no more") {
				t.Errorf("given up: %q", r.why)
			}
		}
	}
	want := map[string]map[string]string{
		"B1": {"honest": identical, "nothing done": wrong, "a byte wrong": wrong, "given up": failed},
		"B3": {"honest": identical, "nothing done": wrong, "a byte wrong": wrong, "given up": failed, aware.name: sameFiles, lax.name: wrong, broken.name: wrong},
		"B7": {"honest": identical, "nothing done": wrong, "a byte wrong": wrong, "given up": failed, aware.name: wrong, broken.name: wrong},
	}
	for w := range want {
		for name, state := range want[w] {
			if states[w][name] != state {
				t.Errorf("%s: %s is %q, should be %q", w, name, states[w][name], state)
			}
		}
	}
}

// What is written and read is counted, the time ends with the flush, and nothing
// stays behind, after an interruption neither.
func TestMeasure(t *testing.T) {
	needRoot(t)
	ctx, dir := context.Background(), t.TempDir()
	dst, err := newTarget(ctx, dir, 16*mib, kind{direct: true, still: true})
	if err != nil {
		t.Fatal(err)
	}
	for knob, want := range map[string]string{"loop/dio": "1", "queue/rotational": "0"} {
		if b, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(dst.loop.Path), knob)); err != nil || strings.TrimSpace(string(b)) != want {
			t.Errorf("%s of the destination is %q, %v", knob, b, err)
		}
	}
	src := filepath.Join(dir, "image")
	if err := writeImage(ctx, src, 16*mib, layout{random: extent.Whole(16 * mib)}, rand.New(rand.NewPCG(1, 2))); err != nil {
		t.Fatal(err)
	}
	s, err := measure(ctx, []string{"sh", "-c", "dd if=" + src + " of=" + dst.loop.Path + " bs=1M; sleep 0.1"}, dst, dir, "", 0)
	if err != nil || s.read < 16*mib || s.wrote < 16*mib || s.wrote > 17*mib || s.device != 16*mib || s.rss == 0 || s.cpu == 0 {
		t.Errorf("%+v, %v", s, err)
	}
	ended, cancel := signal.NotifyContext(ctx, syscall.SIGUSR1)
	defer cancel()
	if _, err := measure(ended, []string{"sh", "-c", "kill -USR1 $PPID; exec sleep 1000"}, dst, dir, "", 0); err == nil {
		t.Error("an interruption is no error")
	}
	if err := dst.remove(ended); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile("/sys/block/" + filepath.Base(dst.loop.Path) + "/loop/backing_file"); err == nil && strings.HasPrefix(string(b), dir) {
		t.Errorf("%s is still attached", dst.loop.Path)
	}
}
