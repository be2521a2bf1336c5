package main

import (
	"slices"

	"xenlvm/lib/convert"
	"xenlvm/lib/mirror"
	"xenlvm/lib/run"
)

func (v *view) quoted() string { return run.Quote(v.d.name) }

// goingOn is the command that goes on, "" for none.
type goingOn struct {
	command string
	todo    bool // something is half-way until then; else it may be left
}

// next is how to go on. What a run needs that was killed comes before what follows it.
func (v *view) next(s statusJSON) goingOn {
	name := v.quoted()
	if v.holder != nil {
		return goingOn{waitFor(v.holder.PID), true}
	}
	if v.d.file == nil { // nothing can be done with the domain itself
		if len(s.Left) == 0 {
			return goingOn{}
		}
		return goingOn{"imgconv --snapshot --drop-base " + name, true}
	}
	if line := v.interrupted(); line != "" {
		return goingOn{line, true}
	}
	has := func(at stage) bool {
		return slices.ContainsFunc(s.Disks, func(d diskStatus) bool { return d.Stage == at })
	}
	half := func(method convert.Method) bool {
		return slices.ContainsFunc(s.Disks, func(d diskStatus) bool { return d.Stage == planned && d.Method == string(method) })
	}
	for _, d := range s.Disks {
		if line := d.nextOfMirror(name); line != "" {
			return goingOn{line, true}
		}
	}
	switch {
	case has(applied):
		return goingOn{"domuswitch start " + name, true}
	case half(convert.QEMU):
		return goingOn{"domuswitch live " + name, true}
	case half(convert.Mirror): // which is gone
		return goingOn{"domuswitch abort " + name, true}
	case has(planned):
		return goingOn{"imgconv --snapshot " + name, true}
	case len(v.d.rehearsals()) > 0:
		return goingOn{"domuswitch rehearse " + name, true}
	case len(s.Left) > 0 && has(copied):
		return goingOn{"imgconv --snapshot " + name, true}
	case len(s.Left) > 0 && has(switched):
		return goingOn{s.Left[0].Line, true}
	case len(s.Left) > 0:
		return goingOn{"domuswitch abort " + name, true}
	case has(copied):
		return goingOn{"image-to-lv " + name, true}
	case has(switched) && slices.ContainsFunc(s.Kept, func(k kept) bool { return k.Kind != "volume" && k.Kind != "device" }):
		return goingOn{"domuswitch purge " + name, false}
	}
	return goingOn{"", false}
}

// interrupted is what a domain wants that was in the middle of a move.
func (v *view) interrupted() string {
	if v.now == nil {
		return ""
	}
	if p, over := v.d.suspension(); p != nil && !over && p.saved() && !v.now.up {
		words := []string{"domuswitch", "live", v.d.name}
		args := v.linesOfMove()
		if len(args) == 0 {
			return "domuswitch start " + v.quoted() // which says what there is
		}
		return run.Quote(append(words, args...)...)
	}
	if all := v.c.unclear(v.d); len(all) > 0 {
		if h := all[0]; h.underWay(v.d, *v.now) {
			return run.Quote("domuswitch", "live", v.d.name, h.Disk.VDev+"="+h.Device)
		}
		return "domuswitch start " + v.quoted() // which says between what to choose
	}
	return ""
}

// linesOfMove are the arguments of the move that was interrupted, as far as the journal
// tells: onto mirrors.
func (v *view) linesOfMove() []string {
	var args []string
	for _, m := range v.mirrors {
		if !m.Ended && m.now.Phase != mirror.Absent {
			args = append(args, m.VDev+"="+m.Path())
		}
	}
	return args
}

// nextOfMirror is what goes on with a mirror; "" for a disk that is not mirrored.
func (d diskStatus) nextOfMirror(name string) string {
	switch d.Phase {
	case mirror.Built:
		if d.used {
			return "mdmirror add " + name
		}
		return "image-to-lv --plan mirror " + name
	case mirror.Recovering:
		return "mdmirror wait " + name
	case mirror.Synced, mirror.Switched:
		return "mdmirror finish " + name
	case mirror.Absent, mirror.Partly:
		return "mdmirror build " + name
	case mirror.Degraded, mirror.Failed:
		return "mdmirror status " + name // which says what failed
	case mirror.Returned:
		return "mdmirror abort " + name
	}
	return ""
}
