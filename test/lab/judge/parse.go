package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// event is one line of a guest. Kind is the word after GUEST, or ACK or HB.
type event struct {
	kind   string
	at     int64  // Unix nanoseconds, 0 when the line was cut before its stamp
	disk   string // ACK, and GUEST lines with disk=
	first  uint64 // ACK
	last   uint64 // ACK
	text   string // GUEST: what follows the kind, without the stamp; HB: " lost" or nothing
	fields map[string]string
}

// number returns a numeric field of a GUEST line, 0 when it is not there.
func (e event) number(key string) uint64 {
	n, err := strconv.ParseUint(e.fields[key], 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// Stamps have 19 digits from 2001 to 2286, so a line that was cut inside its stamp does not match. Lines match at their
// end only: what stands before may be the beginning of another line, or a message of the kernel.
var (
	ackLine   = regexp.MustCompile(`ACK (\S+) (\d+)(?:-(\d+))? (\d{19})$`)
	beatLine  = regexp.MustCompile(`HB (\d{19})( lost)?$`)
	guestLine = regexp.MustCompile(`GUEST (\w+) ?(.*?) ?t=(\d{19})$`)
	lostLine  = regexp.MustCompile(`GUEST LOST ?(.*?)(?: t=(\d*))?$`)
	field     = regexp.MustCompile(`(\w+)=("(?:[^"\\]|\\.)*"|\S+)`)
)

// parseLine reads one line without its newline. ok is false for a line that no guest wrote, or that is damaged; a loss
// is heard however damaged its line is.
func parseLine(line string) (e event, ok bool) {
	line = strings.TrimRight(line, "\r\n \x00")
	if m := lostLine.FindStringSubmatch(line); m != nil {
		at, _ := strconv.ParseInt(m[2], 10, 64) // 0 is right for a stamp that was cut
		return guestEvent("LOST", m[1], at), true
	}
	if m := ackLine.FindStringSubmatch(line); m != nil {
		first, err1 := strconv.ParseUint(m[2], 10, 64)
		last := first
		var err2 error
		if m[3] != "" {
			last, err2 = strconv.ParseUint(m[3], 10, 64)
		}
		at, err3 := strconv.ParseInt(m[4], 10, 64)
		ok = errors.Join(err1, err2, err3) == nil && first > 0 && first <= last
		return event{kind: "ACK", at: at, disk: m[1], first: first, last: last}, ok
	}
	if m := beatLine.FindStringSubmatch(line); m != nil {
		at, err := strconv.ParseInt(m[1], 10, 64)
		return event{kind: "HB", at: at, text: m[2]}, err == nil
	}
	if m := guestLine.FindStringSubmatch(line); m != nil {
		at, err := strconv.ParseInt(m[3], 10, 64)
		return guestEvent(m[1], m[2], at), err == nil
	}
	return event{}, false
}

func guestEvent(kind, text string, at int64) event {
	e := event{kind: kind, text: text, at: at, fields: map[string]string{}}
	for _, m := range field.FindAllStringSubmatch(text, -1) {
		e.fields[m[1]] = m[2]
	}
	e.disk = e.fields["disk"]
	return e
}

// readEvents reads a console log. A line that has no stamp gets that of the line before it. A file with no event in it is
// an error: it is no guest's log, or nothing was ever judged there.
func readEvents(path string) ([]event, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read console log: %w", err)
	}
	defer f.Close()
	var events []event
	in := bufio.NewReader(f)
	for {
		line, err := in.ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("cannot read console log: %w", err)
		}
		if e, ok := parseLine(line); ok {
			if e.at == 0 && len(events) > 0 {
				e.at = events[len(events)-1].at
			}
			events = append(events, e)
		}
		if err != nil {
			break
		}
	}
	if len(events) == 0 {
		return nil, fmt.Errorf("cannot judge %s: it holds no line of a guest", path)
	}
	return events, nil
}

// domainName returns whose console log path is.
func domainName(path string) string {
	name := strings.TrimSuffix(filepath.Base(path), ".log")
	name = strings.TrimPrefix(name, "guest-")
	// What the domain is called until its migration is complete.
	return strings.TrimSuffix(name, "--incoming")
}

// merge orders the events of several files by their stamps, each file in its own order.
func merge(files [][]event) []event {
	var all []event
	for {
		next := -1
		for i, f := range files {
			if len(f) > 0 && (next < 0 || f[0].at < files[next][0].at) {
				next = i
			}
		}
		if next < 0 {
			return all
		}
		all = append(all, files[next][0])
		files[next] = files[next][1:]
	}
}
