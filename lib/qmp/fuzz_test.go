package qmp

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
)

// parts is a connection on which data arrive in parts of so many bytes.
type parts struct {
	net.Conn
	data []byte
	size int
}

func (p *parts) Read(b []byte) (int, error) {
	n := copy(b[:min(len(b), p.size)], p.data)
	p.data = p.data[n:]
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

// Lines are those that were sent, in whatever parts they come, until one is no message.
func FuzzReceive(f *testing.F) {
	f.Add([]byte("{\"QMP\": {}}\n{\"return\": {}, \"id\": 1}\r\n"), 3)
	f.Add([]byte("{\"event\": \"STOP\"}\n\nnull\n[]\n{\"id\": -1}"), 1)
	f.Add([]byte("{\"error\": {\"class\": \"GenericError\", \"desc\": \"\x1b[2J\"}}\n"), 64)
	f.Fuzz(func(t *testing.T, sent []byte, size int) {
		if size < 1 {
			return
		}
		c := &Client{conn: &parts{data: slices.Clone(sent), size: size}}
		lines := bytes.Split(sent, []byte("\n"))
		for _, line := range lines[:len(lines)-1] {
			var want message
			bad := json.Unmarshal(line, &want)
			got, err := c.receive()
			if (err != nil) != (bad != nil) || err == nil && (got.Name != want.Name || string(got.Return) != string(want.Return)) {
				t.Fatalf("%q: %+v, %v; want %+v, %v", line, got, err, want, bad)
			}
			if bad != nil {
				if c.broken == nil {
					t.Fatal("it would go on behind a line that is no message")
				}
				return
			}
		}
		if m, err := c.receive(); err == nil {
			t.Fatalf("behind the last line: %+v", m)
		}
	})
}

// What a QEMU calls a file is never more than it said.
func FuzzFilename(f *testing.F) {
	f.Add("/srv/q.qcow2")
	f.Add(`json:{"driver": "raw", "file": {"driver": "host_device", "filename": "/dev/vg0/q"}}`)
	f.Add("json:" + strings.Repeat(`{"file":`, 100) + `{"filename":"/a"}` + strings.Repeat("}", 100))
	f.Fuzz(func(t *testing.T, s string) {
		// JSON may write a byte as an escape of six, or a wrong one as the three of U+FFFD.
		if got := filename(s); got == "" && s != "" || len(got) > 3*len(s) {
			t.Errorf("filename(%q) = %q", s, got)
		}
	})
}
