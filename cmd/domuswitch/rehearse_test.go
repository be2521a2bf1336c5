package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"xenlvm/internal/fakehost"
	"xenlvm/internal/sweep"
	"xenlvm/lib/cli"
	"xenlvm/lib/fault"
	"xenlvm/lib/lvm"
)

// fakeUsage says that a snapshot is in order, unless FAKE_LOST is its error.
func fakeUsage(v lvm.LV) (lvm.Usage, error) {
	if os.Getenv("FAKE_LOST") != "" {
		return lvm.Usage{}, fmt.Errorf("%s: %w", v.Spec(), lvm.ErrLost)
	}
	return lvm.Usage{}, nil
}

// fakeTerminal opens a FIFO, which would seem to end if nobody could write there.
func fakeTerminal(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK, 0)
}

// terminal is a pseudo terminal, as xenconsoled makes it.
func terminal(t *testing.T) (master *os.File, path string) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	path = fmt.Sprintf("/dev/pts/%d", n)
	slave, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close() })
	raw, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	raw.Lflag, raw.Iflag, raw.Oflag = 0, 0, 0
	if err := unix.IoctlSetTermios(int(slave.Fd()), unix.TCSETS, raw); err != nil {
		t.Fatal(err)
	}
	return master, path
}

func TestConsole(t *testing.T) {
	master, path := terminal(t)
	f, err := openTerminal(path)
	if err != nil {
		t.Fatal(err)
	}
	shown := make(chan string, 1000)
	c := readConsole(f, loginPrompt.console, func(line string) { shown <- line })
	write := func(text string) {
		if _, err := master.WriteString(text); err != nil {
			t.Fatal(err)
		}
	}
	write("first\r\n[\x1b[0;32m  OK  \x1b[0m] up\r\nLast login: never\n\xff\x1b]0;title\a\n")
	for _, want := range []string{"first", "[  OK  ] up", "Last login: never", "\xff\x1b]0;title\a"} {
		if got := <-shown; got != want {
			t.Errorf("shown: %q; want %q", got, want)
		}
	}
	if got := c.seen(); got != "" {
		t.Errorf("seen: %q", got)
	}
	write("vm3 log")
	write("in: ")
	<-c.found
	if got := c.seen(); got != "vm3 login: " {
		t.Errorf("seen: %q", got)
	}
	if got, want := c.last(2), []string{`'�'`, "vm3 login: "}; !slices.Equal(got[1:], want[1:]) || strings.ContainsAny(got[0], "\x1b\a") {
		t.Errorf("last: %q", got)
	}
	// Without end, and without a newline.
	before := len(c.last(100))
	write(strings.Repeat("x", 3*longestLine))
	for range 3 {
		if got := len(<-shown); got > longestLine {
			t.Errorf("a line of %d bytes", got)
		}
	}
	if got := len(c.last(100)); got > before+4 {
		t.Errorf("%d lines", got)
	}
	master.Close()
	select {
	case <-c.ended:
	case <-time.After(time.Minute):
		t.Error("it does not end with its terminal")
	}
	c.close()
}

func TestConsoleShowsOnlySoMuch(t *testing.T) {
	n := 0
	c := &console{show: func(line string) { n += len(line) + 1 }}
	for range 2 * mostShown / 64 {
		c.take([]byte(strings.Repeat("x", 63) + "\n"))
	}
	if n > mostShown+64 || n < mostShown-64 || len(c.last(1000)) != linesKept {
		t.Errorf("%d bytes shown, %d lines kept", n, len(c.last(1000)))
	}
}

func TestParseMarker(t *testing.T) {
	for text, want := range map[string]string{
		"console:login:":         `its console shows "login:"`,
		`console:a\.b=c: d`:      `its console shows "a\\.b=c: d"`,
		"xenstore:data/up":       "xenstore has data/up",
		"xenstore:data/up=":      `xenstore has data/up = ""`,
		"xenstore:data/up=1=2:3": `xenstore has data/up = "1=2:3"`,
		"60s":                    "it has run for 1m0s",
	} {
		if m, err := parseMarker(text); err != nil || m.String() != want {
			t.Errorf("%s: %v, %v; want %s", text, m, err, want)
		}
	}
	for _, text := range []string{"", "console:", "console:[", "xenstore:", "xenstore:=1", "xenstore:/local/domain/1/x", "xenstore:../0/x", "xenstore:a/", "login:", "0s", "-1s", "60"} {
		if m, err := parseMarker(text); err == nil {
			t.Errorf("%s: %v", text, m)
		}
	}
}

func TestUsageOfRehearse(t *testing.T) {
	for _, args := range [][]string{
		{"rehearse"}, {"rehearse", "vm3", "--until", "soon"}, {"rehearse", "vm3", "--memory", "0"}, {"rehearse", "vm3", "--memory", "1G"},
		{"rehearse", "vm3", "--snapshot-size", "200%"}, {"rehearse", "vm3", "--timeout", "0"}, {"rehearse", "vm3", "xvda"},
	} {
		var said strings.Builder
		if s := newCommand().tool().Exec(t.Context(), newEnv(&said), args); s != fault.Usage {
			t.Errorf("%q: status %d: %s", args, s, said.String())
		}
	}
}

// TestRehearseFaults has each command go wrong that rehearse calls: nothing may be
// left, or it is named and cleared by the next rehearsal.
func TestRehearseFaults(t *testing.T) {
	sweep.Run(t, slices.Concat(slices.Collect(maps.Keys(fakehost.Commands())), []string{"domuswitch"}), []sweep.Plan{{
		Name: "rehearse",
		Make: func(w sweep.World) {
			faultHost(w, true)
			edit(w, func(s *fakehost.State) {
				s.Xl.Console = "vm3 login: "
				s.VGs = map[string]int64{"vg0": 1 << 30}
			})
		},
		Run:       []string{"domuswitch", "rehearse", "--memory", "64", "--timeout", "5s", "vm3", "xvda=$WORK/dev/vg0/a"},
		State:     faultState,
		Whole:     untouched,
		Temporary: []string{"tmp/*"},
		Env:       map[string]string{"DOMUSWITCH_XEN_DIR": "xen", "DOMUSWITCH_STATE_DIR": "state", "TMPDIR": "tmp"},
	}})
}

// untouched says whether the domain has what it had.
func untouched(w sweep.World) error {
	if text := w.Read("xen/vm3.cfg"); text != beforeText {
		return fmt.Errorf("its configuration is %q", text)
	}
	for _, d := range hostState(w).Domains {
		if d.Name == "vm3" && d.ID == 4 && d.State == "" && len(d.Disks) == 1 && d.Disks[0].Path == "$WORK/srv/vm3.img" {
			return nil
		}
	}
	return errors.New("vm3 is not as it was")
}

func newEnv(stderr *strings.Builder) *cli.Env {
	return &cli.Env{Tool: "domuswitch", Stdout: &strings.Builder{}, Stderr: stderr}
}
