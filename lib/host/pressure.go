package host

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/procfs"
)

// How a copy makes room for others. Its own requests are pressure, too; therefore
// it is silent for a moment, and only what others wait for then counts.
const (
	pressureEvery = 500 * time.Millisecond // at full speed
	pressureQuiet = 25 * time.Millisecond  // one look
	pressureRest  = time.Second            // the most for which others keep a copy waiting
	// pressureShare of a look: some task waited for a disk.
	pressureShare = 0.2
)

// Pressure keeps work that reads and writes much from making others wait for their
// disks, as the kernel's pressure stall information tells it (/proc/pressure/io).
// Where the kernel does not tell, nothing waits. The zero value is not usable: see
// NewPressure.
type Pressure struct {
	stalled func() (time.Duration, bool) // of some task, since the boot
	sleep   func(context.Context, time.Duration)
	now     func() time.Time

	mu   sync.Mutex // held while silent, so that all workers are
	next time.Time
}

// NewPressure watches the disks of this host.
func NewPressure() *Pressure {
	return &Pressure{stalled: stalled, sleep: sleep, now: time.Now}
}

// Yield returns when the caller may make its next request, or ctx has ended. Every
// half second it holds all callers up for a moment, or, as long as others wait for
// a disk meanwhile, for up to a second.
func (p *Pressure) Yield(ctx context.Context) {
	p.mu.Lock()
	defer p.mu.Unlock()
	began := p.now()
	if began.Before(p.next) {
		return
	}
	for ctx.Err() == nil && p.now().Sub(began) < pressureRest && p.othersWait(ctx) {
	}
	p.next = p.now().Add(pressureEvery)
}

// othersWait looks for a moment.
func (p *Pressure) othersWait(ctx context.Context) bool {
	before, known := p.stalled()
	if !known {
		return false
	}
	p.sleep(ctx, pressureQuiet)
	after, known := p.stalled()
	return known && float64(after-before) > pressureShare*float64(pressureQuiet)
}

// stalled reads for how long some task has waited for I/O since the boot.
func stalled() (time.Duration, bool) {
	fs, err := procfs.NewDefaultFS()
	if err != nil {
		return 0, false
	}
	psi, err := fs.PSIStatsForResource("io")
	if err != nil || psi.Some == nil {
		return 0, false
	}
	return time.Duration(psi.Some.Total) * time.Microsecond, true
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
