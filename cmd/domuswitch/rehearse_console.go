package main

import (
	"bytes"
	"os"
	"regexp"
	"sync"

	"golang.org/x/sys/unix"

	"xenlvm/lib/cli"
)

// What is kept and shown of a console: a guest may write there without end.
const (
	longestLine = 4 << 10 // bytes; what is longer counts as several lines
	linesKept   = 40      // a kernel that panics writes thirty
	mostShown   = 1 << 20 // bytes
)

// console reads what a guest writes. Nothing is ever typed there.
type console struct {
	file    *os.File
	pattern *regexp.Regexp // what is waited for, nil for nothing
	show    func(line string)
	found   chan struct{} // closed when a line has matched
	ended   chan struct{} // closed when nothing more comes

	mu      sync.Mutex
	lines   []string // the last whole ones
	partial []byte   // what follows them, such as a prompt
	match   string   // the line that has matched
	shown   int      // bytes
}

// openTerminal opens a guest's terminal, to read alone. That must be done before the
// guest runs, or its first lines may be lost.
func openTerminal(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
}

// readConsole reads a terminal until close.
func readConsole(f *os.File, pattern *regexp.Regexp, show func(string)) *console {
	c := &console{file: f, pattern: pattern, show: show, found: make(chan struct{}), ended: make(chan struct{})}
	go c.read()
	return c
}

func (c *console) read() {
	defer close(c.ended)
	buf := make([]byte, longestLine)
	for {
		n, err := c.file.Read(buf)
		c.take(buf[:n])
		if err != nil { // the terminal goes with its domain
			return
		}
	}
}

// close ends the reading. A nil console is one that was not opened.
func (c *console) close() {
	if c != nil {
		c.file.Close()
		<-c.ended
	}
}

func (c *console) take(b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(b) > 0 {
		end := bytes.IndexByte(b, '\n')
		n := min(len(b), longestLine-len(c.partial))
		if end >= 0 && end < n {
			n = end
		}
		c.partial = append(c.partial, b[:n]...)
		if b = b[n:]; len(b) == 0 {
			break
		}
		if b[0] == '\n' {
			b = b[1:]
		}
		c.endLine()
	}
	c.look(plain(c.partial))
}

// endLine keeps and shows the line that is complete.
func (c *console) endLine() {
	line := plain(c.partial)
	c.partial = c.partial[:0]
	c.look(line)
	c.lines = append(c.lines, line)
	c.lines = c.lines[max(0, len(c.lines)-linesKept):]
	if c.shown > mostShown {
		return
	}
	if c.shown += len(line) + 1; c.shown > mostShown {
		line = "(what follows is not shown any more)"
	}
	c.show(line)
}

func (c *console) look(line string) {
	if c.pattern != nil && c.match == "" && line != "" && c.pattern.MatchString(line) {
		c.match = line
		close(c.found)
	}
}

// seen is the line that has matched, "" for none.
func (c *console) seen() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.match
}

// last are the last lines, at most n, without what a terminal would obey.
func (c *console) last(n int) []string {
	if c == nil {
		return []string{}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	all := c.lines
	if rest := plain(c.partial); rest != "" {
		all = append(all[:len(all):len(all)], rest)
	}
	printable := []string{}
	for _, line := range all[max(0, len(all)-n):] {
		printable = append(printable, cli.Printable(line))
	}
	return printable
}

// colours and the like: systemd's lines are full of them.
var escapes = regexp.MustCompile(`\x1b(\[[0-?]*[ -/]*[@-~]|[()][0-9A-Za-z]|[=>78])`)

// plain is a line as it reads on a terminal.
func plain(line []byte) string {
	return string(bytes.TrimRight(escapes.ReplaceAll(line, nil), "\r"))
}
