package main

import (
	"fmt"
	"strings"

	"xenlvm/lib/units"
)

// planned is what a dry run finds, in bytes. How much of other data is equal already
// it does not read.
type planned struct {
	holds               string // what is on the destination
	copied, zeroed, cut int64
}

// plan says what a copy onto t would do.
func (t *target) plan(src filled, has content) (planned, error) {
	data, err := src.Data()
	p := planned{holds: "other data", copied: data.Bytes(), zeroed: src.size - t.behind - data.Bytes(), cut: t.behind}
	switch {
	case has.equal:
		p.holds, p.copied, p.zeroed = "what is equal to the source", 0, 0
	case has.resumed:
		left := has.before.Unknown()
		p.holds, p.copied, p.zeroed = "an interrupted copy", data.Intersect(left).Bytes(), 0
	case t.made:
		p.holds, p.zeroed = "nothing, it is a new file", 0
	case t.empty:
		p.holds, p.zeroed = "nothing but zeros", 0
	case has.ours:
		p.holds = "what an interrupted copy left, of which nothing is known"
	}
	return p, err
}

func (p planned) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: about %s would be copied", p.holds, units.Bytes(p.copied))
	if p.zeroed > 0 {
		fmt.Fprintf(&b, ", %s made zero", units.Bytes(p.zeroed))
	}
	if p.cut > 0 {
		fmt.Fprintf(&b, ", %s cut off", units.Bytes(p.cut))
	}
	return b.String()
}
