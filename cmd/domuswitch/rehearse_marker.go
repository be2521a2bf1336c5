package main

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
)

// marker is what tells that a guest is up.
type marker struct {
	console *regexp.Regexp // in a line of its console
	node    string         // of its directory in xenstore
	value   *string        // of that; nil: whatever it is
	alive   time.Duration  // so long it runs
}

var loginPrompt = marker{console: regexp.MustCompile(`login: *$`)}

// parseMarker reads console:REGEXP, xenstore:KEY[=VALUE], or a time.
func parseMarker(text string) (marker, error) {
	kind, rest, _ := strings.Cut(text, ":")
	switch {
	case kind == "console" && rest != "":
		re, err := regexp.Compile(rest)
		return marker{console: re}, err
	case kind == "xenstore":
		key, value, has := strings.Cut(rest, "=")
		if key == "" || strings.HasPrefix(key, "/") || strings.HasSuffix(key, "/") || strings.Contains(key, "..") {
			return marker{}, errors.New("want a KEY below the domain's own directory in xenstore, such as data/ready")
		}
		m := marker{node: key}
		if has {
			m.value = &value
		}
		return m, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		return marker{}, errors.New("want console:REGEXP, xenstore:KEY[=VALUE], or a time such as 60s")
	}
	return marker{alive: d}, nil
}

func (m marker) String() string {
	switch {
	case m.console != nil:
		return fmt.Sprintf("its console shows %q", m.console)
	case m.value != nil:
		return fmt.Sprintf("xenstore has %s = %q", m.node, *m.value)
	case m.node != "":
		return "xenstore has " + m.node
	}
	return fmt.Sprintf("it has run for %v", m.alive)
}
