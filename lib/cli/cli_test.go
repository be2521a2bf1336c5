package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"xenlvm/lib/fault"
	"xenlvm/lib/step"
)

// try is a tool that records what it was called with.
type try struct {
	size  string
	force bool
	got   []string
	err   error
}

func (c *try) tool() Tool {
	record := func(name string) func(context.Context, *Env, []string) error {
		return func(_ context.Context, e *Env, args []string) error {
			c.got = append([]string{name, fmt.Sprint("dry=", e.DryRun), "size=" + c.size, fmt.Sprint("force=", c.force)}, args...)
			return c.err
		}
	}
	return Tool{
		Name: "try", Summary: "tries things", Deliberate: []string{"force"},
		Flags: func(fs *flag.FlagSet) {
			fs.StringVar(&c.size, "size", "1G", "the `SIZE`")
			fs.BoolVar(&c.force, "force", false, "lose data")
		},
		Verbs: []Verb{
			{Name: "make", Args: "VG/LV", Min: 1, Max: 1, Summary: "makes", Flags: []string{"size", "force"}, Run: record("make")},
			{Name: "list", Args: "[VG]...", Max: -1, Summary: "lists", Run: record("list")},
		},
	}
}

func exec(t *testing.T, c *try, args ...string) (fault.Status, string, string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	s := c.tool().Exec(t.Context(), &Env{Tool: "try", Stdout: &stdout, Stderr: &stderr}, args)
	return s, stdout.String(), stderr.String()
}

func TestFlagsAnywhere(t *testing.T) {
	want := []string{"make", "dry=true", "size=2G", "force=false", "vg0/a"}
	for _, line := range []string{
		"--dry-run --size 2G make vg0/a", "make vg0/a --dry-run --size 2G", "make --size=2G vg0/a --dry-run", "-dry-run make -size 2G vg0/a",
	} {
		c := &try{}
		if s, _, stderr := exec(t, c, strings.Fields(line)...); s != fault.Done || !slices.Equal(c.got, want) {
			t.Errorf("%s: status %d, got %q, said %q", line, s, c.got, stderr)
		}
	}
	c := &try{}
	exec(t, c, "make", "--", "--dry-run")
	if want := []string{"make", "dry=false", "size=1G", "force=false", "--dry-run"}; !slices.Equal(c.got, want) {
		t.Errorf("after --: %q", c.got)
	}
}

func TestUsageErrors(t *testing.T) {
	for line, want := range map[string]string{
		"":                     "want one of make, list",
		"mkae x":               `unknown command "mkae"`,
		"make":                 "make wants VG/LV, got 0 arguments",
		"make a b":             "make wants VG/LV, got 2 arguments",
		"make a --nope":        "flag provided but not defined: -nope",
		"make a --size":        "flag needs an argument: -size",
		"list --size 2G":       "list takes no --size",
		"make a --dry-run=yep": "invalid boolean value",
	} {
		c := &try{}
		s, stdout, stderr := exec(t, c, strings.Fields(line)...)
		if s != fault.Usage || c.got != nil || stdout != "" || !strings.Contains(stderr, "try: ") || !strings.Contains(stderr, want) {
			t.Errorf("%q: status %d, ran %q, said %q; want %q", line, s, c.got, stderr, want)
		}
	}
}

