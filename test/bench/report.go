package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"xenlvm/lib/fault"
	"xenlvm/lib/units"
)

// row is a tool in a scene, as bench.json has it. Bytes and seconds are medians of the
// rounds, memory is the most; a row that is wrong, or failed, in one round has no time.
type row struct {
	Workload     string   `json:"workload"`
	Tool         string   `json:"tool"`
	Median       *float64 `json:"median_s"`
	Min          *float64 `json:"min_s"`
	Max          *float64 `json:"max_s"`
	BytesRead    int64    `json:"bytes_read"`    // by read(2)
	BytesWritten int64    `json:"bytes_written"` // by write(2)
	DeviceBytes  int64    `json:"device_bytes"`  // that the destination got, zeros included
	PeakRSS      int64    `json:"peak_rss_bytes"`
	CPU          float64  `json:"cpu_s"`
	Oracle       string   `json:"oracle"`
	Stale        int64    `json:"stale_bytes"`         // the most of all rounds
	SecondsAgain float64  `json:"seconds_again"`       // after an interruption: more than without it
	ReadAgain    int64    `json:"bytes_read_again"`    // the same
	WrittenAgain int64    `json:"bytes_written_again"` // the same
	ImageBytes   int64    `json:"image_bytes"`
	Rounds       int      `json:"rounds"`

	scene scene
	tool  tool
	why   string
}

// summarize makes a row of all rounds.
func summarize(s scene, t tool, size int64, samples []sample) row {
	r := row{Workload: s.name, Tool: t.name, ImageBytes: size, Rounds: len(samples), scene: s, tool: t}
	worst := []string{unmeasured, identical, sameFiles, wrong, failed}
	r.Oracle = unmeasured
	var seconds, cpu, again []float64
	var read, written, device, rss, readAgain, writtenAgain []int64
	for _, one := range samples {
		if v := one.verdict; slices.Index(worst, v.state) > slices.Index(worst, r.Oracle) {
			r.Oracle, r.why = v.state, v.why
		}
		r.Stale = max(r.Stale, one.verdict.stale)
		seconds, cpu = append(seconds, one.seconds), append(cpu, one.cpu)
		read, written, device = append(read, one.read), append(written, one.wrote), append(device, one.device)
		rss = append(rss, one.rss)
		again, readAgain, writtenAgain = append(again, one.again.seconds), append(readAgain, one.again.read), append(writtenAgain, one.again.wrote)
	}
	r.CPU = median(cpu)
	r.SecondsAgain, r.ReadAgain, r.WrittenAgain = median(again), median(readAgain), median(writtenAgain)
	r.BytesRead, r.BytesWritten, r.DeviceBytes, r.PeakRSS = median(read), median(written), median(device), slices.Max(rss)
	if !r.bad() {
		r.Median, r.Min, r.Max = new(median(seconds)), new(slices.Min(seconds)), new(slices.Max(seconds))
	}
	return r
}

func (r row) bad() bool { return r.Oracle == wrong || r.Oracle == failed }

// median is the middle one, the mean of the middle two of an even number.
func median[N int64 | float64](values []N) N {
	s := slices.Sorted(slices.Values(values))
	if len(s) == 0 {
		return 0
	}
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

// bestPeer is the shortest median of the tools of others that gave every byte; nil
// if there is none.
func bestPeer(rows []row, workload string) *float64 {
	var best *float64
	for _, r := range rows {
		if r.Workload == workload && r.Oracle == identical && !r.tool.ours && (best == nil || *r.Median < *best) {
			best = r.Median
		}
	}
	return best
}

// printTable writes one Markdown table for each scene, the fastest first.
func printTable(w io.Writer, rows []row) {
	last := ""
	for _, r := range sorted(rows) {
		if r.Workload != last {
			last = r.Workload
			fmt.Fprintf(w, "\n**%s**: %s; image of %s, %d rounds\n\n", r.Workload, r.scene.about, units.Bytes(r.ImageBytes), r.Rounds)
			fmt.Fprintln(w, "| tool | s | least–most | of the best peer | read | written | device got | memory | CPU s | result |")
			fmt.Fprintln(w, "|---|---|---|---|---|---|---|---|---|---|")
		}
		time, spread, ratio := r.Oracle, "", ""
		if r.Median != nil {
			time, spread = fmt.Sprintf("%.2f", *r.Median), fmt.Sprintf("%.2f–%.2f", *r.Min, *r.Max)
			if best := bestPeer(rows, r.Workload); best != nil {
				ratio = fmt.Sprintf("%.2f", *r.Median / *best)
			}
		}
		fmt.Fprintf(w, "| %s | %s | %s | %s | %s | %s | %s | %s | %.2f | %s |\n", r.Tool, time, spread, ratio,
			units.Bytes(r.BytesRead), units.Bytes(r.BytesWritten), units.Bytes(r.DeviceBytes), units.Bytes(r.PeakRSS), r.CPU, r.result())
	}
}

func (r row) result() string {
	s := r.Oracle
	if r.Stale > 0 {
		s += fmt.Sprintf(", %s old", units.Bytes(r.Stale))
	}
	if r.scene.killed && !r.bad() {
		s += fmt.Sprintf(", repeated %.2f s, %s read, %s written", r.SecondsAgain, units.Bytes(r.ReadAgain), units.Bytes(r.WrittenAgain))
	}
	if r.bad() {
		s += ": " + strings.ReplaceAll(r.why, "|", "/")
	}
	return s
}

// sorted keeps the order of the scenes, and puts the wrong rows last.
func sorted(rows []row) []row {
	var order []string
	for _, r := range rows {
		if !slices.Contains(order, r.Workload) {
			order = append(order, r.Workload)
		}
	}
	s := slices.Clone(rows)
	slices.SortStableFunc(s, func(a, b row) int {
		if d := slices.Index(order, a.Workload) - slices.Index(order, b.Workload); d != 0 {
			return d
		}
		switch {
		case a.Median == nil && b.Median == nil:
			return 0
		case a.Median == nil:
			return 1
		case b.Median == nil || *a.Median < *b.Median:
			return -1
		}
		return 1
	})
	return s
}

// writeReports writes bench.json, and bench.svg if there are several image sizes.
func writeReports(dir string, rows []row) error {
	text, err := json.MarshalIndent(rows, "", "  ")
	if err != nil {
		return err
	}
	files := map[string][]byte{"bench.json": append(text, '\n')}
	if svg := chart(rows); svg != "" {
		files["bench.svg"] = []byte(svg)
	} else {
		say("no chart: it wants the workload B6")
	}
	errs := []error{os.MkdirAll(dir, 0o755)}
	for name, text := range files {
		errs = append(errs, os.WriteFile(filepath.Join(dir, name), text, 0o644))
	}
	return errors.Join(errs...)
}

// failures is an error if a row of ours is wrong. What others get wrong is shown.
func failures(rows []row) error {
	var errs []error
	for _, r := range rows {
		if r.tool.ours && r.bad() {
			errs = append(errs, fmt.Errorf("%s: %s: %s: %s", r.Workload, r.Tool, r.Oracle, r.why))
		}
	}
	if len(errs) == 0 {
		return nil
	}
	return fault.With(fault.Failed, errors.Join(errs...))
}
