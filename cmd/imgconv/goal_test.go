package main

import (
	"encoding/json"
	"strings"
	"testing"

	"xenlvm/lib/cli"
	"xenlvm/lib/convert"
	"xenlvm/lib/fault"
	"xenlvm/lib/journal"
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
	must(t, g.reached(j, pass{Expected: &journal.Expected{Stop: 5, Pass: 10, Start: 4.5}}))
	records, err := j.Read()
	must(t, err)
	var x journal.Expected
	if len(records) != 1 || records[0].Kind != journal.KindExpected || json.Unmarshal(records[0].Data, &x) != nil || x.Seconds() != 19.5 {
		t.Errorf("%+v", records)
	}
}
