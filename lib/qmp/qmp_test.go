package qmp

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"xenlvm/lib/fault"
)

const hello = `{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": ""}, "capabilities": ["oob"]}}` + "\r\n"

// listen makes a socket. The paths of t.TempDir can be too long for one.
func listen(t *testing.T) net.Listener {
	t.Helper()
	t.Chdir(t.TempDir())
	l, err := net.Listen("unix", "qmp")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// peer is the other end of a connection, which a test plays.
type peer struct {
	net.Conn
	*bufio.Scanner
}

func (p peer) say(format string, args ...any) { fmt.Fprintf(p.Conn, format, args...) }

// answer reads a command and answers it.
func (p peer) answer(reply string) (command string) {
	if !p.Scan() {
		return ""
	}
	var c struct {
		Execute string
		ID      int64
	}
	if err := json.Unmarshal(p.Bytes(), &c); err != nil {
		panic(err)
	}
	p.say("{%s, \"id\": %d}\r\n", reply, c.ID)
	return c.Execute
}

// qemu plays a QEMU that greets and then does what play says, and is gone after it.
func qemu(t *testing.T, play func(p peer)) *Client {
	t.Helper()
	l := listen(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		p := peer{conn, bufio.NewScanner(conn)}
		p.say(hello)
		p.answer(`"return": {}`)
		play(p)
	}()
	c, err := Dial(t.Context(), "qmp", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		<-done
	})
	return c
}

func TestCommandsAndEvents(t *testing.T) {
	c := qemu(t, func(p peer) {
		p.Scan()
		want := `{"execute":"query-name","arguments":{"a":1},"id":2}`
		if p.Text() != want {
			t.Errorf("sent %s; want %s", p.Text(), want)
		}
		for i := range 3 {
			p.say(`{"event": "E%d", "data": {"n": %d}, "timestamp": {"seconds": 1}}`+"\r\n", i, i)
		}
		// A line may come in any parts, and two lines in one.
		for _, b := range []byte(`{"return": {"name": "vm3"}, "id": 2}`) {
			p.say("%c", b)
		}
		p.say("\r\n{\"event\": \"E3\"}\r\n")
		p.answer(`"error": {"class": "DeviceNotFound", "desc": "no \u001b[31mnode"}`)
		p.answer(`"return": {}`)
	})
	var events []string
	c.OnEvent(func(e Event) { events = append(events, e.Name+string(e.Data)) })
	var reply struct{ Name string }
	if err := c.Execute(t.Context(), "query-name", map[string]int{"a": 1}, &reply); err != nil || reply.Name != "vm3" {
		t.Errorf("answered %+v, %v", reply, err)
	}
	err := c.Execute(t.Context(), "x-fail", nil, nil)
	var answer *Error
	if !errors.As(err, &answer) || answer.Class != "DeviceNotFound" || err.Error() != "cannot run x-fail in QEMU: no ?[31mnode" {
		t.Errorf("error is %v", err)
	}
	if err := c.Execute(t.Context(), "again", nil, nil); err != nil {
		t.Errorf("after an error: %v", err)
	}
	if want := []string{`E0{"n": 0}`, `E1{"n": 1}`, `E2{"n": 2}`, "E3"}; !slices.Equal(events, want) {
		t.Errorf("events %q; want %q", events, want)
	}
}

func TestAbandonedCommand(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	abandoned := make(chan struct{})
	c := qemu(t, func(p peer) {
		p.Scan()
		p.say(`{"return": {"name": "la`)
		cancel(fault.ErrInterrupted)
		<-abandoned
		p.say(`te"}, "id": 2}` + "\r\n")
		p.answer(`"return": {"name": "next"}`)
	})
	if err := c.Execute(ctx, "slow", nil, nil); !errors.Is(err, fault.ErrInterrupted) {
		t.Errorf("error is %v; want that it was interrupted", err)
	}
	if err := c.Execute(ctx, "later", nil, nil); !errors.Is(err, fault.ErrInterrupted) {
		t.Errorf("a command after the interruption: %v", err)
	}
	close(abandoned)
	var reply struct{ Name string }
	if err := c.Execute(t.Context(), "next", nil, &reply); err != nil || reply.Name != "next" {
		t.Errorf("the next command: %+v, %v", reply, err)
	}
}

