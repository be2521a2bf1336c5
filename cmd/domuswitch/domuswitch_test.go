package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"xenlvm/internal/fakehost"
	"xenlvm/internal/mantest"
	"xenlvm/lib/cli"
	"xenlvm/lib/fault"
	"xenlvm/lib/journal"
	"xenlvm/lib/units"
)

var update = flag.Bool("update", false, "rewrite the expected output in the scripts")

func TestMain(m *testing.M) {
	commands := maps.Clone(fakehost.Commands())
	commands["domuswitch"] = func() { os.Exit(cli.Main(onFakeHost().tool())) }
	testscript.Main(m, commands)
}

// onFakeHost is domuswitch with the block devices of fakehost, as root unless
// FAKE_USER is set, whoever runs the tests, and in another boot if FAKE_BOOT is.
func onFakeHost() *command {
	c := newCommand()
	c.devices = devices{stat: fakehost.Stat, idle: fakehost.Idle, mirror: fakehost.Mirror, leads: fakehost.Leads, held: fakehost.Held, filling: fakehost.Filling, holds: fakehost.Holds, mirrorState: fakehost.MirrorState}
	c.backDoors = fakeBackDoors()
	c.tmpfs = filepath.Join(os.Getenv("WORK"), "shm")
	c.free = func(_ context.Context, dir string) (units.Bytes, error) {
		if dir == c.tmpfs {
			return available("FAKE_TMPFS")
		}
		return available("FAKE_SPACE")
	}
	c.memory = func(context.Context) (units.Bytes, error) { return available("FAKE_MEMORY") }
	c.socket = func(domid int) string { return filepath.Join(os.Getenv("WORK"), "qmp-"+strconv.Itoa(domid)) }
	c.usage, c.terminal = fakeUsage, fakeTerminal
	c.locks = filepath.Join(os.Getenv("WORK"), "locks")
	c.poll = 10 * time.Millisecond
	if limit, err := time.ParseDuration(os.Getenv("FAKE_PATIENCE")); err == nil {
		c.patience, c.quick = limit, limit
	}
	if id := os.Getenv("FAKE_BOOT"); id != "" {
		c.bootID = func() string { return id }
	}
	c.needRoot = func(what string) error {
		if os.Getenv("FAKE_USER") != "" {
			return fault.Hint(fault.Refuse("cannot %s: not root", what), "run it with sudo")
		}
		return nil
	}
	return c
}

// available is how much there is, plenty unless the environment says so.
func available(name string) (units.Bytes, error) {
	if size := os.Getenv(name); size != "" {
		return units.Parse(size)
	}
	return 1 << 40, nil
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script", RequireExplicitExec: true, RequireUniqueNames: true, UpdateScripts: *update,
		Setup: func(e *testscript.Env) error {
			// A program without a fake must be missing, not the host's own.
			bin, _, _ := strings.Cut(os.Getenv("PATH"), string(os.PathListSeparator))
			e.Setenv("PATH", bin)
			e.Setenv("DOMUSWITCH", filepath.Join(bin, "domuswitch"))
			e.Setenv("XEN", filepath.Join(e.WorkDir, "xen"))
			e.Setenv("DOMUSWITCH_XEN_DIR", filepath.Join(e.WorkDir, "xen"))
			e.Setenv("DOMUSWITCH_STATE_DIR", filepath.Join(e.WorkDir, "state"))
			e.Setenv("TMPDIR", filepath.Join(e.WorkDir, "tmp"))
			return errors.Join(os.Mkdir(filepath.Join(e.WorkDir, "tmp"), 0o700), os.Mkdir(filepath.Join(e.WorkDir, "shm"), 0o700))
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"expand": expand, "image": image, "qcow2": qcow2, "crlf": crlf, "status": status, "nofile": nofile, "bulk": bulk, "record": record, "hold": hold,
			"damage": damage, "fifo": fifo, "linksto": linksto, "until": until, "rewire": rewire, "meanwhile": meanwhile, "ending": ending, "qemu": qemu,
			"touched": touched, "settled": settled, "opened": opened,
			"fill": fill, "digests": digests, "replaying": replaying, "chunks": chunks, "snapshot": snapshot,
		},
	})
}

// expand FILE...: replace $WORK in files.
func expand(ts *testscript.TestScript, _ bool, args []string) {
	for _, a := range args {
		path := ts.MkAbs(a)
		text := strings.ReplaceAll(ts.ReadFile(a), "$WORK", ts.Getenv("WORK"))
		ts.Check(os.WriteFile(path, []byte(text), 0o644))
	}
}

// image FILE MIB: make a sparse file.
func image(ts *testscript.TestScript, _ bool, args []string) {
	mib, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	path := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(filepath.Dir(path), 0o755))
	ts.Check(os.WriteFile(path, nil, 0o644))
	ts.Check(os.Truncate(path, mib<<20))
	stamp := time.Unix(1700000000, 0)
	ts.Check(os.Chtimes(path, stamp, stamp))
}

// qcow2 FILE MIB: make what tells that a file is a qcow2 image of that size.
func qcow2(ts *testscript.TestScript, _ bool, args []string) {
	mib, err := strconv.ParseUint(args[1], 10, 64)
	ts.Check(err)
	head := make([]byte, 3<<16) // three clusters
	copy(head, "QFI\xfb")
	binary.BigEndian.PutUint32(head[4:], 2)
	binary.BigEndian.PutUint32(head[20:], 16) // cluster bits
	binary.BigEndian.PutUint64(head[24:], mib<<20)
	binary.BigEndian.PutUint32(head[36:], 1) // entry of the L1 table, for 512 MiB
	binary.BigEndian.PutUint64(head[40:], 1<<16)
	binary.BigEndian.PutUint64(head[48:], 2<<16) // the reference counts
	binary.BigEndian.PutUint32(head[56:], 1)
	path := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(filepath.Dir(path), 0o755))
	ts.Check(os.WriteFile(path, head, 0o644))
}

