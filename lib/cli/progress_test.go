package cli

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

// A bar counts from the first request on, but is not shown for what ends soon; each
// total has its own.
func TestBar(t *testing.T) {
	var said bytes.Buffer
	p := (&Env{Tool: "try", Stderr: &said}).Progress("copy")
	p.tty = true
	p.Update(1, 100)
	first := p.bar
	p.Done()
	if first == nil || said.Len() > 0 {
		t.Fatalf("bar %v, said %q", first, &said)
	}
	p.Update(2, 200)
	if p.bar == nil || p.bar == first {
		t.Error("another total, and the bar of the first")
	}
	p.began = p.began.Add(-time.Hour)
	if _, err := p.Write([]byte("bar")); err != nil || said.String() != "bar" {
		t.Errorf("after an hour: %v, %q", err, &said)
	}
}

// A line elsewhere tells the rate of what is done now, not since another total.
func TestProgressLine(t *testing.T) {
	var said bytes.Buffer
	p := (&Env{Tool: "try", Stderr: &said}).Progress("copy")
	ago := func(d time.Duration) { p.began, p.last = p.began.Add(-d), p.last.Add(-d) }
	p.Update(0, 1<<30)
	ago(time.Hour)
	p.Update(1<<20, 2<<30)
	if strings.Contains(said.String(), " of ") {
		t.Errorf("another total tells a rate at once: %s", &said)
	}
	ago(time.Minute)
	p.Update(1<<30, 2<<30)
	if !strings.Contains(said.String(), "copy: 1.00 GiB of 2.00 GiB, 50 %, 17.") {
		t.Errorf("said %q", &said)
	}
}
