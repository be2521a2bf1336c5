package main

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"xenlvm/lib/cli"
	"xenlvm/lib/convert"
	"xenlvm/lib/fault"
	"xenlvm/lib/journal"
	"xenlvm/lib/run"
	"xenlvm/lib/units"
)

const (
	// enough is how many seconds of copying a final pass may take before another one
	// is made while the domain runs: far less than its shutdown and start.
	enough = 2
	// shrinks is by how much a pass must be smaller than the one before for another
	// one to be worth it.
	shrinks = 0.9
	// mostPasses bounds --passes auto.
	mostPasses = 10
)

// goal says when enough passes were made.
type goal struct {
	most int     // at most
	auto bool    // fewer may do
	keep bool    // the base, for a final pass
	down float64 // how many seconds the domain may then be down, 0: no matter
}

func (o *options) goal(e *cli.Env) (goal, error) {
	g := goal{keep: o.keepBase && !o.final, down: o.maxDown}
	var err error
	switch {
	case o.passes == "auto" || e.Given("max-interruption") && !e.Given("passes"):
		g.most, g.auto = mostPasses, true
	default:
		if g.most, err = strconv.Atoi(o.passes); err != nil || g.most < 1 {
			return goal{}, fault.BadUsage("cannot read --passes %q: want a number, or auto", o.passes)
		}
	}
	if e.Given("max-interruption") {
		switch {
		case !(o.maxDown > 0):
			return goal{}, fault.BadUsage("cannot use --max-interruption %g: want seconds", o.maxDown)
		case !g.keep:
			return goal{}, fault.BadUsage("--max-interruption wants --keep-base: what a final pass takes is foreseen for one that reads only what changed")
		}
	}
	if o.final || e.DryRun { // a later pass would be another one
		g.most = 1
	}
	return g, nil
}

// foresee fills in what is expected after a pass that took so long in all.
func (p *pass) foresee(c *convert.Conversion, g goal, took time.Duration) {
	f := c.Forecast(time.Now())
	p.Next = &f
	p.first = slices.ContainsFunc(c.Disks, func(d *convert.Disk) bool { return d.Result.Delta == "" })
	if g.keep && c.Running {
		x := c.Expect(f, took)
		p.Expected = &x
	}
}

// more says whether another pass is to follow p, which followed those that are done.
func (g goal) more(done []pass, p pass) bool {
	switch {
	case !g.auto:
		return true
	case g.down > 0 && p.Expected != nil && len(done) == 0:
		return true // a first pass does not show how long a later one takes
	}
	return (p.Next.Seconds > enough || g.missed(p)) && worth(done, p)
}

// missed says whether the domain would be down for too long after p.
func (g goal) missed(p pass) bool {
	return g.down > 0 && p.Expected != nil && p.Expected.Seconds() > g.down
}

// reached fails if no more passes are made and the domain would be down for too long.
// Else what is expected is written down, to be told beside what is seen.
func (g goal) reached(j *journal.Journal, p pass) error {
	switch {
	case p.Expected == nil:
		return nil
	case g.missed(p):
		err := fmt.Errorf("cannot keep %s down for less than %g s: %s", j.Domain, g.down, p.expected())
		err = fault.Hint(err, "allow it: --max-interruption %.0f", math.Ceil(p.Expected.Seconds()))
		return fault.Hint(err, "or move it without a final pass: image-to-lv --plan auto %s", run.Quote(j.Domain))
	case p.first:
		return nil
	}
	return j.Append(journal.KindExpected, *p.Expected)
}

// tell says what is expected after the n-th pass.
func (p pass) tell(e *cli.Env, n int) {
	if p.Next != nil {
		e.Infof("pass %d: a next one is expected to read %s in %.1f s", n, units.Bytes(p.Next.Bytes), p.Next.Seconds)
	}
	if p.Expected != nil && !p.first {
		e.Infof("%s", p.expected())
	}
}

// expected says what a downtime consists of.
func (p pass) expected() string {
	x := *p.Expected
	how := "as seen before"
	if !x.Seen {
		how = "both assumed"
	}
	var copying float64
	if p.Next != nil {
		copying = p.Next.Seconds
	}
	return fmt.Sprintf("%.1f s are expected: %.1f s for a final pass (%.1f s to copy %s, %.1f s for snapshots and checks), shutdown %.1f s and start %.1f s (%s)",
		x.Seconds(), x.Pass, copying, units.Bytes(x.Bytes), x.Pass-copying, x.Stop, x.Start, how)
}

// worth says whether pass p was so much smaller than the ones that are done that
// another one will be, too.
func worth(done []pass, p pass) bool {
	return len(done) == 0 || float64(p.changed()) <= shrinks*float64(done[len(done)-1].changed())
}
