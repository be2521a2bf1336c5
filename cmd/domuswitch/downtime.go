package main

import (
	"encoding/json"
	"time"

	"xenlvm/lib/cli"
	"xenlvm/lib/journal"
)

// A domain is down from when it is asked to shut down until its next guest has its
// disks. Nothing depends on these records but what is expected of the next time, so
// that one cannot be written ends nothing.

// wentDown writes down how long a shutdown took.
func wentDown(e *cli.Env, j *journal.Journal, took time.Duration) {
	if err := j.Append(journal.KindStopped, journal.Stopped{Seconds: took.Seconds()}); err != nil {
		e.Printf("%v", err)
	}
}

// cameUp writes down how long the start took, and tells how long the domain was down.
func (s *starting) cameUp() {
	s.took.Seconds = time.Since(s.created).Seconds()
	records, err := s.d.journal.Read()
	if err == nil {
		s.took.Down, s.took.Expected = downtime(records, s.d.boot, time.Now())
		err = s.d.journal.Append(journal.KindStarted, s.took)
	}
	switch took := s.took; {
	case err != nil:
		s.e.Printf("%v", err)
	case took.Down > 0 && took.Expected > 0:
		s.e.Infof("%s was down for %.1f s, and %.1f s were expected", s.d.name, took.Down, took.Expected)
	case took.Down > 0:
		s.e.Infof("%s was down for %.1f s", s.d.name, took.Down)
	}
}

// downtime is for how long the domain is down that starts now, and what was expected
// of that, both in seconds; 0 where nobody knows.
func downtime(records []journal.Record, boot string, now time.Time) (down, expected float64) {
	for _, r := range records {
		var e journal.Expected
		var s journal.Stopped
		switch {
		case r.Kind == journal.KindStarted:
			down, expected = 0, 0
		case r.Kind == journal.KindExpected && json.Unmarshal(r.Data, &e) == nil:
			expected = e.Seconds()
		case r.Kind == journal.KindStopped && json.Unmarshal(r.Data, &s) == nil && r.Boot == boot:
			down = now.Sub(r.Time).Seconds() + s.Seconds
		}
	}
	return down, expected
}