func TestPrecedence(t *testing.T) {
	conf := filepath.Join(t.TempDir(), "try.conf")
	if err := os.WriteFile(conf, []byte("size 3G # from the file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	size := func(args ...string) string {
		c := &try{}
		if s, _, stderr := exec(t, c, append([]string{"make", "x"}, args...)...); s != fault.Done {
			t.Fatal(stderr)
		}
		return c.size
	}
	if got := size(); got != "1G" {
		t.Errorf("default: %s", got)
	}
	t.Setenv("TRY_CONF", conf)
	if got := size(); got != "3G" {
		t.Errorf("file: %s", got)
	}
	t.Setenv("TRY_SIZE", "4G")
	if got := size(); got != "4G" {
		t.Errorf("environment: %s", got)
	}
	if got := size("--size", "5G"); got != "5G" {
		t.Errorf("flag: %s", got)
	}
	t.Setenv("TRY_CONF", conf+".missing")
	if s, _, _ := exec(t, &try{}, "make", "x"); s != fault.Usage {
		t.Errorf("a named file that is missing: status %d", s)
	}
}

func TestUnknownInEnvironment(t *testing.T) {
	t.Setenv("TRY_SIZES", "4G")
	c := &try{}
	if s, _, stderr := exec(t, c, "make", "x"); s != fault.Usage || c.got != nil || !strings.Contains(stderr, "unknown TRY_SIZES in the environment") {
		t.Errorf("status %d, ran %q, said %q", s, c.got, stderr)
	}
	t.Setenv("TRY_SIZES", "")
	t.Setenv("TRY_DRY_RUN", "true")
	if s, _, stderr := exec(t, c, "make", "x"); s != fault.Done || !slices.Contains(c.got, "dry=true") {
		t.Errorf("status %d, ran %q, said %q", s, c.got, stderr)
	}
}

func TestDeliberateFlagsNotFromBehind(t *testing.T) {
	t.Setenv("TRY_FORCE", "true")
	c := &try{}
	if s, _, stderr := exec(t, c, "make", "x"); s != fault.Usage || c.got != nil || !strings.Contains(stderr, "only on the command line") {
		t.Errorf("status %d, ran %q, said %q", s, c.got, stderr)
	}
	if s, _, _ := exec(t, c, "make", "x", "--force"); s != fault.Done || !c.force {
		t.Errorf("on the line: status %d", s)
	}
}

func TestHelpAndVersion(t *testing.T) {
	for _, arg := range []string{"--help", "-h"} {
		s, stdout, stderr := exec(t, &try{}, arg)
		if s != fault.Done || stderr != "" || !strings.Contains(stdout, "try make [flags] VG/LV") || !strings.Contains(stdout, "--size SIZE\n      the SIZE (make)") {
			t.Errorf("%s: status %d, stdout %q, stderr %q", arg, s, stdout, stderr)
		}
	}
	if s, stdout, _ := exec(t, &try{}, "--version"); s != fault.Done || !strings.HasPrefix(stdout, "try ") {
		t.Errorf("--version: %d, %q", s, stdout)
	}
}

func TestErrorsAreLines(t *testing.T) {
	c := &try{err: fault.Hint(fault.Refuse("cannot use %s: it is mounted\x1b[2J", "vg0/a"), "umount it")}
	s, stdout, stderr := exec(t, c, "make", "vg0/a")
	want := "try: cannot use vg0/a: it is mounted'\\x1b'[2J\ntry: hint: umount it\n"
	if s != fault.Refused || stdout != "" || stderr != want {
		t.Errorf("status %d, stdout %q, stderr %q; want %q", s, stdout, stderr, want)
	}
	s, stdout, _ = exec(t, c, "make", "vg0/a", "--json")
	var object struct {
		Failed, Changed bool
		Msg             string
		Status          int
		Hints           []string
	}
	if err := json.Unmarshal([]byte(stdout), &object); err != nil || s != fault.Refused || !object.Failed || object.Changed || object.Status != 3 || len(object.Hints) != 1 {
		t.Errorf("--json: %q: %+v, %v", stdout, object, err)
	}
}

// Usage errors have their hints in the JSON object, too, wherever --json stands.
func TestUsageErrorsInJSON(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.WriteFile("-x.img", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ args, hints string }{
		{"--json --bogus", `["try 'try --help'"]`},
		{"make x --bogus --json", `["try 'try --help'"]`},
		{"--json make -x.img", `["if the file is meant: names that begin with a dash come behind --","try 'try --help'"]`},
	} {
		s, stdout, stderr := exec(t, &try{}, strings.Fields(c.args)...)
		if s != fault.Usage || !strings.Contains(stdout, `"hints":`+c.hints) || strings.Count(stderr, "hint: ") != strings.Count(c.hints, `","`)+1 {
			t.Errorf("%s: status %d: %s%s", c.args, s, stdout, stderr)
		}
	}
	// What has no hint has none, and not null.
	if _, stdout, _ := exec(t, &try{err: errors.New("no")}, "make", "x", "--json"); !strings.Contains(stdout, `"hints":[]`) {
		t.Errorf("no hint: %s", stdout)
	}
}

func TestApply(t *testing.T) {
	ran := false
	p := step.Plan{{What: "make it", Line: "mk it", Do: func(context.Context) error { ran = true; return nil }}}
	var stdout, stderr bytes.Buffer
	e := &Env{Tool: "try", Stdout: &stdout, Stderr: &stderr, DryRun: true}
	if err := e.Apply(t.Context(), p); err != nil || ran || stdout.String() != "mk it\n" {
		t.Errorf("dry run: %v, ran %v, %q", err, ran, stdout.String())
	}
	e.DryRun = false
	if err := e.Apply(t.Context(), p); err != nil || !ran || !strings.Contains(stderr.String(), "try: [1/1] make it (") {
		t.Errorf("real run: %v, ran %v, %q", err, ran, stderr.String())
	}
}

func TestUndeliveredResult(t *testing.T) {
	full := errors.New("no space left on device")
	for dry, want := range map[bool]fault.Status{false: fault.Left, true: fault.Failed} {
		e := &Env{DryRun: dry}
		if err := e.Delivered(full); fault.StatusOf(err) != want || !errors.Is(err, full) {
			t.Errorf("dry run %v: %v, status %d; want %d", dry, err, fault.StatusOf(err), want)
		}
		if err := e.Delivered(nil); err != nil {
			t.Errorf("dry run %v: %v", dry, err)
		}
	}
}

type fullWriter struct{}

func (fullWriter) Write([]byte) (int, error) { return 0, errors.New("no space left on device") }

func TestFullStdoutIsAnError(t *testing.T) {
	var stderr bytes.Buffer
	s := (&try{}).tool().Exec(t.Context(), &Env{Tool: "try", Stdout: fullWriter{}, Stderr: &stderr}, []string{"--help"})
	if s != fault.Failed || !strings.Contains(stderr.String(), "no space left") {
		t.Errorf("status %d, said %q", s, stderr.String())
	}
}
