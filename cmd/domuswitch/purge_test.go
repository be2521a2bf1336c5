package main

import (
	"os"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// touched FILE: write to it now, as far as its times tell.
func touched(ts *testscript.TestScript, _ bool, args []string) {
	later := time.Now().Add(time.Hour)
	ts.Check(os.Chtimes(ts.MkAbs(args[0]), later, later))
}

// settled FILE: as image left it.
func settled(ts *testscript.TestScript, _ bool, args []string) {
	stamp := time.Unix(1700000000, 0)
	ts.Check(os.Chtimes(ts.MkAbs(args[0]), stamp, stamp))
}

// opened FILE COMMAND...: a command that must fail, while another program has FILE open.
func opened(ts *testscript.TestScript, _ bool, args []string) {
	f, err := os.Open(ts.MkAbs(args[0]))
	ts.Check(err)
	defer f.Close()
	status(ts, false, args[1:])
}
