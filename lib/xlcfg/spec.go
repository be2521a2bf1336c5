package xlcfg

import (
	"slices"
	"strings"
)

// specKind is the rule of libxlu_disk_l.l that a piece of a disk string
// matched.
type specKind int

const (
	specBlank      specKind = iota // blanks before a parameter
	specKeyed                      // format=raw,
	specFlag                       // discard,
	specTarget                     // target=… to the end of the line
	specPrefix                     // file:
	specPositional                 // /dev/vg0/vm3,
	specStray                      // one last byte that no rule matches; xl does not see it
	specBadKey                     // an unknown KEY=
	specBadPrefix                  // an unknown PREFIX:
)

// specToken is one piece of a disk string. The pieces cover it without gaps.
type specToken struct {
	kind       specKind
	start, end int    // in the decoded string, the closing comma included
	name       string // the key, flag or prefix, without = or :
	value      string // of a key or a positional
	slot       slot   // which parameter a positional turned out to be
}

// slot is the meaning of a positional parameter.
type slot int

const (
	slotNone slot = iota
	slotTarget
	slotFormat
	slotVDev
	slotAccess
)

var (
	specKeys = [...]string{
		"format", "access", "backend", "backendtype", "specification", "vdev", "script",
		"colo-host", "colo-port", "colo-export", "active-disk", "hidden-disk",
	}
	specFlags = [...]string{
		"cdrom", "devtype=cdrom", "devtype=disk", "direct-io-safe", "discard", "no-discard",
		"colo", "no-colo", "trusted", "untrusted", "grant_usage=1", "grant_usage=0",
	}
	formatPrefixes  = [...]string{"raw", "qcow", "qcow2", "vhd"}
	scriptPrefixes  = [...]string{"iscsi", "nbd", "enbd", "drbd"}
	ignoredPrefixes = [...]string{"tapdisk", "tap", "tap2", "aio", "ioemu", "file", "phy"}
)

// nextSpecToken cuts one piece off the disk string s at offset pos. Like the
// scanner generated from Xen's rules it takes the rule that looks furthest,
// and among equals the first. How far a rule looks and how much it takes are
// two things: a prefix takes "file:" but looks at the whole line, which is why
// it wins over everything that stops at a comma.
func nextSpecToken(s string, pos int) specToken {
	rest := s[pos:]
	best, looked := specToken{kind: specStray, end: 1}, 0
	consider := func(looks, takes int, tok specToken) {
		if looks > looked {
			tok.end = takes
			best, looked = tok, looks
		}
	}
	lineEnd := func(from int) int {
		if i := strings.IndexByte(rest[from:], '\n'); i >= 0 {
			return from + i
		}
		return len(rest)
	}
	comma := strings.IndexByte(rest, ',')
	toComma := len(rest) // just behind the next comma
	if comma >= 0 {
		toComma = comma + 1
	}
	valueAt := func(from int) string { return strings.TrimSuffix(rest[from:toComma], ",") }

	if n := span(rest, isBlank); n > 0 {
		consider(lineEnd(n), n, specToken{kind: specBlank})
	}
	for _, key := range specKeys {
		if strings.HasPrefix(rest, key) && strings.HasPrefix(rest[len(key):], "=") {
			consider(toComma, toComma, specToken{kind: specKeyed, name: key, value: valueAt(len(key) + 1)})
		}
	}
	for _, flag := range specFlags {
		if strings.HasPrefix(rest, flag) {
			n := len(flag)
			if comma == n {
				n++
			}
			consider(n, n, specToken{kind: specFlag, name: flag})
		}
	}
	if strings.HasPrefix(rest, "devtype=") {
		consider(toComma, toComma, specToken{kind: specKeyed, name: "devtype", value: valueAt(len("devtype="))})
	}
	if strings.HasPrefix(rest, "target=") {
		n := lineEnd(0)
		consider(n, n, specToken{kind: specTarget, name: "target", value: strings.TrimSuffix(rest[len("target="):n], ",")})
	}
	word := 0
	if isLower(rest[0]) {
		word = span(rest, func(c byte) bool { return isLower(c) || isDigit(c) || c == '-' })
	}
	if word > 0 && word+1 < len(rest) && rest[word] == '=' && rest[word+1] != ',' {
		n := word + 2
		if n < len(rest) && rest[n] == ',' {
			n++
		}
		consider(n, n, specToken{kind: specBadKey, name: rest[:word]})
	}
	if word > 0 && word < len(rest) && rest[word] == ':' && strings.IndexByte(rest[:word], '-') < 0 {
		name, after, n := rest[:word], rest[word+1:], word+1
		if known(name) {
			consider(lineEnd(n), n, specToken{kind: specPrefix, name: name})
		}
		looks := n
		if after != "" && !isLower(after[0]) && !isDigit(after[0]) {
			looks = lineEnd(n + 1)
		}
		consider(looks, n, specToken{kind: specBadPrefix, name: name})
	}
	if equals := strings.IndexByte(rest[:toComma], '='); equals < 0 {
		consider(toComma, toComma, specToken{kind: specPositional, value: valueAt(0)})
	} else if equals > 0 {
		consider(equals, equals, specToken{kind: specPositional, value: rest[:equals]})
	}
	best.start, best.end = pos, pos+best.end
	return best
}

func known(prefix string) bool {
	return slices.Contains(formatPrefixes[:], prefix) || slices.Contains(scriptPrefixes[:], prefix) || slices.Contains(ignoredPrefixes[:], prefix)
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' || c == '\n' }
