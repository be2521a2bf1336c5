package cli

import (
	"bufio"
	"context"
	"fmt"
	"os"
	osexec "os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"

	"xenlvm/lib/fault"
)

// TestMain plays a program that never gets its work undone, when TestPatience asks
// for it. It says which signals have reached it.
func TestMain(m *testing.M) {
	if os.Getenv("XENLVM_TEST_HANGS") == "" {
		os.Exit(m.Run())
	}
	os.Args = os.Args[:1]
	os.Exit(Main(Tool{Name: "hangs", Verbs: []Verb{{Run: func(ctx context.Context, e *Env, _ []string) error {
		c := make(chan os.Signal, 8)
		signal.Notify(c)
		fmt.Fprintln(e.Stdout, "working")
		<-ctx.Done()
		fmt.Fprintln(e.Stdout, context.Cause(ctx) == fault.ErrInterrupted)
		for s := range c {
			if s != syscall.SIGURG { // of the Go runtime
				fmt.Fprintln(e.Stdout, s)
			}
		}
		return nil
	}}}}))
}

// The first signal interrupts. The next ones do not end the undoing, as timeout(1)
// sends two; the third SIGINT does. What Go does at a SIGQUIT, a dump and status 2,
// would look like a usage error.
func TestPatience(t *testing.T) {
	const (
		term = syscall.SIGTERM
		key  = syscall.SIGINT
		quit = syscall.SIGQUIT
		gone = syscall.SIGHUP
	)
	for _, sent := range [][]syscall.Signal{
		{key, key, key}, {quit, quit, quit}, {term, term, term, key, quit, key}, {term, gone, gone, key, term, key, key},
	} {
		t.Run(fmt.Sprint(sent), func(t *testing.T) {
			c := osexec.Command(os.Args[0])
			c.Env = append(os.Environ(), "XENLVM_TEST_HANGS=1")
			stdout, err := c.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			var stderr strings.Builder
			c.Stderr = &stderr
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewScanner(stdout)
			expect := func(want string) {
				if !lines.Scan() || lines.Text() != want {
					t.Errorf("said %q; want %q", lines.Text(), want)
				}
			}
			expect("working")
			for i, s := range sent {
				if err := c.Process.Signal(s); err != nil {
					t.Error(err)
				}
				if i == 0 {
					expect("true")
				}
				if i < len(sent)-1 {
					expect(s.String())
				}
			}
			_ = c.Wait()
			if w := c.ProcessState.Sys().(syscall.WaitStatus); w.Signal() != syscall.SIGKILL || strings.Contains(stderr.String(), "goroutine") {
				t.Errorf("ended with %v: %s; want a signal", c.ProcessState, stderr.String())
			}
			for _, want := range []string{sent[0].String() + ": undoing, please wait; a third SIGINT", "one more SIGINT ends at once"} {
				if strings.Count(stderr.String(), want) != 1 {
					t.Errorf("said %s; want %q once", stderr.String(), want)
				}
			}
		})
	}
}