// crlf FILE: end its lines as DOS does.
func crlf(ts *testscript.TestScript, _ bool, args []string) {
	text := strings.ReplaceAll(ts.ReadFile(args[0]), "\n", "\r\n")
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o644))
}

// bulk FILE: put 1 MiB of comments in front.
func bulk(ts *testscript.TestScript, _ bool, args []string) {
	text := strings.Repeat("# a comment of thirty-two bytes\n", 32<<10) + ts.ReadFile(args[0])
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o644))
}

// status N COMMAND...: run a command that must end with exit status N.
func status(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	if neg || want == 0 {
		ts.Fatalf("usage: status N COMMAND..., N above 0")
	}
	err = ts.Exec(args[1], args[2:]...)
	var exit interface{ ExitCode() int }
	if !errors.As(err, &exit) || exit.ExitCode() != want {
		ts.Fatalf("%v; want exit status %d", err, want)
	}
}

// nofile PATTERN...: nothing may match.
func nofile(ts *testscript.TestScript, _ bool, args []string) {
	for _, a := range args {
		if found, err := filepath.Glob(ts.MkAbs(a)); err != nil || found != nil {
			ts.Fatalf("%v is there, %v", found, err)
		}
	}
}

// record DOMAIN KIND FILE: put a record with the data in FILE into the domain's
// journal, as imgconv does.
func record(ts *testscript.TestScript, _ bool, args []string) {
	j, err := journal.Open(ts.Getenv("DOMUSWITCH_STATE_DIR"), args[0], "imgconv")
	ts.Check(err)
	ts.Check(j.Append(args[1], json.RawMessage(ts.ReadFile(args[2]))))
}

// hold DOMAIN: have the domain's lock until the script ends.
func hold(ts *testscript.TestScript, _ bool, args []string) {
	j, err := journal.Open(ts.MkAbs("elsewhere"), args[0], "imgconv")
	ts.Check(err)
	j.Locks = ts.MkAbs("locks")
	release, err := j.Lock()
	ts.Check(err)
	ts.Defer(release)
}

// damage DIR: change one byte of every backup in it.
func damage(ts *testscript.TestScript, _ bool, args []string) {
	backups, err := filepath.Glob(ts.MkAbs(args[0]) + "/config.*")
	ts.Check(err)
	if backups == nil {
		ts.Fatalf("no backup in %s", args[0])
	}
	for _, b := range backups {
		text, err := os.ReadFile(b)
		ts.Check(err)
		text[len(text)-1] ^= 1
		ts.Check(os.WriteFile(b, text, 0o600))
	}
}

// fifo PATH: make a FIFO, which blocks whoever opens it.
func fifo(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(unix.Mkfifo(ts.MkAbs(args[0]), 0o644))
}

// linksto FILE TARGET: FILE is a symbolic link to TARGET.
func linksto(ts *testscript.TestScript, _ bool, args []string) {
	if got, err := os.Readlink(ts.MkAbs(args[0])); err != nil || got != args[1] {
		ts.Fatalf("%s is a link to %q, %v; want %s", args[0], got, err, args[1])
	}
}

// rewire DEVICE BELOW: the device is built on something else now.
func rewire(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(fakehost.Edit(ts.MkAbs("host.json"), func(s *fakehost.State) { s.Devices[args[0]].On = args[1:] }))
}

// meanwhile JSON: the host is changed: the fields of JSON replace its own.
func meanwhile(ts *testscript.TestScript, _ bool, args []string) {
	text := strings.ReplaceAll(args[0], "$WORK", ts.Getenv("WORK"))
	ts.Check(fakehost.Edit(ts.MkAbs("host.json"), func(s *fakehost.State) {
		if strings.Contains(text, `"domains"`) {
			s.Domains = nil
		}
		ts.Check(json.Unmarshal([]byte(text), s))
	}))
}

// ending N: vm3 ends by itself when xl was asked N times who is there.
func ending(ts *testscript.TestScript, _ bool, args []string) {
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	ts.Check(fakehost.Edit(ts.MkAbs("host.json"), func(s *fakehost.State) { s.Domains[0].Ending = n }))
}

// until FILE TEXT: wait until FILE holds TEXT.
func until(ts *testscript.TestScript, _ bool, args []string) {
	for range 2000 {
		if b, err := os.ReadFile(ts.MkAbs(args[0])); err == nil && strings.Contains(string(b), args[1]) {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	ts.Fatalf("%s never held %q", args[0], args[1])
}

func TestNamesWithControlCharacters(t *testing.T) {
	for _, verb := range []string{"show", "stop", "start", "revert"} {
		for _, name := range []string{"a\nb", "a\tb", "\x1b[2J", ""} {
			var stdout, stderr bytes.Buffer
			e := &cli.Env{Tool: "domuswitch", Stdout: &stdout, Stderr: &stderr}
			c := newCommand()
			c.needRoot = func(string) error { return nil }
			c.offline = verb == "show" || verb == "revert"
			t.Setenv("PATH", t.TempDir())
			s := c.tool().Exec(t.Context(), e, []string{verb, name})
			if s != fault.Usage && s != fault.Refused || stdout.Len() > 0 || strings.Count(stderr.String(), "\x1b") > 0 {
				t.Errorf("%s %q: status %d, %q, %q", verb, name, s, stdout.String(), stderr.String())
			}
		}
	}
}

func TestManPage(t *testing.T) {
	mantest.Check(t, newCommand().tool(), "domuswitch.8")
}
