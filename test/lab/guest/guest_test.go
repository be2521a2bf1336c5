package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"xenlvm/test/lab/record"
)

func TestOptions(t *testing.T) {
	words := map[string]string{"lab.root": "/dev/xvda1", "lab.disks": "xvdb,/dev/xvdc", "lab.rate": "0", "lab.size": "4K", "lab.swap": "xvda2",
		"lab.heartbeat": "50ms", "lab.files": "a:1M,b/c:10", "lab.ignore-shutdown": "1"}
	get := func(n string) (string, bool) { v, ok := words[n]; return v, ok }
	got, err := parseOptions(get)
	want := options{disks: []string{"xvda1", "xvdb", "xvdc"}, size: 4096, swap: "xvda2", heartbeat: 50 * time.Millisecond, wait: time.Minute,
		files: []fileSize{{"a", 1 << 20}, {"b/c", 10}}, ignoreShutdown: true}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	words = map[string]string{"lab.rate": "many", "lab.size": "1G", "lab.heartbeat": "0s", "lab.files": "a"}
	got, err = parseOptions(get)
	for w := range words {
		if err == nil || !strings.Contains(err.Error(), w+"=") {
			t.Errorf("%s is not named by %v", w, err)
		}
	}
	if got.rate != 50 || got.size != 512 || got.heartbeat != 20*time.Millisecond || got.files != nil {
		t.Errorf("defaults are gone: %+v", got)
	}
}

func TestParseSize(t *testing.T) {
	for s, want := range map[string]int64{"0": 0, "512": 512, "3K": 3 << 10, "2M": 2 << 20, "1G": 1 << 30, "": -1, "K": -1, "-1": -1, "1KM": -1, "1T": -1, "99999999999G": -1} {
		n, err := parseSize(s)
		if err != nil {
			n = -1
		}
		if n != want {
			t.Errorf("parseSize(%q) = %d, %v", s, n, err)
		}
	}
}

// fakeXenstore answers like the host: an unrelated watch event before each reply.
func fakeXenstore(conn net.Conn, nodes map[string]string, readOnly string) {
	for {
		kind, id, payload, err := decodeMessage(conn)
		if err != nil {
			return
		}
		path, value, _ := strings.Cut(string(payload), "\x00")
		conn.Write(encodeMessage(xsWatchEvent, 0, []byte("x\x00y\x00")))
		_, exists := nodes[path]
		switch {
		case kind == xsRead && !exists:
			conn.Write(encodeMessage(xsError, id, []byte("ENOENT\x00")))
		case kind == xsRead:
			conn.Write(encodeMessage(xsRead, id, []byte(nodes[path])))
		case kind == xsWrite && path == readOnly:
			conn.Write(encodeMessage(xsError, id, []byte("EACCES\x00")))
		case kind == xsWrite:
			nodes[path] = value
			conn.Write(encodeMessage(xsWrite, id, []byte("OK\x00")))
		default:
			conn.Write(encodeMessage(xsError, id, []byte("EINVAL\x00")))
		}
	}
}

func TestXenstore(t *testing.T) {
	here, there := net.Pipe()
	defer here.Close()
	nodes := map[string]string{"name": "vm3", "/lab/vm3/acked": "0"}
	go fakeXenstore(there, nodes, "/ro")
	x := &xenstore{conn: here}
	if v, err := x.read("name"); v != "vm3" || err != nil {
		t.Errorf("name: %q, %v", v, err)
	}
	if err := x.write("/lab/vm3/acked", "17"); err != nil {
		t.Error(err)
	}
	if v, err := x.read("/lab/vm3/acked"); v != "17" || err != nil {
		t.Errorf("acked: %q, %v", v, err)
	}
	if _, err := x.read("none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing node: %v", err)
	}
	if err := x.write("/ro", "1"); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("read-only node: %v", err)
	}
	if _, err := x.call(99, nil); err == nil || err.Error() != "EINVAL" {
		t.Errorf("unknown request: %v", err)
	}
	if err := x.write("/big", strings.Repeat("x", 5000)); err == nil {
		t.Error("a message longer than the protocol allows was sent")
	}
}

