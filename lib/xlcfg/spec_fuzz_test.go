package xlcfg

import (
	"strings"
	"testing"
)

// FuzzSpec holds of any disk string: it is refused at a place in it, or cut into
// pieces that cover it without gaps, of which the disk is made.
func FuzzSpec(f *testing.F) {
	for _, c := range rewriteCases {
		f.Add(strings.Trim(c.before, `'"`))
	}
	f.Fuzz(func(t *testing.T, spec string) {
		d, tokens, err := parseSpec(spec)
		if err != nil {
			if err.pos < 0 || err.pos > len(spec) || err.msg == "" || strings.Contains(err.msg, "\n") {
				t.Errorf("refused at %d of %d: %q", err.pos, len(spec), err.msg)
			}
			return
		}
		at := 0
		for _, tok := range tokens {
			if tok.start != at || tok.end <= at {
				t.Fatalf("a piece from %d to %d after %d", tok.start, tok.end, at)
			}
			at = tok.end
		}
		if at != len(spec) {
			t.Errorf("the pieces end at %d of %d", at, len(spec))
		}
		if d.Spec != spec || !strings.Contains(spec, d.Target) || !strings.Contains(spec, d.VDev) || d.Format == "" {
			t.Errorf("it became %s", show(d))
		}
		if id, ok := DevID(d.VDev); ok && id < 0 {
			t.Errorf("%q has the number %d", d.VDev, id)
		}
	})
}
