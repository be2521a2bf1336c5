// Package qmp speaks QEMU's machine protocol: enough of it to find a guest's
// disk in a running QEMU and to move it onto a block device under the guest.
// QMP is a line of JSON each way over a unix socket, so the standard library
// does; go-qemu knows no contexts and would bring libvirt's protocol along.
//
// For a guest on Xen's qdisk backend libxl runs a QEMU in dom0 with the socket
// /var/run/xen/qmp-libxl-DOMID. QEMU serves one client of a socket at a time,
// and xl needs it as well, for moments: whoever watches a mirror for hours
// should close the Client between two looks. A mirror goes on without one.
//
// A guest may have taken over its QEMU. What comes from there is bounded and
// checked, and names no file that this program opens.
package qmp

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"
	"unicode"

	"xenlvm/lib/fault"
	"xenlvm/lib/run"
)

const (
	longestLine = 4 << 20 // bytes; the longest reply describes all nodes, 2 KiB each
	longestText = 500     // bytes of an error's text that are shown
	interval    = 200 * time.Millisecond
)

// Client is a connection to a QEMU, ready for commands. It may be used by more
// than one goroutine; commands run one after the other.
type Client struct {
	socket   string
	patience time.Duration // how long one command may take
	conn     net.Conn
	turn     chan struct{} // holds a token while a command runs
	in       []byte        // read and not yet taken: a line may arrive in parts
	seen     int           // bytes of it that have no end of a line
	lastID   int64
	broken   error // why no command can run any more

	mu       sync.Mutex
	handlers []func(Event)
}

// Event is something that QEMU reports unasked, such as BLOCK_JOB_READY.
type Event struct {
	Name string          `json:"event"`
	Data json.RawMessage `json:"data"`
}

// Error is QEMU's answer to a command that failed.
type Error struct {
	Class string `json:"class"` // CommandNotFound, DeviceNotFound, mostly GenericError
	Desc  string `json:"desc"`
}

func (e *Error) Error() string { return printable(e.Desc) }

// message is any line that QEMU sends: the greeting, an event or a reply.
type message struct {
	Greeting json.RawMessage `json:"QMP"`
	ID       *int64          `json:"id"`
	Return   json.RawMessage `json:"return"`
	Error    *Error          `json:"error"`
	Event
}

// Close ends the connection. Jobs in QEMU go on.
func (c *Client) Close() error { return c.conn.Close() }

// OnEvent has f called for every event from now on, in their order. QEMU's lines
// are read while a command runs, so f runs within Execute, and must not call it.
func (c *Client) OnEvent(f func(Event)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.handlers = append(c.handlers, f)
}

// Execute runs a command and decodes what it returns into reply, if that is not
// nil. An *Error in the error is QEMU's answer. When ctx ends first, or patience
// with a QEMU that hangs, it may still run the command; the Client stays usable.
func (c *Client) Execute(ctx context.Context, command string, arguments, reply any) error {
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return fmt.Errorf("cannot run %s in QEMU: %w", command, context.Cause(ctx))
	}
	err := cmp.Or(c.broken, context.Cause(ctx))
	if err == nil {
		ctx, cancel := context.WithTimeoutCause(ctx, c.patience, c.silent())
		defer cancel()
		err = c.bound(ctx, func() error { return c.exchange(command, arguments, reply) })
	}
	if err != nil {
		return fmt.Errorf("cannot run %s in QEMU: %w", command, err)
	}
	return nil
}

// silent is the error of a command without an answer.
func (c *Client) silent() error {
	err := fmt.Errorf("it has not answered within %v, and may still do what it was told", c.patience)
	return fault.Hint(err, "see whether it hangs, or a disk of its: %s", run.Quote("fuser", "-v", c.socket)+"; dmesg | tail")
}

func (c *Client) exchange(command string, arguments, reply any) error {
	c.lastID++
	line, err := json.Marshal(struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
		ID        int64  `json:"id"`
	}{command, arguments, c.lastID})
	if err != nil {
		return err
	}
	n, err := c.conn.Write(append(line, '\n'))
	if err != nil && n == 0 && errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	if err != nil { // after half a command there is no telling what QEMU makes of the next
		return c.lost(err)
	}
	for {
		m, err := c.receive()
		switch {
		case err != nil:
			return err
		case m.Name != "":
			c.deliver(m.Event)
		case m.ID == nil || *m.ID > c.lastID:
			return c.lost(errors.New("it answers what was not asked"))
		case *m.ID < c.lastID: // the answer to a command that nobody waited for
		case m.Error != nil:
			return m.Error
		case m.Return == nil:
			return c.lost(errors.New("its answer is empty"))
		case reply == nil:
			return nil
		default:
			return json.Unmarshal(m.Return, reply)
		}
	}
}

func (c *Client) deliver(e Event) {
	c.mu.Lock()
	handlers := c.handlers
	c.mu.Unlock()
	for _, f := range handlers {
		f(e)
	}
}

// receive reads the next line. At a deadline it keeps what has come of it.
func (c *Client) receive() (message, error) {
	for {
		if line, rest, whole := bytes.Cut(c.in[c.seen:], []byte("\n")); whole {
			line, c.in, c.seen = c.in[:c.seen+len(line)], rest, 0
			var m message
			if err := json.Unmarshal(line, &m); err != nil {
				return m, c.lost(fmt.Errorf("it does not speak QMP: %w", err))
			}
			return m, nil
		}
		c.seen = len(c.in)
		if len(c.in) > longestLine {
			return message{}, c.lost(fmt.Errorf("a line of more than %d bytes", longestLine))
		}
		part := make([]byte, 64<<10)
		n, err := c.conn.Read(part)
		c.in = append(c.in, part[:n]...)
		switch {
		case n > 0:
		case errors.Is(err, os.ErrDeadlineExceeded):
			return message{}, err
		case errors.Is(err, io.EOF):
			return message{}, c.lost(errors.New("it closed the connection"))
		default:
			return message{}, c.lost(err)
		}
	}
}

// lost remembers why nothing can be said to this QEMU any more.
func (c *Client) lost(err error) error {
	c.broken = fmt.Errorf("the connection to %s is lost: %w", c.socket, err)
	return c.broken
}

// bound runs f, whose reads and writes fail once ctx ends, with the cause of ctx.
func (c *Client) bound(ctx context.Context, f func() error) error {
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		_ = c.conn.SetDeadline(time.Unix(1, 0))
	})
	err := f()
	if !stop() {
		<-ended
		_ = c.conn.SetDeadline(time.Time{}) // fails on a closed connection only
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return context.Cause(ctx)
	}
	return err
}

// wait waits a moment between two looks.
func wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(interval):
		return nil
	}
}

// printable is text from QEMU as it may be shown on a terminal.
func printable(s string) string {
	if len(s) > longestText {
		s = s[:longestText]
	}
	return strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}
