package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"xenlvm/internal/fakehost"
	"xenlvm/internal/mantest"
)

func TestMain(m *testing.M) {
	commands := fakehost.Commands()
	commands["imgconv"] = main
	testscript.Main(m, commands)
}

func TestManPage(t *testing.T) { mantest.Check(t, tool(), "imgconv.8") }

// TestScripts runs the copying of one image onto another. What needs LVM and Xen
// is in the lab's scenarios.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script", RequireExplicitExec: true, RequireUniqueNames: true,
		Setup: hostWithoutDomains,
		Cmds:  map[string]func(*testscript.TestScript, bool, []string){"status": status, "image": image, "same": same},
	})
}

// hostWithoutDomains is for scripts that bring no host of their own.
func hostWithoutDomains(e *testscript.Env) error {
	e.Setenv("IMGCONV_STATE_DIR", filepath.Join(e.WorkDir, "state"))
	path := filepath.Join(e.WorkDir, "host.json")
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	return os.WriteFile(path, []byte("{}"), 0o600)
}

// status N COMMAND...: a command ends with exit status N.
func status(ts *testscript.TestScript, neg bool, args []string) {
	err := ts.Exec(args[1], args[2:]...)
	got := 0
	var exit interface{ ExitCode() int }
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	}
	if want, _ := strconv.Atoi(args[0]); got != want {
		ts.Fatalf("%s: status %d; want %d", strings.Join(args[1:], " "), got, want)
	}
}

// image FILE SIZE [AT=TEXT]...: a sparse file with texts in it.
func image(ts *testscript.TestScript, neg bool, args []string) {
	f, err := os.OpenFile(ts.MkAbs(args[0]), os.O_CREATE|os.O_RDWR, 0o600)
	ts.Check(err)
	size, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	ts.Check(f.Truncate(size))
	for _, a := range args[2:] {
		at, text, _ := strings.Cut(a, "=")
		offset, err := strconv.ParseInt(at, 10, 64)
		ts.Check(err)
		_, err = f.WriteAt([]byte(text), offset)
		ts.Check(err)
	}
	ts.Check(f.Close())
}

// same A B: two files hold the same bytes.
func same(ts *testscript.TestScript, neg bool, args []string) {
	a, err := os.ReadFile(ts.MkAbs(args[0]))
	ts.Check(err)
	b, err := os.ReadFile(ts.MkAbs(args[1]))
	ts.Check(err)
	if bytes.Equal(a, b) == neg {
		ts.Fatalf("%s", fmt.Sprintf("%s and %s: the same: %v", args[0], args[1], !neg))
	}
}
