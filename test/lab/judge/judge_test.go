package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// t0 is the stamp that the crafted logs count from: "@250" is 250 ms later.
const t0 = 1_700_000_000_000_000_000

// stamp replaces every @N in a log by the stamp N milliseconds after t0.
func stamp(log string) string {
	var b strings.Builder
	for i, part := range strings.Split(log, "@") {
		if i == 0 {
			b.WriteString(part)
			continue
		}
		var ms int64
		digits := len(part) - len(strings.TrimLeft(part, "0123456789"))
		fmt.Sscan(part[:digits], &ms)
		fmt.Fprintf(&b, "%d%s", t0+ms*1e6, part[digits:])
	}
	return b.String()
}

// boot is the beginning of a boot that found records up to last.
func boot(ms, last int) string {
	return fmt.Sprintf("GUEST start kernel 6.1 t=@%d\nGUEST boot 1 kernel 6.1 t=@%d\nGUEST verified disk=xvda records=%d last=%d bytes=9 t=@%d\nGUEST files disk=xvda verified=0 bad=0 t=@%d\n",
		ms, ms, last, last, ms, ms)
}

func write(t *testing.T, dir, name, log string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(stamp(log)), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// judgeLog runs judge on one crafted log and returns its domain and error.
func judgeLog(t *testing.T, log string, args ...string) (domain, error) {
	t.Helper()
	path := write(t, t.TempDir(), "guest-vm3.log", log)
	var out bytes.Buffer
	err := run(context.Background(), append(args, path), &out)
	if err != nil && !errors.Is(err, errLost) {
		t.Fatal(err)
	}
	var v struct{ Domains map[string]domain }
	if err := json.Unmarshal(out.Bytes(), &v); err != nil {
		t.Fatalf("%v in %s", err, out.Bytes())
	}
	return v.Domains["vm3"], err
}

func TestVerdict(t *testing.T) {
	tests := []struct {
		name    string
		log     string
		records uint64 // lost
		files   uint64 // lost
		ok      bool
	}{
		{"clean", boot(0, 0) + "ACK xvda 1-100 @10\n" + boot(1000, 100) + "ACK xvda 101 @1010\n", 0, 0, true},
		{"more on the disk than acknowledged", boot(0, 0) + "ACK xvda 1-100 @10\n" + boot(1000, 104), 0, 0, true},
		{"rolled back", boot(0, 0) + "ACK xvda 1-100 @10\n" + boot(1000, 80) + "ACK xvda 81-90 @1010\n" + boot(2000, 90), 20, 0, false},
		{"rolled back twice", boot(0, 0) + "ACK xvda 1-100 @10\n" + boot(1000, 80) + "ACK xvda 81-200 @1010\n" + boot(2000, 80), 140, 0, false},
		{"rolled back, verification unseen", boot(0, 0) + "ACK xvda 1-100 @10\nACK xvda 81-90 @20\n", 20, 0, false},
		{"verified records gone", boot(0, 100) + boot(1000, 80), 20, 0, false},
		{"empty disk", boot(0, 0) + "ACK xvda 1-7 @10\n" + boot(1000, 0), 7, 0, false},
		{"guest complains", boot(0, 0) + "ACK xvda 1-9 @10\nGUEST start kernel 6.1 t=@1000\nGUEST LOST disk=xvda count=1 acked=9 records=3 last=3 bytes=1 tail=5 after=5 durable=8 reason=\"record 4 at offset 9: no magic\" t=@1001\n", 1, 0, false},
		{"guest knows less than the console", boot(0, 0) + "ACK xvda 1-9 @10\nGUEST start kernel 6.1 t=@1000\nGUEST LOST disk=xvda count=2 acked=5 records=3 last=3 bytes=1 t=@1001\n", 6, 0, false},
		{"the same complaint at every boot", boot(0, 0) + strings.Repeat("GUEST start kernel 6.1 t=@10\nGUEST LOST disk=xvda count=2 acked=5 last=3 t=@11\n", 3), 2, 0, false},
		{"complaint cut off", boot(0, 0) + "GUEST LOST disk=xv", 1, 0, false},
		{"complaint behind other text", boot(0, 0) + "[   2.0] EXT4-fs errGUEST LOST disk=xvda count=1 t=@11\n", 1, 0, false},
		{"only the heartbeat tells", boot(0, 0) + "GUEST LO[  3.0] x\nHB @20 lost\nHB @40 lost\n", 1, 0, false},
		{"the heartbeat tells first", boot(0, 0) + "HB @20 lost\nGUEST LOST disk=xvda count=3 t=@21\nHB @40 lost\n", 3, 0, false},
		{"never verified", "GUEST start kernel 6.1 t=@0\nACK xvda 1 @10\n", 0, 0, false},
		{"last boot finds no disk", boot(0, 0) + "GUEST start kernel 6.1 t=@1000\nGUEST FAIL cannot find device xvda t=@1001\n", 0, 0, false},
		{"one boot finds no disk, the next does", boot(0, 0) + "GUEST start kernel 6.1 t=@1000\nGUEST FAIL cannot find device xvda t=@1001\n" + boot(2000, 0), 0, 0, true},
		{"file missing", boot(0, 0) + "GUEST doing fill a 1M t=@5\nGUEST did fill a 1M ok t=@6\n" + boot(1000, 0), 0, 1, false},
		{"file deleted", boot(0, 0) + "GUEST did fill a 1M ok t=@6\nGUEST doing delete a t=@7\nGUEST did delete a ok t=@8\n" + boot(1000, 0), 0, 0, true},
		{"crash in a delete", boot(0, 0) + "GUEST did fill a 1M ok t=@6\nGUEST doing delete a t=@7\n" + boot(1000, 0), 0, 0, true},
		{"fill refused", boot(0, 0) + "GUEST doing fill a 1M t=@5\nGUEST did fill a 1M error full t=@6\n" + boot(1000, 0), 0, 0, true},
		{"file damaged", boot(0, 0) + "GUEST LOST disk=xvda file=a reason=\"sum\" t=@6\nGUEST files disk=xvda verified=0 bad=1 t=@7\n", 0, 1, false},
		{"torn tail", boot(0, 0) + "GUEST torn disk=xvda bytes=9 reason=\"cut\" t=@6\n", 0, 0, true},
		{"partial and foreign lines", "ACK xvda 500-600 1700\n[    0.1] Linux\r\nHB 17000\n" + boot(0, 0) + "ACK xvda 1-1\r\nACK xvda 1ACK xvda 1-3 @10\r\nACK xv", 0, 0, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d, err := judgeLog(t, tt.log)
			if d.RecordsLost != tt.records || d.FilesLost != tt.files || (err == nil) != tt.ok {
				t.Errorf("lost %d records, %d files, error %v; want %d, %d, ok %v\n%v", d.RecordsLost, d.FilesLost, err, tt.records, tt.files, tt.ok, d.Losses)
			}
			if (tt.records+tt.files > 0) != (len(d.Losses) > 0) {
				t.Errorf("losses %q", d.Losses)
			}
		})
	}
}

