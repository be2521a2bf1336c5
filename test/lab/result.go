package main

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// result is what a run says about itself: the last line on stdout.
type result struct {
	OK           bool    `json:"ok"`
	Scenario     string  `json:"scenario"`
	Suite        string  `json:"suite"`
	Xen          bool    `json:"xen"`
	Leftovers    *int    `json:"leftovers"` // nil: the scenario never looked
	Seconds      float64 `json:"seconds"`   // ready to done
	BootSeconds  float64 `json:"boot_seconds"`
	Error        string  `json:"error,omitempty"`
	fields       map[string]string
	leftoverText string
}

// line writes the result as one line of JSON, the scenario's own fields after
// the lab's. A value that is a JSON number, boolean or null is one there too.
func (r result) line() (string, error) {
	head, err := json.Marshal(r)
	if err != nil {
		return "", err
	}
	line := strings.TrimSuffix(string(head), "}")
	for _, k := range slices.Sorted(maps.Keys(r.fields)) {
		key, err := json.Marshal(k)
		if err != nil {
			return "", err
		}
		value, err := json.Marshal(jsonValue(r.fields[k]))
		if err != nil {
			return "", err
		}
		line += fmt.Sprintf(",%s:%s", key, value)
	}
	return line + "}", nil
}

// jsonValue is text as the number, boolean or null that it spells, or as itself.
func jsonValue(text string) any {
	var v any
	if json.Unmarshal([]byte(text), &v) == nil {
		switch v.(type) {
		case bool, float64, nil:
			return json.RawMessage(strings.TrimSpace(text))
		}
	}
	return text
}

// read takes in what the scenario left in dir: its status, its leftovers and its
// fields. It sets OK only when the scenario ended with 0 and said that nothing
// is left.
func (r *result) read(dir string) error {
	text, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		return fmt.Errorf("cannot read the scenario's status: %w", err)
	}
	status, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return fmt.Errorf("cannot read the scenario's status: %w", err)
	}
	if err := r.readFields(filepath.Join(dir, "fields")); err != nil {
		return err
	}
	text, err = os.ReadFile(filepath.Join(dir, "leftovers"))
	switch {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		return err
	default:
		r.leftoverText = string(text)
		n := strings.Count(r.leftoverText, "\n")
		r.Leftovers = &n
	}
	switch {
	case status == 124 || status == 137:
		r.Error = "the scenario did not end within its time limit"
	case status != 0:
		r.Error = fmt.Sprintf("the scenario ended with exit status %d", status)
	case r.Leftovers == nil:
		r.Error = "the scenario never looked for leftovers"
	case *r.Leftovers > 0:
		r.Error = "the scenario left something behind"
	default:
		r.OK = true
	}
	return nil
}

// readFields reads the scenario's lines of key, TAB, value. A key of the lab's own
// is an error: it could make a lost run look good.
func (r *result) readFields(file string) error {
	text, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	r.fields = map[string]string{}
	own := []string{"ok", "scenario", "suite", "xen", "leftovers", "seconds", "boot_seconds", "error"}
	for line := range strings.Lines(string(text)) {
		key, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		if !ok || slices.Contains(own, key) {
			return fmt.Errorf("cannot take the result %q: not a field of the scenario", strings.TrimSpace(line))
		}
		r.fields[key] = value
	}
	return nil
}

// untar unpacks the tar at the start of the result disk into dir: files and
// folders only, none of them outside dir.
func untar(disk, dir string) error {
	f, err := os.Open(disk)
	if err != nil {
		return err
	}
	defer f.Close()
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("cannot read the result disk: %w", err)
		}
		name := filepath.Clean(h.Name)
		switch h.Typeflag {
		case tar.TypeDir:
			err = root.MkdirAll(name, 0o755)
		case tar.TypeReg:
			err = writeIn(root, name, r)
		}
		if err != nil {
			return err
		}
	}
}

func writeIn(root *os.Root, name string, r io.Reader) error {
	if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	f, err := root.Create(name)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}
