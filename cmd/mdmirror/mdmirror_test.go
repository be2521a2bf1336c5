package main

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"xenlvm/internal/mantest"
)

func TestMain(m *testing.M) { testscript.Main(m, map[string]func(){"mdmirror": main}) }

func TestManPage(t *testing.T) { mantest.Check(t, newCommand().tool(), "mdmirror.8") }

// TestScripts runs what needs no device. The rest is in the lab's scenarios.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script", RequireExplicitExec: true, RequireUniqueNames: true,
		Condition: func(cond string) (bool, error) {
			if cond == "root" {
				return os.Geteuid() == 0, nil
			}
			return false, errors.New("unknown condition")
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"status": status},
	})
}

// status N COMMAND...: a command ends with exit status N.
func status(ts *testscript.TestScript, _ bool, args []string) {
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
