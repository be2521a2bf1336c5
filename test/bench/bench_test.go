package main

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"xenlvm/lib/extent"
	"xenlvm/lib/fault"
)

func TestMedian(t *testing.T) {
	for want, values := range map[float64][]float64{0: nil, 3: {3}, 2: {3, 1, 2}, 2.5: {4, 1, 2, 3}} {
		if got := median(values); got != want {
			t.Errorf("median of %v is %v, should be %v", values, got, want)
		}
	}
}

func rounds(states ...string) []sample {
	var s []sample
	for i, state := range states {
		s = append(s, sample{seconds: float64(i + 1), read: 100, rss: int64(i), verdict: verdict{state: state, stale: int64(len(state)), why: "why " + state}})
	}
	return s
}

func TestSummary(t *testing.T) {
	r := summarize(scene{name: "B1"}, tool{name: "x"}, 4096, rounds(identical, sameFiles, identical))
	if r.Oracle != sameFiles || *r.Median != 2 || *r.Min != 1 || *r.Max != 3 || r.PeakRSS != 2 || r.Stale != int64(len(sameFiles)) {
		t.Errorf("%+v", r)
	}
	// One wrong copy, and the tool has no time at all.
	r = summarize(scene{name: "B1"}, tool{name: "x", ours: true}, 4096, rounds(identical, wrong, identical))
	if r.Oracle != wrong || r.Median != nil || r.why != "why wrong" {
		t.Errorf("%+v", r)
	}
	if fault.StatusOf(failures([]row{r})) != fault.Failed {
		t.Error("a wrong copy of ours is no failure")
	}
	r.tool.ours = false
	if err := failures([]row{r}); err != nil {
		t.Errorf("a wrong copy of others is a failure: %v", err)
	}
}

// What an interruption cost is shown where there was one.
func TestRepeated(t *testing.T) {
	var samples []sample
	for i := range int64(3) {
		samples = append(samples, sample{verdict: verdict{state: identical}, again: repeated{float64(i), i << 20, i << 30}})
	}
	for killed, want := range map[bool]string{false: identical, true: identical + ", repeated 1.00 s, 1.00 MiB read, 1.00 GiB written"} {
		if got := summarize(scene{name: "B14", killed: killed}, tool{}, 1, samples).result(); got != want {
			t.Errorf("killed %v: %s", killed, got)
		}
	}
}

// What only brings a copy up to date makes none.
func TestSuits(t *testing.T) {
	later := tool{name: "x", later: true, qcow2: true}
	for s, want := range map[*scene]bool{{format: raw}: false, {format: raw, base: "x"}: true, {format: "qcow2"}: false} {
		if later.suits(*s) != want {
			t.Errorf("%+v: %v", *s, !want)
		}
	}
}

func TestBestPeer(t *testing.T) {
	one := func(name string, seconds float64, state string, ours bool) row {
		s := []sample{{seconds: seconds, verdict: verdict{state: state}}}
		return summarize(scene{name: "B1"}, tool{name: name, ours: ours}, 0, s)
	}
	rows := []row{
		one("ours", 1, identical, true), one("wrong", 2, wrong, false), one("aware", 3, sameFiles, false),
		one("slow", 5, identical, false), one("best", 4, identical, false), one("bound", 1, unmeasured, false),
	}
	if best := bestPeer(rows, "B1"); best == nil || *best != 4 {
		t.Errorf("best %v", best)
	}
	var table bytes.Buffer
	printTable(&table, rows)
	for _, want := range []string{"| ours | 1.00 | 1.00–1.00 | 0.25 |", "| slow | 5.00 | 5.00–5.00 | 1.25 |", "| wrong | wrong |  |  |"} {
		if !strings.Contains(table.String(), want) {
			t.Errorf("no %q in\n%s", want, table.String())
		}
	}
}

func grown() []row {
	var rows []row
	for i, size := range []int64{1 << 30, 4 << 30} {
		for j, name := range []string{"engine", "a & b"} {
			rows = append(rows, summarize(scene{name: "B6", ordered: size}, tool{name: name, ours: j == 0}, size,
				[]sample{{seconds: float64(1 + i*j), read: 1 << 20, verdict: verdict{state: identical}}}))
		}
	}
	return rows
}

