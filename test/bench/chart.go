package main

import (
	"cmp"
	"fmt"
	"html"
	"math"
	"slices"
	"strings"

	"xenlvm/lib/units"
)

// The chart, in pixels: two panels beside each other, names at the right of each.
const (
	panelWidth, panelHeight = 300, 260
	labelWidth              = 190
	chartTop, chartLeft     = 50, 70
)

// point is one measurement of a line.
type point struct{ x, y float64 }

// line is a tool over the sizes of the image.
type line struct {
	name   string
	ours   bool
	points []point
}

// chart draws time, and bytes read, against the size of the image, both axes
// logarithmic; "" if no workload grew.
func chart(rows []row) string {
	seconds := lines(rows, func(r row) float64 { return *r.Median })
	read := lines(rows, func(r row) float64 { return float64(r.BytesRead) })
	if len(seconds) == 0 || len(read) == 0 {
		return ""
	}
	var b strings.Builder
	step := chartLeft + panelWidth + labelWidth
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">`+"\n", 2*step, chartTop+panelHeight+50)
	fmt.Fprintln(&b, `<rect width="100%" height="100%" fill="white"/>`)
	panel(&b, chartLeft, "seconds for the same changes", seconds, 10, func(v float64) string { return fmt.Sprintf("%g s", v) })
	panel(&b, chartLeft+step, "bytes read", read, 16, func(v float64) string { return units.Bytes(v).String() })
	fmt.Fprintln(&b, "</svg>")
	return b.String()
}

// lines are the tools that gave a right result in more than one size.
func lines(rows []row, value func(row) float64) []line {
	var all []line
	for _, r := range rows {
		if r.scene.ordered == 0 || r.Median == nil {
			continue
		}
		i := slices.IndexFunc(all, func(l line) bool { return l.name == r.Tool })
		if i < 0 {
			i = len(all)
			all = append(all, line{name: r.Tool, ours: r.tool.ours})
		}
		if v := value(r); v > 0 { // zero has no logarithm
			all[i].points = append(all[i].points, point{float64(r.scene.ordered), v})
		}
	}
	return slices.DeleteFunc(all, func(l line) bool { return len(l.points) < 2 })
}

// scale maps values to pixels, logarithmically.
type scale struct{ low, high, from, to float64 }

func (s scale) at(v float64) float64 {
	return s.from + (s.to-s.from)*math.Log(v/s.low)/math.Log(s.high/s.low)
}

// scales bound the points of all lines; y goes by powers of base.
func scales(left int, all []line, base float64) (x, y scale) {
	x = scale{math.Inf(1), 0, float64(left), float64(left + panelWidth)}
	y = scale{math.Inf(1), 0, chartTop + panelHeight, chartTop}
	for _, l := range all {
		for _, p := range l.points {
			x.low, x.high = min(x.low, p.x), max(x.high, p.x)
			y.low, y.high = min(y.low, p.y), max(y.high, p.y)
		}
	}
	y.low = math.Pow(base, math.Floor(math.Log(y.low)/math.Log(base)))
	y.high = math.Pow(base, math.Floor(math.Log(y.high)/math.Log(base))+1)
	return x, y
}

// panel draws the lines at left, with a grid at the powers of base.
func panel(b *strings.Builder, left int, title string, all []line, base float64, label func(float64) string) {
	x, y := scales(left, all, base)
	text := func(px, py float64, colour, anchor, s string) {
		fmt.Fprintf(b, `<text x="%.0f" y="%.0f" fill="%s" text-anchor="%s">%s</text>`+"\n", px, py, colour, anchor, html.EscapeString(s))
	}
	fmt.Fprintf(b, `<text x="%d" y="25" font-size="15">%s, by size of the image</text>`+"\n", left, html.EscapeString(title))
	for v := y.low; v <= y.high*1.01; v *= base {
		fmt.Fprintf(b, `<line x1="%d" x2="%d" y1="%.0f" y2="%.0f" stroke="#ddd"/>`+"\n", left, left+panelWidth, y.at(v), y.at(v))
		text(x.from-6, y.at(v)+4, "#333", "end", label(v))
	}
	for _, p := range all[0].points {
		text(x.at(p.x), chartTop+panelHeight+20, "#333", "middle", units.Bytes(p.x).String())
	}
	end := func(l line) float64 { return y.at(l.points[len(l.points)-1].y) }
	slices.SortFunc(all, func(p, q line) int { return cmp.Compare(end(p), end(q)) })
	names := make([]float64, len(all))
	for i, l := range all {
		names[i] = end(l) + 4
	}
	spread(names)
	for i, l := range all {
		colour, width := "#999", 1.5
		if l.ours {
			colour, width = "#c00", 2.5
		}
		var points []string
		for _, p := range l.points {
			points = append(points, fmt.Sprintf("%.0f,%.0f", x.at(p.x), y.at(p.y)))
		}
		fmt.Fprintf(b, `<polyline points="%s" fill="none" stroke="%s" stroke-width="%.1f"/>`+"\n", strings.Join(points, " "), colour, width)
		text(x.to+26, names[i], colour, "start", l.name)
		fmt.Fprintf(b, `<line x1="%.0f" y1="%.0f" x2="%.0f" y2="%.0f" stroke="%s" stroke-width="0.5"/>`+"\n", x.to, end(l), x.to+23, names[i]-4, colour)
	}
}

// spread moves positions, which are in order, apart until names below each other
// can be read, and back up when they would leave the chart.
func spread(at []float64) {
	const apart = 13
	for i := 1; i < len(at); i++ {
		at[i] = max(at[i], at[i-1]+apart)
	}
	bottom := float64(chartTop + panelHeight)
	for i := len(at) - 1; i >= 0; i-- {
		at[i] = min(at[i], bottom)
		bottom = at[i] - apart
	}
}
