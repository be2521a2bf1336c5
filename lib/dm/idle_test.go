package dm

import (
	"errors"
	"testing"
	"time"
)

// What udev opens for a moment is no user, and somebody who stays is one.
func TestSettles(t *testing.T) {
	for _, tt := range []struct {
		name   string
		counts []int // the last one stays
		known  int
		want   bool
		asked  int
	}{
		{"idle at once", []int{0}, 0, true, 1},
		{"open for a moment", []int{2, 1, 0}, 0, true, 3},
		{"ours alone", []int{1}, 1, true, 1},
		{"ours and another's", []int{2, 2, 1}, 1, true, 3},
		{"open for good", []int{1}, 0, false, 41},
	} {
		asked, slept := 0, time.Duration(0)
		count := func() (int, error) {
			asked++
			return tt.counts[min(asked, len(tt.counts))-1], nil
		}
		got := settles(count, tt.known, func(d time.Duration) { slept += d })
		if got != tt.want || asked != tt.asked || slept > 2*time.Second {
			t.Errorf("%s: %v, asked %d times in %s; want %v, %d", tt.name, got, asked, slept, tt.want, tt.asked)
		}
	}
	if !settles(func() (int, error) { return 1, errors.New("no device-mapper") }, 0, nil) {
		t.Error("what is no device of device-mapper was refused")
	}
}
