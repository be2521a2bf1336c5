package md

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"xenlvm/lib/units"
)

// fake is an array of 4 MiB in a sysfs of files.
func fake(t testing.TB, attributes map[string]string) Array {
	t.Helper()
	a := Array{Path: "/dev/md127", Size: 4 << 20, sysfs: t.TempDir()}
	if err := os.MkdirAll(a.block("md"), 0o755); err != nil {
		t.Fatal(err)
	}
	all := map[string]string{"sync_action": "idle", "array_state": "clean", "sync_completed": "none", "mismatch_cnt": "0", "sync_min": "0", "sync_max": "max"}
	for name, value := range attributes {
		all[name] = value
	}
	for name, value := range all {
		if err := os.WriteFile(filepath.Join(a.block("md"), name), []byte(value+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return a
}

// Md makes the text anew for each read(2); here it does so for whoever asks twice.
func TestAttributeIsReadOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sync_completed")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	got, written := make(chan string), make(chan error, 1)
	go func() {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err == nil {
			_, err = f.WriteString("96 / 98304\n")
		}
		if first := <-got; first != "96 / 98304" {
			t.Errorf("read %q", first)
		}
		written <- errors.Join(err, f.Close())
	}()
	text, err := attribute(path) // a second read would wait for ever
	got <- text
	if err := errors.Join(err, <-written); err != nil {
		t.Error(err)
	}
}

func TestLimit(t *testing.T) {
	a := fake(t, nil)
	for _, tt := range []struct {
		limit     units.Bytes
		low, high string
	}{{0, "1000", "104857600"}, {4 << 20, "1000", "4096"}, {100, "1", "1"}, {7 << 60, "1000", "104857600"}} {
		if err := a.Limit(tt.limit); err != nil {
			t.Fatal(err)
		}
		low, err := a.read("sync_speed_min")
		high, err2 := a.read("sync_speed_max")
		if low != tt.low || high != tt.high || errors.Join(err, err2) != nil {
			t.Errorf("%d: %s to %s, %v; want %s to %s", tt.limit, low, high, errors.Join(err, err2), tt.low, tt.high)
		}
	}
}

// Md would go on where a check stopped.
func TestCheckBeginsAnew(t *testing.T) {
	a := fake(t, map[string]string{"sync_action": "check", "sync_min": "4096", "sync_max": "8192"})
	if err := a.Check(); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"sync_min": "0", "sync_max": "8192", "sync_action": "check"} {
		if got, err := a.read(name); got != want || err != nil {
			t.Errorf("%s is %q, %v; want %q", name, got, err, want)
		}
	}
}

func TestChecked(t *testing.T) {
	for _, tt := range []struct {
		name, min, max, mismatches string
		differ                     units.Bytes
		fails                      bool
	}{
		{"equal", "0", "max", "0", 0, false},
		{"different", "0", "max", "128", 128 * 512, false},
		{"interrupted", "4096", "8192", "0", 0, true},
		{"interrupted before md noted how far it was", "0", "8192", "0", 0, true},
		{"one that somebody else began, interrupted", "4096", "max", "0", 0, true},
	} {
		a := fake(t, map[string]string{"sync_min": tt.min, "sync_max": tt.max, "mismatch_cnt": tt.mismatches})
		differ, err := a.Checked()
		if differ != tt.differ || (err != nil) != tt.fails || tt.fails && !strings.Contains(err.Error(), "interrupted") {
			t.Errorf("%s: %d, %v", tt.name, differ, err)
		}
	}
}
