package main

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"time"
)

// marker starts a message from the dom0's init on the console.
const marker = "@lab@ "

type eventKind string

const (
	eventReady eventKind = "ready"
	eventDone  eventKind = "done"
	eventCrash eventKind = "crash"
	eventFail  eventKind = "fail"
)

// event is a message that changes the state of a run.
type event struct {
	kind eventKind
	text string
}

// console takes what the machine prints: each line goes to log with the seconds
// since the start, the scenario's own lines go to live as well, and the init's
// messages become events. It remembers the last lines, for when all goes wrong.
// One goroutine writes to it.
type console struct {
	start   time.Time
	log     io.Writer
	live    io.Writer
	verbose bool // live gets every line
	events  chan event
	partial []byte
	tail    []string
}

const tailLines = 40

func newConsole(log, live io.Writer, verbose bool) *console {
	// A run has three events; the room keeps Write from ever waiting.
	return &console{start: time.Now(), log: log, live: live, verbose: verbose, events: make(chan event, 16)}
}

// Write takes any piece of the console's output.
func (c *console) Write(p []byte) (int, error) {
	c.partial = append(c.partial, p...)
	for {
		i := bytes.IndexByte(c.partial, '\n')
		if i < 0 {
			return len(p), nil
		}
		line := strings.Trim(string(c.partial[:i]), "\r")
		c.partial = c.partial[i+1:]
		if err := c.line(line); err != nil {
			return 0, err
		}
	}
}

// Close takes in a last line without its newline.
func (c *console) Close() error {
	if len(c.partial) == 0 {
		return nil
	}
	_, err := c.Write([]byte("\n"))
	return err
}

func (c *console) line(line string) error {
	stamped := fmt.Sprintf("[%8.3f] %s\n", time.Since(c.start).Seconds(), line)
	if _, err := io.WriteString(c.log, stamped); err != nil {
		return err
	}
	c.tail = append(c.tail, line)
	if len(c.tail) > tailLines {
		c.tail = c.tail[1:]
	}
	// The kernel may have put a message of its own at the start of the line.
	_, message, ours := strings.Cut(line, marker)
	text, spoken := strings.CutPrefix(message, "| ")
	switch {
	case c.verbose:
		io.WriteString(c.live, stamped)
	case spoken:
		fmt.Fprintln(c.live, text)
	}
	if !ours || spoken {
		return nil
	}
	kind, text, _ := strings.Cut(message, " ")
	select {
	case c.events <- event{eventKind(kind), text}:
	default:
	}
	return nil
}

// last returns the last lines of the console.
func (c *console) last() string { return strings.Join(c.tail, "\n") }
