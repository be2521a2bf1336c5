package rsync

import (
	"bytes"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Stats is what rsync counted. Bytes are of files, not of the disk.
type Stats struct {
	Files       int64 // of every type, in the source
	Created     int64
	Deleted     int64
	Transferred int64 // regular files whose contents were copied

	TotalBytes       int64 // of all regular files and links
	TransferredBytes int64 // of the regular files that were transferred
	LiteralBytes     int64 // of these, what was really sent
	MatchedBytes     int64 // and what the destination had already
}

// ParseStats reads the output of --stats in the C locale; numbers may have
// commas between their digits.
func ParseStats(text []byte) (Stats, error) {
	var s Stats
	fields := []struct {
		label string
		value *int64
	}{
		{"Number of files", &s.Files},
		{"Number of created files", &s.Created},
		{"Number of deleted files", &s.Deleted},
		{"Number of regular files transferred", &s.Transferred},
		{"Total file size", &s.TotalBytes},
		{"Total transferred file size", &s.TransferredBytes},
		{"Literal data", &s.LiteralBytes},
		{"Matched data", &s.MatchedBytes},
	}
	values := map[string]string{}
	for line := range strings.Lines(string(text)) {
		label, value, found := strings.Cut(line, ": ")
		if found {
			values[label] = value
		}
	}
	for _, f := range fields {
		words := strings.Fields(values[f.label])
		if len(words) == 0 {
			return Stats{}, fmt.Errorf("cannot read the statistics of rsync: no %q in them", f.label)
		}
		n, err := strconv.ParseInt(strings.ReplaceAll(words[0], ",", ""), 10, 64)
		if err != nil || n < 0 {
			return Stats{}, fmt.Errorf("cannot read the statistics of rsync: %q is no count", words[0])
		}
		*f.value = n
	}
	return s, nil
}

// Progress is how far a copy is. rsync walks the source while it copies, so
// the totals grow until Listed.
type Progress struct {
	Bytes       int64 // copied or found to be there already
	Transferred int64 // regular files whose contents were copied
	Checked     int64 // entries of the source that are done with
	Found       int64 // entries of the source that are known so far
	Listed      bool  // all of them are known
}

var progressLine = regexp.MustCompile(`^\s*([0-9,]+)\s+[0-9]+%\s.*?(?:\(xfr#([0-9]+), (to|ir)-chk=([0-9]+)/([0-9]+)\))?\s*$`)

// parseProgress reads a line of --info=progress2. The counts in parentheses are
// only there when a file has ended.
func parseProgress(line []byte, before Progress) (Progress, bool) {
	m := progressLine.FindSubmatch(line)
	if m == nil {
		return before, false
	}
	number := func(b []byte) int64 {
		n, _ := strconv.ParseInt(strings.ReplaceAll(string(b), ",", ""), 10, 64) // digits: the pattern says so
		return n
	}
	p := before
	p.Bytes = number(m[1])
	if m[2] != nil {
		p.Transferred = number(m[2])
		p.Listed = string(m[3]) == "to"
		p.Found = number(m[5])
		p.Checked = p.Found - number(m[4])
	}
	return p, true
}

// outputKept bounds what is remembered of rsync's output: the statistics at its
// end are shorter than 1 KiB.
const outputKept = 16 << 10

// output splits rsync's standard output into progress, which ends in a carriage
// return, and the lines in between.
type output struct {
	progress func(Progress)
	last     Progress
	partial  []byte
	lines    []byte
}

func (o *output) Write(p []byte) (int, error) {
	written := len(p)
	for len(p) > 0 {
		i := bytes.IndexAny(p, "\r\n")
		if i < 0 {
			// A line without end cannot be a progress line any more.
			o.partial = keep(append(o.partial, p...))
			break
		}
		o.line(append(o.partial, p[:i]...))
		o.partial = o.partial[:0]
		p = p[i+1:]
	}
	return written, nil
}

func (o *output) line(line []byte) {
	next, ok := parseProgress(line, o.last)
	if !ok {
		o.lines = keep(append(append(o.lines, line...), '\n'))
		return
	}
	o.last = next
	if o.progress != nil {
		o.progress(next)
	}
}

func (o *output) rest() []byte { return append(o.lines, o.partial...) }

func keep(b []byte) []byte {
	if over := len(b) - outputKept; over > 0 {
		b = append(b[:0], b[over:]...)
	}
	return b
}
