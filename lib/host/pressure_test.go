package host

import (
	"context"
	"testing"
	"time"
)

// fakePressure has a clock that only sleep moves; others wait for so long.
func fakePressure(wait time.Duration, known bool) (*Pressure, *time.Time) {
	now := time.Unix(0, 0)
	waited := time.Duration(0)
	return &Pressure{
		stalled: func() (time.Duration, bool) { return waited, known },
		sleep: func(_ context.Context, d time.Duration) {
			now = now.Add(d)
			waited += min(d, wait)
			wait -= min(d, wait)
		},
		now: func() time.Time { return now },
	}, &now
}

func TestPressure(t *testing.T) {
	for _, c := range []struct {
		name       string
		wait, want time.Duration
		known      bool
	}{
		{"nobody waits", 0, pressureQuiet, true},
		{"a little", pressureQuiet / 10, pressureQuiet, true},
		{"others wait", 10 * pressureQuiet, 11 * pressureQuiet, true},
		{"others wait for ever", time.Hour, pressureRest, true},
		{"the kernel does not tell", time.Hour, 0, false},
	} {
		p, now := fakePressure(c.wait, c.known)
		p.Yield(t.Context())
		if got := now.Sub(time.Unix(0, 0)); got != c.want {
			t.Errorf("%s: %v of rest, want %v", c.name, got, c.want)
		}
		was := *now
		p.Yield(t.Context())
		if *now != was {
			t.Errorf("%s: the next request waited as well", c.name)
		}
	}
}

func TestPressureCancelled(t *testing.T) {
	p, now := fakePressure(time.Hour, true)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	p.Yield(ctx)
	if *now != time.Unix(0, 0) {
		t.Error("a cancelled request waited")
	}
}

// What the kernel really says can be read, or is absent.
func TestStalled(t *testing.T) {
	before, known := stalled()
	if !known {
		t.Skip("this kernel does not tell of pressure")
	}
	if after, _ := stalled(); after < before {
		t.Errorf("%v after %v", after, before)
	}
}