func TestXenstoreFraming(t *testing.T) {
	got := encodeMessage(xsWrite, 7, []byte("a\x00b"))
	want := []byte{11, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 'a', 0, 'b'}
	if !bytes.Equal(got, want) {
		t.Errorf("framed % x", got)
	}
	if _, _, _, err := decodeMessage(bytes.NewReader(want[:18])); err == nil {
		t.Error("a cut message was read")
	}
	want[13] = 0xff
	if _, _, _, err := decodeMessage(bytes.NewReader(want)); err == nil {
		t.Error("a message of impossible length was read")
	}
}

// lines is a console's output, one element per write. Read it after close.
type lines []string

func (l *lines) Write(b []byte) (int, error) { *l = append(*l, string(b)); return len(b), nil }

func TestConsole(t *testing.T) {
	var out lines
	c := newConsole(&out)
	c.ack("xvda", 1, 1, 11)
	c.ack("xvdb", 5, 9, 12)
	c.ack("xvda", 2, 4, 13)
	c.beat(time.Unix(0, 14))
	c.beat(time.Unix(0, 15))
	c.ack("xvdb", 10, 10, 16)
	c.lose("disk=%s\nworse", "xvda")
	c.beat(time.Unix(0, 17))
	c.close(time.Minute)
	want := []string{"ACK xvda 1-4 13\nACK xvdb 5-9 12\nHB 14\n", "HB 15\n", "GUEST LOST disk=xvda; worse t=", "ACK xvdb 10 16\nHB 17 lost\n"}
	if len(out) != len(want) {
		t.Fatalf("%q", out)
	}
	for i, w := range want {
		if !strings.HasPrefix(out[i], w) || !strings.HasSuffix(out[i], "\n") {
			t.Errorf("write %d is %q, want %q", i, out[i], w)
		}
	}
}

// stalled is a console that takes nothing until it is opened.
type stalled struct {
	open chan struct{}
	out  lines
}

func (s *stalled) Write(b []byte) (int, error) { <-s.open; return s.out.Write(b) }

func TestStalledConsoleLosesNoAcknowledgement(t *testing.T) {
	s := &stalled{open: make(chan struct{})}
	c := newConsole(s)
	const n = 20000 // more than the queue holds
	for i := range uint64(n) {
		c.ack("xvda", i+1, i+1, 1)
		c.beat(time.Unix(0, 1))
	}
	close(s.open)
	for len(c.queue) > 0 {
		time.Sleep(time.Millisecond)
	}
	c.beat(time.Unix(0, 2))
	c.close(time.Minute)
	if got := s.out[len(s.out)-1]; !strings.Contains(got, fmt.Sprintf("-%d 1\n", n)) {
		t.Errorf("the last line is %q", got)
	}
}

func TestPace(t *testing.T) {
	start := time.Unix(1000, 0)
	var p pace
	written := 0
	for ms := range 1000 {
		n, _ := p.next(start.Add(time.Duration(ms)*time.Millisecond), 50)
		written += n
	}
	if written != 50 {
		t.Errorf("%d records in a second, want 50", written)
	}
	if n, _ := p.next(start.Add(time.Hour), 50); n != maxBatch {
		t.Errorf("after a pause of an hour a batch of %d", n)
	}
	if n, sleep := p.next(start.Add(time.Hour), 50); n != 0 || sleep <= 0 || sleep > 20*time.Millisecond {
		t.Errorf("after the batch %d more, sleep %v", n, sleep)
	}
	if n, _ := p.next(start, 0); n != 1 {
		t.Errorf("without a rate %d at once", n)
	}
}

