package main

import (
	"fmt"
	"strings"
	"time"
)

// verdict is the JSON object that judge prints.
type verdict struct {
	OK      bool               `json:"ok"` // nothing lost, everything verified at least once
	Lost    uint64             `json:"lost"`
	Domains map[string]*domain `json:"domains"`
}

// domain is what one domain's logs say. Times are seconds, stamps Unix nanoseconds.
type domain struct {
	Boots          int              `json:"boots"`
	CleanShutdowns int              `json:"clean_shutdowns"`
	Disks          map[string]*disk `json:"disks"`
	Verified       []verified       `json:"verified"`
	RecordsLost    uint64           `json:"records_lost"`
	FilesLost      uint64           `json:"files_lost"`
	Losses         []string         `json:"losses"`   // each loss in words
	Failures       []string         `json:"failures"` // GUEST FAIL lines
	LastBootFailed bool             `json:"last_boot_failed"`
	Torn           int              `json:"torn_tails"` // unacknowledged tails cut off: no loss
	Beats          int              `json:"beats"`
	MaxGap         float64          `json:"max_gap_s"`   // longest time between two heartbeats
	MaxPause       float64          `json:"max_pause_s"` // the same within one boot
	Longest        *gap             `json:"longest_gap,omitempty"`
	Gaps           []gap            `json:"gaps"` // all above --gap
	ClockBack      float64          `json:"clock_back_s"`
	Windows        []window         `json:"windows,omitempty"`

	minGap   time.Duration
	root     string          // name of the root disk
	started  bool            // a start line came and no boot line yet
	beat     int64           // stamp of the last heartbeat
	boot     int             // its boot
	beatLost bool            // a heartbeat said that something is lost
	heard    map[string]bool // complaints, by their text
}

// disk is one disk of a domain. A record number counts from 1.
type disk struct {
	Acked    uint64  `json:"acked"`     // highest number ever acknowledged
	Records  uint64  `json:"records"`   // acknowledgements seen
	Unseen   uint64  `json:"unseen"`    // skipped by the acknowledgements: console lines that were damaged
	Unproven uint64  `json:"unproven"`  // acknowledged since the last verification
	MaxGap   float64 `json:"max_gap_s"` // longest time between two acknowledgements
	FilesMin int     `json:"files"`     // files that must be there
	now      uint64  // number that the next verification must find
	at       int64   // stamp of the last acknowledgement
	files    map[string]bool
}

// verified is one passed verification of a disk: at a boot, or live when the guest was told to.
type verified struct {
	Boot    int    `json:"boot"`
	Disk    string `json:"disk"`
	Records uint64 `json:"records"`
	Last    uint64 `json:"last"`
	Bytes   uint64 `json:"bytes"`
	At      int64  `json:"at_ns"`
	Acked   uint64 `json:"acked_before"`
}

// window counts the records acknowledged from Start up to, not including, End.
type window struct {
	Start   int64  `json:"start_ns"`
	End     int64  `json:"end_ns"`
	Records uint64 `json:"records"`
}

// judgeFiles reads the logs and judges each domain in them.
func judgeFiles(paths []string, opt options) (map[string]*domain, error) {
	logs := map[string][][]event{}
	for _, p := range paths {
		events, err := readEvents(p)
		if err != nil {
			return nil, err
		}
		logs[domainName(p)] = append(logs[domainName(p)], events)
	}
	domains := map[string]*domain{}
	for name, files := range logs {
		domains[name] = judge(merge(files), opt)
	}
	return domains, nil
}

// newVerdict sums up.
func newVerdict(domains map[string]*domain) verdict {
	v := verdict{OK: len(domains) > 0, Domains: domains}
	for _, d := range domains {
		v.Lost += d.RecordsLost + d.FilesLost
		v.OK = v.OK && len(d.Losses) == 0 && len(d.Verified) > 0 && !d.LastBootFailed
	}
	v.OK = v.OK && v.Lost == 0
	return v
}

// judge follows one domain through its events.
func judge(events []event, opt options) *domain {
	d := &domain{
		Disks: map[string]*disk{}, Verified: []verified{}, Losses: []string{}, Failures: []string{}, Gaps: []gap{},
		Windows: append([]window(nil), opt.windows...), minGap: opt.gap, heard: map[string]bool{},
	}
	for _, e := range events {
		d.take(e)
	}
	if d.beatLost && len(d.heard) == 0 { // the complaint itself was damaged
		d.lose(1, "guest: the heartbeat says lost")
	}
	for _, k := range d.Disks {
		k.FilesMin = len(k.files)
	}
	return d
}

