package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"
)

// tail follows one file. A file that is not there yet is empty.
type tail struct {
	path   string
	offset int64
	rest   string // a last line that is not complete
}

// lines returns the complete lines written since the last call.
func (t *tail) lines() ([]string, error) {
	f, err := os.Open(t.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.NewSectionReader(f, t.offset, 1<<62))
	if err != nil {
		return nil, err
	}
	t.offset += int64(len(b))
	text := t.rest + string(b)
	end := strings.LastIndexByte(text, '\n') + 1
	t.rest = text[end:]
	var lines []string
	for l := range strings.Lines(text[:end]) {
		lines = append(lines, l)
	}
	return lines, nil
}

// waited is the JSON object printed after waiting.
type waited struct {
	Records uint64  `json:"records"` // acknowledged meanwhile
	Line    string  `json:"line,omitempty"`
	Seconds float64 `json:"seconds"`
}

// wait follows the files until the records or the text came. A timeout is an error.
func wait(ctx context.Context, opt options, paths []string, w io.Writer) error {
	var tails []*tail
	for _, p := range paths {
		t := &tail{path: p, offset: max(opt.from, 0)}
		if opt.from < 0 {
			info, err := os.Stat(p)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			if err == nil {
				t.offset = info.Size()
			}
		}
		tails = append(tails, t)
	}
	start := time.Now()
	var got waited
	for {
		for _, t := range tails {
			lines, err := t.lines()
			if err != nil {
				return fmt.Errorf("cannot follow console log: %w", err)
			}
			for _, l := range lines {
				got.take(l, opt.text)
			}
		}
		if got.Records >= opt.records && (opt.text == "" || got.Line != "") {
			got.Seconds = time.Since(start).Seconds()
			return json.NewEncoder(w).Encode(got)
		}
		if time.Since(start) > opt.timeout {
			return fmt.Errorf("%d records and %q did not come within %v: saw %d records", opt.records, opt.text, opt.timeout, got.Records)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (g *waited) take(line, text string) {
	if e, ok := parseLine(line); ok && e.kind == "ACK" {
		g.Records += e.last - e.first + 1
	}
	if text != "" && g.Line == "" && strings.Contains(line, text) {
		g.Line = strings.TrimSpace(line)
	}
}
