package host

import (
	"os/exec"
	"strings"
	"testing"

	"xenlvm/lib/fault"
	"xenlvm/lib/units"
)

func TestNeedSpace(t *testing.T) {
	dir := t.TempDir()
	if err := NeedSpace(t.Context(), dir, 1); err != nil {
		t.Errorf("one byte: %v", err)
	}
	if err := NeedSpace(t.Context(), dir, units.Bytes(1)<<60); fault.StatusOf(err) != fault.Refused {
		t.Errorf("an exbibyte: %v", err)
	}
	if err := NeedSpace(t.Context(), dir+"/missing", 1); err == nil {
		t.Error("a missing directory has space")
	}
}

// A child must inherit what Idle set, whichever thread starts it.
func TestIdleReachesChildren(t *testing.T) {
	priorities := func() string {
		out, err := exec.Command("sh", "-c", "nice; ionice").Output()
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(strings.Fields(string(out)), " ")
	}
	before := priorities()
	restore, err := Idle()
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan string)
	go func() { done <- priorities() }()
	if got := <-done; got != "19 idle" {
		t.Errorf("a child runs at %q; want 19 idle", got)
	}
	restore()
	if got := priorities(); got != before {
		t.Skipf("not allowed to raise the priority again: %q, was %q", got, before)
	}
}