func (d *domain) take(e event) {
	switch e.kind {
	case "start":
		d.started = true
		d.newBoot()
	case "boot":
		if !d.started { // its start line was damaged
			d.newBoot()
		}
		d.started = false
	case "HB":
		d.beatLost = d.beatLost || e.text != ""
		d.takeBeat(e.at)
	case "ACK":
		d.takeAck(e)
	case "verified":
		d.takeVerified(e)
	case "torn":
		d.Torn++
	case "files":
		k := d.disk(e.disk)
		if have := int(e.number("verified") + e.number("bad")); have < len(k.files) {
			d.loseFiles(uint64(len(k.files)-have), "boot %d: disk %s has %d files, not %d", d.Boots, e.disk, have, len(k.files))
			clear(k.files)
		}
	case "LOST":
		d.takeLost(e)
	case "FAIL":
		d.Failures = append(d.Failures, fmt.Sprintf("boot %d: %s", d.Boots, e.text))
		d.LastBootFailed = true
	case "doing", "did":
		d.takeCommand(e)
	case "shutdown":
		d.CleanShutdowns++
	}
}

func (d *domain) newBoot() {
	d.Boots++
	d.LastBootFailed = false
}

func (d *domain) disk(name string) *disk {
	k := d.Disks[name]
	if k == nil {
		k = &disk{files: map[string]bool{}}
		d.Disks[name] = k
	}
	return k
}

// takeAck counts an acknowledgement. Numbers only go up: one that comes again was handed out by a guest whose disk had
// forgotten it.
func (d *domain) takeAck(e event) {
	k := d.disk(e.disk)
	n := e.last - e.first + 1
	switch {
	case e.first <= k.now:
		d.lose(k.now-e.first+1, "boot %d: disk %s acknowledged %d to %d a second time", d.Boots, e.disk, e.first, min(e.last, k.now))
	case k.now > 0:
		k.Unseen += e.first - k.now - 1
	}
	k.now = e.last
	k.Acked = max(k.Acked, e.last)
	k.Records += n
	k.Unproven += n
	if k.at > 0 {
		k.MaxGap = max(k.MaxGap, seconds(e.at-k.at))
	}
	k.at = e.at
	for i := range d.Windows {
		if w := &d.Windows[i]; e.at >= w.Start && e.at < w.End {
			w.Records += n
		}
	}
}

func (d *domain) takeVerified(e event) {
	k := d.disk(e.disk)
	if d.root == "" {
		d.root = e.disk
	}
	last := e.number("last")
	d.Verified = append(d.Verified, verified{d.Boots, e.disk, e.number("records"), last, e.number("bytes"), e.at, k.now})
	if last < k.now {
		d.lose(k.now-last, "boot %d: disk %s has records up to %d, %d were acknowledged", d.Boots, e.disk, last, k.now)
	}
	// What was verified once must be there ever after, acknowledged on this console or not.
	k.now = last
	k.Unproven = 0
}

// takeLost hears the guest's own complaint. The guest repeats it at every boot of the same disk; it counts once.
func (d *domain) takeLost(e event) {
	if d.heard[e.text] {
		return
	}
	d.heard[e.text] = true
	if e.fields["file"] != "" || strings.Contains(e.text, " files: ") {
		d.loseFiles(1, "boot %d: guest: %s", d.Boots, e.text)
		return
	}
	n := max(1, e.number("count"))
	if e.fields["last"] != "" {
		k := d.disk(e.disk)
		// The console may know of more than what the guest knew when it complained.
		if last, after := e.number("last"), e.number("after"); k.now > last+after {
			n = max(n, k.now-last-after)
		}
		k.now = e.number("last")
	}
	d.lose(n, "boot %d: guest: %s", d.Boots, e.text)
}

// takeCommand keeps count of the files that must be there: those whose fill was reported. From the moment that a fill,
// which replaces, or a delete begins, the file may or may not be there.
func (d *domain) takeCommand(e event) {
	words := strings.Fields(e.text)
	if len(words) < 2 || words[0] != "fill" && words[0] != "delete" {
		return
	}
	name, file, ok := strings.Cut(words[1], ":")
	if !ok {
		name, file = d.root, words[1]
	}
	files := d.disk(name).files
	delete(files, file)
	if e.kind == "did" && words[0] == "fill" && strings.Contains(e.text+" ", " ok ") {
		files[file] = true
	}
}

func (d *domain) lose(n uint64, format string, args ...any) {
	d.RecordsLost += n
	d.Losses = append(d.Losses, fmt.Sprintf(format, args...))
}

func (d *domain) loseFiles(n uint64, format string, args ...any) {
	d.FilesLost += n
	d.Losses = append(d.Losses, fmt.Sprintf(format, args...))
}

func seconds(ns int64) float64 { return time.Duration(ns).Seconds() }