func TestNumbers(t *testing.T) {
	d, err := judgeLog(t, boot(0, 0)+"HB @0\nHB @20\nACK xvda 1-10 @30\nHB @40\nACK xvdb 1 @45\nACK xvda 14 @2000\nHB @3040\nHB @3060\nGUEST shutdown reboot t=@3070\n"+
		boot(10000, 14)+"HB @10060\nACK xvda 15-16 @10070\nHB @10050\n", "--window", fmt.Sprintf("%d,%d", int64(t0), int64(t0+2e9)), "--gap", "2s")
	if err != nil {
		t.Fatal(err, d.Losses)
	}
	if d.Boots != 2 || d.CleanShutdowns != 1 || d.MaxGap != 7 || d.MaxPause != 3 || len(d.Gaps) != 2 || d.Beats != 7 || d.ClockBack != 0.01 {
		t.Errorf("%+v", d)
	}
	if g := d.Gaps[0]; g.Start != t0+40e6 || g.End != t0+3040e6 || g.BootBefore != 1 || g.BootAfter != 1 || g.Acked["xvda"] != 14 {
		t.Errorf("first gap %+v", g)
	}
	if d.Longest == nil || d.Longest.BootBefore != 1 || d.Longest.BootAfter != 2 {
		t.Errorf("longest gap %+v", d.Longest)
	}
	if k := d.Disks["xvda"]; k == nil || k.Acked != 16 || k.Records != 13 || k.Unseen != 3 || k.Unproven != 2 {
		t.Errorf("xvda %+v", k)
	}
	if len(d.Windows) != 1 || d.Windows[0].Records != 11 {
		t.Errorf("windows %+v", d.Windows)
	}
	if len(d.Verified) != 2 || d.Verified[1].Boot != 2 || d.Verified[1].Last != 14 || d.Verified[1].Acked != 14 {
		t.Errorf("verified %+v", d.Verified)
	}
}

