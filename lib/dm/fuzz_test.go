package dm

import (
	"strings"
	"testing"
)

// FuzzAnswer holds of whatever an ioctl may leave in its buffer: it is refused, or a
// line of which at least start, length and kind can be told apart.
func FuzzAnswer(f *testing.F) {
	f.Add(answer(312, "snapshot", "16/204800 16"), uint32(312), uint32(1))
	f.Add(answer(312, "linear", "253:3 0"), uint32(312), uint32(1))
	f.Fuzz(func(t *testing.T, buf []byte, start, count uint32) {
		line, err := status(buf, start, count)
		if err != nil {
			if line != "" {
				t.Errorf("%q, %v", line, err)
			}
			return
		}
		if strings.ContainsRune(line, 0) || strings.Count(line, " ") < 1 {
			t.Errorf("read %q", line)
		}
	})
}
