package cli

import (
	"bufio"
	"context"
	"fmt"
	"os"
	osexec "os/exec"
	"strings"
	"syscall"
	"testing"

	"xenlvm/lib/fault"
)

// TestMain plays a program that never gets its work undone, when
// TestSecondSignal asks for it.
func TestMain(m *testing.M) {
	if os.Getenv("XENLVM_TEST_HANGS") == "" {
		os.Exit(m.Run())
	}
	os.Args = os.Args[:1]
	os.Exit(Main(Tool{Name: "hangs", Verbs: []Verb{{Run: func(ctx context.Context, e *Env, _ []string) error {
		fmt.Fprintln(e.Stdout, "working")
		<-ctx.Done()
		fmt.Fprintln(e.Stdout, context.Cause(ctx) == fault.ErrInterrupted)
		_, err := bufio.NewReader(os.Stdin).ReadByte()
		return err
	}}}}))
}

// The first signal interrupts, the second ends the process, however soon it
// comes. What Go does at a SIGQUIT, a dump and status 2, would look like a usage
// error.
func TestSecondSignal(t *testing.T) {
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT} {
		t.Run(s.String(), func(t *testing.T) {
			c := osexec.Command(os.Args[0])
			c.Env = append(os.Environ(), "XENLVM_TEST_HANGS=1")
			stdin, err := c.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			defer stdin.Close()
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
			for _, want := range []string{"working", "true"} {
				if !lines.Scan() || lines.Text() != want {
					t.Errorf("said %q; want %q", lines.Text(), want)
				}
				if err := c.Process.Signal(s); err != nil {
					t.Error(err)
				}
			}
			_ = c.Wait()
			if w := c.ProcessState.Sys().(syscall.WaitStatus); !w.Signaled() || strings.Contains(stderr.String(), "goroutine") {
				t.Errorf("ended with %v: %s; want a signal", c.ProcessState, stderr.String())
			}
		})
	}
}
