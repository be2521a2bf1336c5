package mirror

import (
	"fmt"
	"path/filepath"
	"time"

	"xenlvm/lib/fault"
	"xenlvm/lib/md"
	"xenlvm/lib/units"
)

const (
	patience = 30               // looks, about a second each, before a mirror is called slow
	reason   = 10 * time.Minute // what slow work may still take before anybody is told
	slowly   = 10 << 20         // bytes a second: a disk that has nothing else to do does more
)

// minimum is what md is to be given when it gives way to the domain too much.
const minimum units.Bytes = 100 << 20 // bytes a second

// Pace finds out whether a mirror that is being filled, or compared, will be done
// within reason: md lets the domain go first, and next to one that never rests it
// gets few turns.
type Pace struct {
	slow int // looks in a row
	told bool
}

// Look takes what the kernel has of d, about once a second. Its error says, once,
// why the work will not end, or not soon; the hint what to do.
func (p *Pace) Look(d Disk, s State) error {
	under := s.Phase == Recovering || s.MD.Action != "idle"
	if !under || s.MD.Speed > 0 && (!heldBack(s.MD) || left(s.MD) < reason) {
		p.slow = 0
		return nil
	}
	if p.slow++; p.slow < patience || p.told {
		return nil
	}
	p.told = true
	return d.slow(s)
}

// heldBack says whether an array is slow although nobody bounded it so.
func heldBack(s md.Status) bool { return s.Speed < slowly && slowly < s.Most }

// left is how long the work still takes at its speed.
func left(s md.Status) time.Duration {
	seconds := float64(s.Total-s.Done) / float64(s.Speed)
	return time.Duration(min(seconds, 1e9)) * time.Second
}

// slow says why.
func (d Disk) slow(s State) error {
	sysfs := "/sys/block/" + filepath.Base(s.Array.Path) + "/md/"
	switch m := s.MD; {
	case m.Speed == 0:
		err := fmt.Errorf("%s: its mirror stands still (%s)", d, m.Action)
		switch {
		case m.ReadOnly:
			return fault.Hint(err, "mdadm --readwrite %s", s.Array.Path)
		case m.Action == "frozen":
			return fault.Hint(err, "somebody stopped it: echo idle >%ssync_action", sysfs)
		}
		return fault.Hint(err, "dmesg; cat /proc/mdstat")
	default:
		err := fmt.Errorf("%s: its mirror needs %s more, at %s a second: the domain keeps the disks busy", d, left(m), m.Speed)
		if 4*m.Speed < 3*m.Least { // it does not give way as it is
			return fault.Hint(err, "the disks do no more than that: have the domain write less for a while")
		}
		return fault.Hint(err, "to let md take more from the domain: echo %d >%ssync_speed_min", min(minimum, m.Most)>>10, sysfs)
	}
}