// A migration leaves what the domain said meanwhile in another file.
func TestFilesOfOneDomain(t *testing.T) {
	dir := t.TempDir()
	first := write(t, dir, "guest-vm3.log", boot(0, 0)+"ACK xvda 1-10 @10\nHB @20\nACK xvda 21-30 @3000\n"+boot(4000, 25))
	second := write(t, dir, "guest-vm3--incoming.log", "HB @1020\nACK xvda 11-20 @1030\n")
	var out bytes.Buffer
	if err := run(context.Background(), []string{second, first}, &out); !errors.Is(err, errLost) {
		t.Fatalf("5 lost records passed: %v", err)
	}
	var v verdict
	if err := json.Unmarshal(out.Bytes(), &v); err != nil {
		t.Fatal(err)
	}
	d := v.Domains["vm3"]
	if len(v.Domains) != 1 || d.RecordsLost != 5 || d.Disks["xvda"].Records != 30 || d.MaxPause != 1 {
		t.Errorf("%+v", d)
	}
}

func TestRefused(t *testing.T) {
	dir := t.TempDir()
	good := write(t, dir, "guest-a.log", boot(0, 0))
	for name, path := range map[string]string{
		"missing":  filepath.Join(dir, "none.log"),
		"empty":    write(t, dir, "empty.log", ""),
		"no guest": write(t, dir, "kernel.log", "[ 0.0] Linux\n"),
	} {
		if err := run(context.Background(), []string{good, path}, &bytes.Buffer{}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	for _, args := range [][]string{{}, {"--window", "5", good}, {"--window", "5,4", good}, {"--nonsense", good}} {
		if err := run(context.Background(), args, &bytes.Buffer{}); !errors.Is(err, errUsage) {
			t.Errorf("%q: %v", args, err)
		}
	}
}

func TestWait(t *testing.T) {
	path := write(t, t.TempDir(), "guest-a.log", "ACK xvda 1-10 @10\nGUEST did sync ok t=@20\nACK xvda 11-1")
	// Without a timeout worth the name only what is there counts.
	now := []string{"--timeout", "1ns", path}
	for _, tt := range []struct {
		args []string
		ok   bool
	}{
		{[]string{"--wait-records", "10", "--from", "0"}, true},
		{[]string{"--wait-records", "11", "--from", "0"}, false},
		{[]string{"--wait-records", "1"}, false},
		{[]string{"--wait-text", "did sync", "--from", "0"}, true},
		{[]string{"--wait-text", "did sync"}, false},
	} {
		err := run(context.Background(), append(tt.args, now...), &bytes.Buffer{})
		if (err == nil) != tt.ok {
			t.Errorf("%q: %v", tt.args, err)
		}
	}
}

func TestWaitSeesWhatIsAppended(t *testing.T) {
	path := filepath.Join(t.TempDir(), "later.log")
	tl := &tail{path: path}
	g := waited{}
	for _, part := range []string{"", "ACK xvda 1-3 17000000000", "00000000\nHB", "\nACK xvda 4 1700000000000000000\n"} {
		if part != "" {
			f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.WriteString(part); err != nil {
				t.Fatal(err)
			}
			f.Close()
		}
		lines, err := tl.lines()
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range lines {
			g.take(l, "")
		}
	}
	if g.Records != 4 {
		t.Errorf("counted %d records, want 4", g.Records)
	}
}

func TestWaitIsInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	err := wait(ctx, options{records: 1, timeout: time.Hour, from: -1}, []string{filepath.Join(t.TempDir(), "x")}, &bytes.Buffer{})
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
