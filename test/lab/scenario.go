package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// scenario is a shell script that runs as root in the lab's dom0, and what it
// asks of the lab. The script says so in its leading comments:
//
//	#!/bin/bash
//	# one line that says what the scenario shows
//	# lab: suites=bookworm,trixie:full vg=12G,4G time=900 boots=2 xen=no mem=3G dom0_mem=1500M gotest=./lib/lvm
//
// On a suite that is marked :full scripts/test runs it only when all is asked for.
// A scenario with boots=N calls lab_crash in all but its Nth run, which it tells by
// LAB_BOOT.
type scenario struct {
	name    string
	path    string
	about   string
	vg      []string      // sizes of the empty disks, the first one for vg0
	limit   time.Duration // for all of its runs together, boots left out, before the time factor
	boots   int           // how often the host boots: all but the last end with a crash
	xen     bool
	mem     string   // of the whole machine; "" is the lab's choice
	dom0Mem string   // under Xen
	gotest  []string // packages whose tests it runs
	suites  []string // on which scripts/test runs it, marked where it does so only with --full
}

// defaults are what a scenario gets when it asks for nothing.
func defaults() scenario {
	return scenario{vg: []string{"8G"}, limit: 600 * time.Second, boots: 1, xen: true, dom0Mem: "1500M", suites: []string{suites[0].name}}
}

// scenario finds a scenario by its name or by its path and reads its header.
func (l *lab) scenario(arg string) (scenario, error) {
	path := arg
	if !strings.ContainsRune(arg, '/') {
		path = filepath.Join(l.dir(), "scenarios", arg+".sh")
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return scenario{}, fmt.Errorf("%w: no scenario %q", errUsage, arg)
	}
	if err != nil {
		return scenario{}, err
	}
	s, err := parseScenario(string(text))
	if err != nil {
		return scenario{}, fmt.Errorf("cannot read scenario %s: %w", path, err)
	}
	s.path, s.name = path, strings.TrimSuffix(filepath.Base(path), ".sh")
	return s, nil
}

// parseScenario reads the leading comments of a script.
func parseScenario(text string) (scenario, error) {
	s := defaults()
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "#!") {
			continue
		}
		comment, ok := strings.CutPrefix(line, "#")
		if !ok {
			break
		}
		comment = strings.TrimSpace(comment)
		if asks, ok := strings.CutPrefix(comment, "lab:"); ok {
			for word := range strings.FieldsSeq(asks) {
				if err := s.ask(word); err != nil {
					return scenario{}, err
				}
			}
		} else if s.about == "" {
			s.about = comment
		}
	}
	if s.about == "" {
		return scenario{}, errors.New("its first comment must say what it shows")
	}
	return s, nil
}

var sizeForm = regexp.MustCompile(`^[1-9][0-9]*[MG]$`)

// ask takes in one key=value of a "lab:" line.
func (s *scenario) ask(word string) error {
	key, value, _ := strings.Cut(word, "=")
	sizes := strings.Split(value, ",")
	switch key {
	case "vg":
		s.vg = sizes
	case "mem":
		s.mem = value
	case "dom0_mem":
		s.dom0Mem = value
	case "time", "boots":
		n, err := strconv.Atoi(value)
		if err != nil || n <= 0 {
			return fmt.Errorf("%s: not a number above zero", word)
		}
		if key == "boots" {
			s.boots = n
		} else {
			s.limit = time.Duration(n) * time.Second
		}
		return nil
	case "xen":
		if value != "yes" && value != "no" {
			return fmt.Errorf("%s: want yes or no", word)
		}
		s.xen = value == "yes"
		return nil
	case "gotest":
		s.gotest = sizes
		return nil
	case "suites":
		for _, name := range sizes {
			if _, err := suiteByName(strings.TrimSuffix(name, ":full")); err != nil {
				return err
			}
		}
		s.suites = sizes
		return nil
	default:
		return fmt.Errorf("%s: unknown key", word)
	}
	for _, size := range sizes {
		if !sizeForm.MatchString(size) {
			return fmt.Errorf("%s: want a size such as 512M or 12G", word)
		}
	}
	return nil
}

// list prints every scenario with the suites it is tested on, the seconds it may
// take and what it shows.
func (l *lab) list(stdout io.Writer) error {
	paths, err := filepath.Glob(filepath.Join(l.dir(), "scenarios", "*.sh"))
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', 0)
	for _, path := range paths {
		s, err := l.scenario(path)
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "%s\t%s\t%.0f\t%s\n", s.name, strings.Join(s.suites, ","), s.limit.Seconds(), s.about)
	}
	return w.Flush()
}

// timeFactor scales every time limit, for slow or busy machines.
func timeFactor() (float64, error) {
	text := os.Getenv("XENLVM_LAB_TIME_FACTOR")
	if text == "" {
		return 1, nil
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || f <= 0 {
		return 0, fmt.Errorf("%w: XENLVM_LAB_TIME_FACTOR=%s: want a positive number", errUsage, text)
	}
	return f, nil
}
