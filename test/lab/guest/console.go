package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// console writes the guest's lines. One goroutine writes, each time whole lines; a console that stalls delays lines but
// not the stamps in them, so that a gap between two heartbeats is a pause of the guest and not of its console.
type console struct {
	queue chan string
	done  chan struct{} // closed when all of a closed queue is written

	mu    sync.Mutex
	acks  map[string]*ackRange // by disk: acknowledged, not yet printed
	order []string             // disks in the order of their first acknowledgement
	lost  bool
}

// ackRange is a run of acknowledged records, and when the last of them was.
type ackRange struct {
	first, last uint64
	at          int64 // Unix nanoseconds
}

// newConsole writes to w until close.
func newConsole(w io.Writer) *console {
	c := &console{queue: make(chan string, 1<<14), done: make(chan struct{}), acks: map[string]*ackRange{}}
	go func() {
		defer close(c.done)
		for s := range c.queue {
			io.WriteString(w, s) // there is nowhere to report that the console is gone
		}
	}()
	return c
}

// say queues one GUEST line.
func (c *console) say(format string, args ...any) {
	text := strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", "; ")
	c.queue <- fmt.Sprintf("GUEST %s t=%d\n", text, time.Now().UnixNano())
}

// lose says what was lost; every heartbeat from now on repeats that something was.
func (c *console) lose(format string, args ...any) {
	// Said first: no heartbeat tells of a loss that has not been told.
	c.say("LOST "+format, args...)
	c.mu.Lock()
	c.lost = true
	c.mu.Unlock()
}

// isLost says whether anything was lost.
func (c *console) isLost() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lost
}

// ack notes that the records first to last of a disk are on it. They are printed with the next heartbeat.
func (c *console) ack(disk string, first, last uint64, at int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.acks[disk]
	switch {
	case r == nil:
		c.order = append(c.order, disk)
		c.acks[disk] = &ackRange{first, last, at}
	case r.first == 0:
		*r = ackRange{first, last, at}
	default:
		r.last, r.at = last, at
	}
}

// beat queues the acknowledgements since the last one and a heartbeat. A full queue costs the beat, never an
// acknowledgement.
func (c *console) beat(now time.Time) {
	if len(c.queue) >= cap(c.queue)-1 {
		return
	}
	c.mu.Lock()
	var b strings.Builder
	for _, disk := range c.order {
		r := c.acks[disk]
		switch {
		case r.first == 0:
			continue
		case r.first == r.last:
			fmt.Fprintf(&b, "ACK %s %d %d\n", disk, r.first, r.at)
		default:
			fmt.Fprintf(&b, "ACK %s %d-%d %d\n", disk, r.first, r.last, r.at)
		}
		r.first = 0
	}
	fmt.Fprintf(&b, "HB %d", now.UnixNano())
	if c.lost {
		b.WriteString(" lost")
	}
	c.mu.Unlock()
	c.queue <- b.String() + "\n"
}

// close waits until everything is written, at most for limit. Nothing may be said any more.
func (c *console) close(limit time.Duration) {
	close(c.queue)
	select {
	case <-c.done:
	case <-time.After(limit):
	}
}