func TestJSON(t *testing.T) {
	dir := t.TempDir()
	rows := append(grown(), summarize(scene{name: "B1"}, tool{name: "x"}, 1, rounds(wrong)))
	if err := writeReports(dir, rows); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "bench.json"))
	if err != nil {
		t.Fatal(err)
	}
	var got []map[string]any
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	if len(got) != len(rows) || got[0]["median_s"] != 1.0 || got[4]["median_s"] != nil || got[4]["oracle"] != wrong {
		t.Errorf("%s", text)
	}
	for _, key := range []string{"workload", "tool", "min_s", "max_s", "bytes_read", "bytes_written", "peak_rss_bytes", "cpu_s"} {
		if _, has := got[0][key]; !has {
			t.Errorf("no %s in %v", key, got[0])
		}
	}
}

func TestChart(t *testing.T) {
	svg := chart(grown())
	for d := xml.NewDecoder(strings.NewReader(svg)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("%v in\n%s", err, svg)
		}
	}
	if n := strings.Count(svg, "<polyline"); n != 4 {
		t.Errorf("%d lines, should be two in each panel", n)
	}
	for _, bad := range []string{"NaN", "Inf"} {
		if strings.Contains(svg, bad) {
			t.Errorf("%s in\n%s", bad, svg)
		}
	}
	if s := chart(grown()[:2]); s != "" {
		t.Errorf("a chart of one size: %s", s)
	}
}

func TestLayouts(t *testing.T) {
	const size = 64 << 20
	r := rand.New(rand.NewPCG(1, 2))
	if l := scattered(size, size/5, r); l.random.Bytes() < size/5 || l.random.Bytes() > size/5+4<<20 || l.random.End() > size {
		t.Errorf("scattered: %d bytes", l.random.Bytes())
	}
	l := halfZeros(size, r)
	if !l.random.Union(l.zeros).Equal(extent.Whole(size)) || l.random.Bytes() < size*4/10 || l.random.Bytes() > size*6/10 {
		t.Errorf("half zeros: %d random, %d zeros", l.random.Bytes(), l.zeros.Bytes())
	}
}

// A copy with one changed bit and one block that was never written.
func TestCompareBytes(t *testing.T) {
	dir := t.TempDir()
	source, copied := filepath.Join(dir, "source"), filepath.Join(dir, "copy")
	l := layout{random: extent.Of(extent.Range{Off: 0, Len: 3 * mib})}
	if err := writeImage(context.Background(), source, 4*mib, l, rand.New(rand.NewPCG(1, 2))); err != nil {
		t.Fatal(err)
	}
	judged := func(change func(b []byte)) verdict {
		t.Helper()
		b, err := os.ReadFile(source)
		if err != nil {
			t.Fatal(err)
		}
		change(b)
		if err := os.WriteFile(copied, b, 0o600); err != nil {
			t.Fatal(err)
		}
		v, err := compareBytes(context.Background(), source, copied)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	if v := judged(func([]byte) {}); v != (verdict{state: identical}) {
		t.Errorf("a true copy: %+v", v)
	}
	if v := judged(func(b []byte) { b[2*mib+5] ^= 1 }); v.state != wrong || v.stale != 0 {
		t.Errorf("a changed bit: %+v", v)
	}
	if v := judged(func(b []byte) {
		for i := range b[:block] {
			b[3*mib+int64(i)] = oldByte
		}
	}); v.state != wrong || v.stale != block {
		t.Errorf("old data in a hole: %+v", v)
	}
}

func TestChosen(t *testing.T) {
	all := []tool{{name: "imgconv"}, {name: "qemu-img -W"}, {name: "no such", needs: "no-such-program-xenlvm"}}
	use, missing := chosen(all, nil)
	if len(use) != 2 || len(missing) != 1 {
		t.Errorf("%v, %v", use, missing)
	}
	if use, _ = chosen(all, []string{"qemu*"}); len(use) != 1 || use[0].name != "qemu-img -W" {
		t.Errorf("%v", use)
	}
}

func TestParse(t *testing.T) {
	o, err := parse([]string{"--quick", "--imgconv", os.Args[0], "--sizes", "B1=1G,B6=64M", "--workloads", "B1,B13", "--target", "direct", "--still"})
	if err != nil || o.target != (kind{direct: true, still: true}) || o.rounds != 1 || o.cold || !o.warm || o.sizes["B6"] != 64*mib || len(o.workloads) != 2 || o.seed == 0 {
		t.Errorf("%+v, %v", o, err)
	}
	for _, line := range []string{"--workloads B99", "--sizes B1=1k", "--cache lukewarm", "--target tape", "extra", "--rounds -1"} {
		if _, err := parse(append([]string{"--imgconv", os.Args[0]}, strings.Fields(line)...)); fault.StatusOf(err) != fault.Usage {
			t.Errorf("%s: %v", line, err)
		}
	}
}