// A QEMU that hangs is not waited for without end; when it goes on, so do we.
func TestSilentQEMU(t *testing.T) {
	gaveUp := make(chan struct{})
	c := qemu(t, func(p peer) {
		for p.Scan() {
			if !strings.Contains(p.Text(), "job-complete") {
				p.say(`{"return": {"name": "next"}, "id": 3}` + "\r\n")
				continue
			}
			<-gaveUp
			p.say(`{"return": {"name": "late"}, "id": 2}` + "\r\n")
		}
	})
	c.patience = time.Millisecond
	err := c.Execute(t.Context(), "job-complete", nil, nil)
	if err == nil || !strings.Contains(err.Error(), "cannot run job-complete in QEMU: it has not answered within 1ms, and may still do what it was told") {
		t.Errorf("error is %v", err)
	}
	if hints := fault.Hints(err); len(hints) != 1 || !strings.Contains(hints[0], "fuser -v qmp") {
		t.Errorf("hints %q", hints)
	}
	close(gaveUp)
	c.patience = time.Minute
	var reply struct{ Name string }
	if err := c.Execute(t.Context(), "next", nil, &reply); err != nil || reply.Name != "next" {
		t.Errorf("the next command: %+v, %v", reply, err)
	}
}

func TestBadPeer(t *testing.T) {
	tests := []struct{ name, says, want string }{
		{"garbage", "Escape character is '^]'.\r\n", "it does not speak QMP"},
		{"a wrong type", `{"id": "two", "return": {}}` + "\n", "it does not speak QMP"},
		{"an endless line", strings.Repeat("x", longestLine+1), "a line of more than 4194304 bytes"},
		{"an empty answer", `{"id": 2}` + "\n", "its answer is empty"},
		{"an answer from the future", `{"id": 3, "return": {}}` + "\n", "it answers what was not asked"},
		{"an error without a command", `{"error": {"class": "GenericError", "desc": "JSON parse error"}}` + "\n", "it answers what was not asked"},
		{"half a line and the end", `{"return": {}`, "it closed the connection"},
		{"the end", "", "it closed the connection"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := qemu(t, func(p peer) {
				p.Scan()
				p.say("%s", tt.says)
			})
			for range 2 { // what is broken stays broken
				err := c.Execute(t.Context(), "cont", nil, nil)
				if err == nil || !strings.Contains(err.Error(), "the connection to qmp is lost: "+tt.want) {
					t.Errorf("error is %v; want %s", err, tt.want)
				}
			}
		})
	}
}

func TestDialRefuses(t *testing.T) {
	if _, err := Dial(t.Context(), filepath.Join(t.TempDir(), "no"), time.Minute); err == nil || !strings.Contains(err.Error(), "cannot reach QEMU") {
		t.Errorf("no socket: %v", err)
	}
	for _, says := range []string{"SSH-2.0-OpenSSH_9.2\r\n", "{}\n", ""} {
		l := listen(t)
		go func() {
			if conn, err := l.Accept(); err == nil {
				fmt.Fprint(conn, says)
				conn.Close()
			}
		}()
		if _, err := Dial(t.Context(), "qmp", time.Minute); err == nil || !strings.HasPrefix(err.Error(), "cannot talk to QEMU at qmp: ") {
			t.Errorf("a peer that says %q: %v", says, err)
		}
	}
}

// TestDialBusy: QEMU lets a second client connect and says nothing to it.
func TestDialBusy(t *testing.T) {
	l := listen(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		if conn, err := l.Accept(); err == nil {
			defer conn.Close()
			cancel(fault.ErrInterrupted)
			_, _ = conn.Read(make([]byte, 1)) // until the client is gone
		}
	}()
	_, err := Dial(ctx, "qmp", time.Minute)
	if !errors.Is(err, fault.ErrInterrupted) || !strings.Contains(err.Error(), "another program holds its only connection") {
		t.Errorf("error is %v", err)
	}
	if hints := fault.Hints(err); !slices.Equal(hints, []string{"ss -xp | grep qmp"}) {
		t.Errorf("hints %q", hints)
	}
	go func() {
		if conn, err := l.Accept(); err == nil {
			defer conn.Close()
			_, _ = conn.Read(make([]byte, 1))
		}
	}()
	if _, err := Dial(t.Context(), "qmp", time.Millisecond); err == nil || !strings.Contains(err.Error(), "holds its only connection: not free within 1ms") {
		t.Errorf("error is %v", err)
	}
}
