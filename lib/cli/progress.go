package cli

import (
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"xenlvm/lib/units"
)

// How often a pipe gets a line, and how long a phase may run without any.
const (
	lineEvery = 10 * time.Second
	quietFor  = 2 * time.Second
)

// Progress shows how far a long phase is: a bar with bytes, rate and ETA on a
// terminal, a plain line every ten seconds elsewhere, nothing for phases that
// end within two seconds. A phase that begins anew with another total, such as to
// read something else, is shown from there on. It is used by one goroutine at a time.
type Progress struct {
	e     *Env
	what  string
	began time.Time
	last  time.Time
	total int64
	tty   bool
	bar   *progressbar.ProgressBar
}

// Progress begins a phase.
func (e *Env) Progress(what string) *Progress {
	f, ok := e.Stderr.(*os.File)
	return &Progress{e: e, what: what, began: time.Now(), last: time.Now(), tty: ok && term.IsTerminal(int(f.Fd()))}
}

// Update tells that done of total bytes are done.
func (p *Progress) Update(done, total int64) {
	if p.e.Quiet || total <= 0 {
		return
	}
	if total != p.total {
		p.Done()
		p.began, p.last, p.total, p.bar = time.Now(), time.Now(), total, nil
	}
	if p.tty {
		// From the beginning, or what was done until it is shown counts for its first
		// moment.
		if p.bar == nil {
			p.bar = progressbar.NewOptions64(total, progressbar.OptionSetWriter(p),
				progressbar.OptionSetDescription(p.e.Tool+": "+Printable(p.what)), progressbar.OptionShowBytes(true),
				progressbar.OptionUseIECUnits(true), progressbar.OptionThrottle(200*time.Millisecond),
				progressbar.OptionSetPredictTime(true), progressbar.OptionFullWidth(), progressbar.OptionClearOnFinish())
		}
		_ = p.bar.Set64(min(done, total))
		return
	}
	if time.Since(p.last) < lineEvery {
		return
	}
	p.last = time.Now()
	rate := float64(done) / time.Since(p.began).Seconds()
	eta := "unknown"
	if rate > 0 {
		eta = time.Duration(float64(total-done) / rate * float64(time.Second)).Round(time.Second).String()
	}
	p.e.Printf("%s: %s of %s, %d %%, %s/s, ETA %s", p.what, units.Bytes(done), units.Bytes(total), done*100/total, units.Bytes(rate), eta)
}

// Write is for the bar, which is shown only when a phase takes its time.
func (p *Progress) Write(b []byte) (int, error) {
	if time.Since(p.began) < quietFor {
		return len(b), nil
	}
	return p.e.Stderr.Write(b)
}

// Done ends the phase and takes its bar off the terminal.
func (p *Progress) Done() {
	if p.bar != nil {
		_ = p.bar.Finish()
	}
}