// A disk's whole life on a directory: write, verify, roll back, be refused.
func TestDisk(t *testing.T) {
	dir := t.TempDir()
	var out lines
	con := newConsole(&out)
	session := func(boot uint64, until uint64) *disk {
		d := newDisk("xvda", dir)
		rep, ok := d.check(con, 0)
		if !ok || d.nextBoot() != boot {
			t.Fatalf("boot %d: ok %v, %v, next boot %d", boot, ok, rep, d.nextBoot())
		}
		must(t, d.open(rep, boot, 100))
		must(t, d.saveBoot(boot))
		ctx, cancel := context.WithCancel(context.Background())
		var rate atomic.Int64
		go func() {
			defer cancel()
			for d.acked.Load() < until {
				time.Sleep(time.Millisecond)
			}
		}()
		d.write(ctx, con, &rate)
		must(t, d.log.Close())
		return d
	}
	first := session(1, 20)
	old, err := os.ReadFile(first.logPath())
	must(t, err)
	second := session(2, first.acked.Load()+20)
	if _, ok := second.check(con, 0); !ok {
		t.Error("live verification fails on a good log")
	}
	acked := second.acked.Load()

	must(t, os.WriteFile(first.logPath(), old, 0o644))
	if _, ok := second.check(con, 0); ok || !con.isLost() {
		t.Error("live verification passes a disk that was rolled back")
	}
	if _, ok := newDisk("xvda", dir).check(con, acked); ok {
		t.Error("a boot that knows the acknowledged number passes a disk that was rolled back")
	}
	if _, ok := newDisk("xvda", dir).check(con, first.acked.Load()); !ok {
		t.Error("a good disk is refused")
	}
	old[len(old)/2] ^= 1
	must(t, os.WriteFile(first.logPath(), old, 0o644))
	if _, ok := newDisk("xvda", dir).check(con, 0); ok {
		t.Error("a boot passes a record damaged in the middle")
	}
	con.close(time.Minute)
	text := strings.Join(out, "")
	if n := strings.Count(text, "GUEST LOST disk=xvda count="); n != 3 {
		t.Errorf("%d complaints, want 3:\n%s", n, text)
	}
}

// Once anything is lost nothing is written any more.
func TestLostStopsTheWriter(t *testing.T) {
	con := newConsole(&lines{})
	d := newDisk("xvda", t.TempDir())
	must(t, d.open(record.Report{}, 1, 10))
	defer d.log.Close()
	con.lose("test")
	d.write(context.Background(), con, new(atomic.Int64))
	if d.log.Last() != 0 {
		t.Errorf("%d records written", d.log.Last())
	}
	con.close(time.Minute)
}

func TestCommands(t *testing.T) {
	var out lines
	g := &guest{con: newConsole(&out), disks: []*disk{newDisk("xvda", t.TempDir()), newDisk("xvdb", t.TempDir())}}
	for _, d := range g.disks {
		must(t, os.MkdirAll(d.files.dir, 0o755))
	}
	for line, want := range map[string]string{
		"fill a 10K":      "fill a 10K ok",
		"fill xvdb:b 1 7": "fill xvdb:b 1 7 ok",
		"fill xvdc:b 1":   "fill xvdc:b 1 error no disk xvdc is mounted",
		"fill  a":         "fill a error unknown command",
		"mkfs":            "mkfs error unknown command",
		"rate 7":          "rate 7 ok",
		"rate -7":         "rate -7 error",
	} {
		if got := g.do(line); !strings.HasPrefix(got, want) {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
	if g.rate.Load() != 7 {
		t.Errorf("rate is %d", g.rate.Load())
	}
	for _, d := range g.disks {
		d.files.expect(t, 1, 0)
	}
	g.con.lose("test")
	if got := g.do("fill c 1"); !strings.Contains(got, "error refused") {
		t.Errorf("after a loss: %q", got)
	}
	g.con.close(time.Minute)
}

func TestLoadModules(t *testing.T) {
	dir := t.TempDir()
	if err := loadModules(dir); err != nil {
		t.Errorf("no list: %v", err)
	}
	must(t, os.WriteFile(filepath.Join(dir, "load"), []byte("# none\n\nnothere\nalso.ko\n"), 0o644))
	err := loadModules(dir)
	if err == nil || !strings.Contains(err.Error(), "nothere.ko") || !strings.Contains(err.Error(), "also.ko") {
		t.Errorf("missing modules: %v", err)
	}
}
