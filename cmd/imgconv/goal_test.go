package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"xenlvm/lib/cli"
	"xenlvm/lib/convert"
	"xenlvm/lib/fault"
	"xenlvm/lib/journal"
	"xenlvm/lib/mapping"
)

func TestGoal(t *testing.T) {
	for s, want := range map[string]int{"1": 1, "7": 7, "auto": mostPasses} {
		o := options{passes: s}
		if g, err := o.goal(&cli.Env{}); err != nil || g.most != want || g.auto != (s == "auto") {
			t.Errorf("--passes %q: %+v, %v", s, g, err)
		}
	}
	for _, s := range []string{"", "0", "-1", "1.5", "all"} {
		o := options{passes: s}
		if _, err := o.goal(&cli.Env{}); fault.StatusOf(err) != fault.Usage {
			t.Errorf("--passes %q: %v; want a usage error", s, err)
		}
	}
	o := options{passes: "auto"}
	if g, _ := o.goal(&cli.Env{DryRun: true}); g.most != 1 {
		t.Errorf("a dry run plans %d passes", g.most)
	}
}

// Passes go on as long as each is much smaller than the one before, and the next one
// would be long, or the domain down for too long.
func TestMore(t *testing.T) {
	p := func(written int64, copying, down float64) pass {
		p := pass{Written: written, Next: &convert.Forecast{Seconds: copying}}
		if down > 0 {
			p.Expected = &journal.Expected{Pass: down}
		}
		return p
	}
	auto := goal{auto: true}
	limited := goal{auto: true, keep: true, down: 20}
	for _, tt := range []struct {
		what string
		goal goal
		done []pass
		last pass
		want bool
	}{
		{"the first of several", goal{most: 3}, nil, p(1000, 0, 0), true},
		{"the next would be short", auto, nil, p(1000, 2, 0), false},
		{"it would be long", auto, nil, p(1000, 3, 0), true},
		{"and this one shrank", auto, []pass{{Written: 1000}}, p(900, 3, 0), true},
		{"or not enough", auto, []pass{{Written: 1000}}, p(901, 3, 0), false},
		{"a first one shows no downtime", limited, nil, p(1000, 0, 10), true},
		{"there is none", limited, nil, p(1000, 0, 0), false},
		{"down for too long", limited, []pass{{Written: 1000}}, p(900, 1, 21), true},
		{"not too long", limited, []pass{{Written: 1000}}, p(900, 1, 20), false},
		{"and it does not shrink", limited, []pass{{Written: 1000}}, p(901, 1, 21), false},
	} {
		if got := tt.goal.more(tt.done, tt.last); got != tt.want {
			t.Errorf("%s: another pass: %v", tt.what, got)
		}
	}
}

// What a first pass lets expect is told to nobody; of a later one what is copying.
func TestTell(t *testing.T) {
	p := pass{Next: &convert.Forecast{Bytes: 1 << 20, Seconds: 0.5}, Expected: &journal.Expected{Pass: 70, Bytes: 1 << 20, Stop: 15, Start: 10}}
	tell := func() string {
		var said bytes.Buffer
		p.tell(&cli.Env{Tool: "imgconv", Stderr: &said}, 1)
		return said.String()
	}
	if want := "95.0 s are expected: 70.0 s for a final pass (0.5 s to copy 1.00 MiB, 69.5 s for snapshots and checks)"; !strings.Contains(tell(), want) {
		t.Errorf("said %q; want %q", tell(), want)
	}
	p.first = true
	if strings.Contains(tell(), "expected:") {
		t.Errorf("a first pass: %q", tell())
	}
	text, err := json.Marshal(result(&convert.Conversion{}, mapping.Copied, []pass{p}, 0))
	if err != nil || strings.Contains(string(text), "expected_interruption") {
		t.Errorf("%v: %s", err, text)
	}
}

// Only a copy that is no delta is a first one.
func TestForeseeFirst(t *testing.T) {
	for delta, first := range map[string]bool{"": true, "digests": false} {
		var p pass
		p.foresee(&convert.Conversion{Disks: []*convert.Disk{{Result: convert.Result{Delta: delta}}}}, goal{}, 0)
		if p.first != first {
			t.Errorf("delta %q: first %v", delta, p.first)
		}
	}
}

// A snapshot that stays is told of, with what removes it.
func TestTellKept(t *testing.T) {
	for method, want := range map[convert.Method]string{convert.Blocks: "imgconv --snapshot --drop-base vm3\n", convert.Files: ""} {
		var said bytes.Buffer
		tellKept(&cli.Env{Tool: "imgconv", Stderr: &said}, "vm3", &convert.Conversion{Disks: []*convert.Disk{{Method: method, Format: "raw"}}})
		if !strings.HasSuffix(said.String(), want) || want == "" && said.Len() > 0 {
			t.Errorf("%s: said %q", method, &said)
		}
	}
}

// What is expected is remembered, unless that is too long.
func TestReached(t *testing.T) {
	j, err := journal.Open(t.TempDir(), "vm3", "imgconv")
	must(t, err)
	g := goal{keep: true, down: 20}
	err = g.reached(j, pass{Expected: &journal.Expected{Stop: 5, Pass: 11, Start: 4.5}})
	if err == nil || !strings.HasPrefix(err.Error(), "cannot keep vm3 down for less than 20 s: 20.5 s are expected") || fault.StatusOf(err) != fault.Failed {
		t.Error(err)
	}
	must(t, g.reached(j, pass{}))
	must(t, g.reached(j, pass{Expected: &journal.Expected{Stop: 1, Pass: 1, Start: 1}, first: true}))
	must(t, g.reached(j, pass{Expected: &journal.Expected{Stop: 5, Pass: 10, Start: 4.5}}))
	records, err := j.Read()
	must(t, err)
	var x journal.Expected
	if len(records) != 1 || records[0].Kind != journal.KindExpected || json.Unmarshal(records[0].Data, &x) != nil || x.Seconds() != 19.5 {
		t.Errorf("%+v", records)
	}
}
