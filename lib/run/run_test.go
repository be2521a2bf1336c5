package run

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"xenlvm/lib/fault"
)

func TestQuoteSurvivesAShell(t *testing.T) {
	words := []string{"a", "", "a b", "it's", `"q"`, "$HOME", "-rf", "new\nline", `back\slash`, "*", "~", "é", "a;b", "#c"}
	out, err := exec.Command("sh", "-c", `for w in "$@"; do :; done; set -- `+Quote(words...)+`; printf '%s\0' "$@"`, "sh").Output()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(out), strings.Join(words, "\x00")+"\x00"; got != want {
		t.Errorf("the shell read %q; want %q", got, want)
	}
}

func TestRunKeepsStreamsApart(t *testing.T) {
	res, err := Host{}.Run(t.Context(), Cmd{Name: "sh", Args: []string{"-c", `echo data; echo noise >&2; echo $LC_ALL`}})
	if err != nil {
		t.Fatal(err)
	}
	if got := string(res.Stdout); got != "data\nC\n" {
		t.Errorf("stdout = %q", got)
	}
	if got := string(res.Stderr); got != "noise\n" {
		t.Errorf("stderr = %q", got)
	}
}

func TestRunErrors(t *testing.T) {
	_, err := Host{}.Run(t.Context(), Cmd{Name: "sh", Args: []string{"-c", "echo 'no such LV' >&2; exit 5"}})
	var e *Error
	if !errors.As(err, &e) || e.Code != 5 || !strings.Contains(err.Error(), "sh: exit status 5: no such LV") {
		t.Errorf("error = %v", err)
	}
	res, err := Host{}.Run(t.Context(), Cmd{Name: "sh", Args: []string{"-c", "exit 24"}, OK: []int{24}})
	if err != nil || res.Code != 24 {
		t.Errorf("an OK code gave %v, code %d", err, res.Code)
	}
	_, err = Host{}.Run(t.Context(), Cmd{Name: "no-such-program-xenlvm"})
	if fault.StatusOf(err) != fault.Refused {
		t.Errorf("a missing program gave %v", err)
	}
}

func TestStderrIsBounded(t *testing.T) {
	res, err := Host{}.Run(t.Context(), Cmd{Name: "sh", Args: []string{"-c", "head -c 100000 /dev/zero | tr '\\0' x >&2; echo end >&2"}})
	if err != nil {
		t.Fatal(err)
	}
	if len(res.Stderr) != stderrKept || !strings.HasSuffix(string(res.Stderr), "xend\n") {
		t.Errorf("kept %d bytes ending in %q", len(res.Stderr), res.Stderr[max(0, len(res.Stderr)-8):])
	}
}

// A change that began is let finish: lvcreate stopped half-way is worse than
// lvcreate undone.
func TestOnlyTheInterruptibleStops(t *testing.T) {
	for _, tt := range []struct {
		name string
		cmd  Cmd
		runs bool
	}{
		{"change", Cmd{Effect: Change}, true},
		{"interruptible change", Cmd{Effect: Change, Interruptible: true}, false},
		{"query", Cmd{}, false},
	} {
		ctx, cancel := context.WithCancelCause(t.Context())
		started := make(chan struct{})
		tt.cmd.Name, tt.cmd.Args = "sh", []string{"-c", "echo started; sleep 1; echo finished"}
		out := &signalWriter{started: started}
		tt.cmd.Stdout = out
		go func() { <-started; cancel(fault.ErrInterrupted) }()
		_, err := Host{}.Run(ctx, tt.cmd)
		finished := strings.Contains(out.text, "finished")
		if finished != tt.runs || (err == nil) != tt.runs {
			t.Errorf("%s: finished %v, error %v; want finished %v", tt.name, finished, err, tt.runs)
		}
		if !tt.runs && !errors.Is(err, fault.ErrInterrupted) {
			t.Errorf("%s: error %v does not carry the cause", tt.name, err)
		}
		if _, err := (Host{}).Run(ctx, tt.cmd); !errors.Is(err, fault.ErrInterrupted) {
			t.Errorf("%s: started after the end of the context: %v", tt.name, err)
		}
	}
}

// What may hang is told of, but not what takes as long as a disk is large. It runs
// until Slow closes its pipe.
func TestSlow(t *testing.T) {
	for _, effect := range []Effect{Change, Query} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		told := make(chan string, 1)
		h := Host{SlowAfter: time.Nanosecond, Slow: func(c Cmd) { told <- c.Line(); w.Close() }}
		if _, err := h.Run(t.Context(), Cmd{Name: "cat", Stdin: r, Effect: effect}); err != nil {
			t.Fatal(err)
		}
		if got := <-told; got != "cat" {
			t.Errorf("told of %q; want cat", got)
		}
	}
	h := Host{SlowAfter: time.Nanosecond, Slow: func(c Cmd) { t.Errorf("told of %s", c.Line()) }}
	if _, err := h.Run(t.Context(), Cmd{Name: "true", Effect: Change, Interruptible: true}); err != nil {
		t.Error(err)
	}
}

// A query that never ends does not hang its program, also when it does not end as
// asked, and says what it is. A change has no limit.
func TestQueryLimit(t *testing.T) {
	h := Host{QueryLimit: time.Millisecond, Grace: 10 * time.Millisecond}
	for _, script := range []string{"exec sleep infinity", "trap '' TERM; while :; do sleep 1; done"} {
		_, err := h.Run(t.Context(), Cmd{Name: "sh", Args: []string{"-c", script}})
		if !errors.Is(err, ErrHangs) || fault.StatusOf(err) != fault.Failed || !strings.Contains(err.Error(), "sh: it hangs: no answer after 1ms") || len(fault.Hints(err)) != 1 {
			t.Errorf("%s: %v, hints %q", script, err, fault.Hints(err))
		}
	}
	if _, err := h.Run(t.Context(), Cmd{Name: "sleep", Args: []string{"0.1"}, Effect: Change}); err != nil {
		t.Errorf("a change: %v", err)
	}
}

type signalWriter struct {
	started chan struct{}
	text    string
}

func (w *signalWriter) Write(p []byte) (int, error) {
	if w.text == "" {
		close(w.started)
	}
	w.text += string(p)
	return len(p), nil
}

func TestLog(t *testing.T) {
	var seen []string
	h := Host{Log: func(c Cmd, _ time.Duration, err error) { seen = append(seen, c.Line()) }}
	if _, err := h.Run(t.Context(), Cmd{Name: "echo", Args: []string{"a b"}}); err != nil {
		t.Fatal(err)
	}
	if len(seen) != 1 || seen[0] != "echo 'a b'" {
		t.Errorf("log = %q", seen)
	}
}
