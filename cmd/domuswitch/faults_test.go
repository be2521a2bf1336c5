package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"xenlvm/internal/fakehost"
	"xenlvm/internal/sweep"
)

const (
	faultSize  = 256 << 20
	beforeText = "# the web server\nname = \"vm3\"\ndisk = [ 'file:$WORK/srv/vm3.img,xvda,w' ]\n"
	mirrorPath = "$WORK/dev/mapper/xenlvm-vm3-xvda"
)

var withoutDomain = regexp.MustCompile(`(?m)^domain .*\n`)

// TestCommandFaults has each command fail, hang, be killed and be missing that
// domuswitch calls, and kills domuswitch behind it.
func TestCommandFaults(t *testing.T) {
	onVolume := []string{"domuswitch", "apply", "vm3", "xvda=$WORK/dev/vg0/a"}
	onMirror := func(verb string) []string { return []string{"domuswitch", verb, "vm3", "xvda=" + mirrorPath} }
	applied := func(w sweep.World) {
		faultHost(w, false)
		w.Done(onVolume...)
	}
	// A start that fails puts the previous configuration back.
	reverted := func(_ int, before, now string) bool {
		return now == before || now == strings.ReplaceAll(before, "phy:$WORK/dev/vg0/a", "file:$WORK/srv/vm3.img")
	}
	// Who interrupts it may find the guest shut down: it was asked to.
	orDown := func(status int, before, now string) bool {
		return now == before || status == 130 && now == withoutDomain.ReplaceAllString(before, "")
	}
	calls := map[string][]string{
		"fsync": nil, "pwrite64": nil, "ftruncate": nil, "fchmod": nil, "renameat": {"xen/vm3.cfg"},
		"openat": {"xen/vm3.cfg", "xen", "state/vm3", "state/vm3/journal.jsonl"},
	}
	plans := []sweep.Plan{
		{Name: "apply", Make: func(w sweep.World) { faultHost(w, false) }, Run: onVolume, State: faultState, Whole: faultWhole, Calls: calls},
		{Name: "revert", Make: applied, Run: []string{"domuswitch", "revert", "vm3"}, State: faultState, Whole: faultWhole, Calls: calls},
		{Name: "start", Make: applied, Run: []string{"domuswitch", "start", "vm3"}, Again: [][]string{onVolume, {"domuswitch", "start", "vm3"}},
			State: faultState, Whole: faultWhole, Undone: reverted, Settle: unmade},
		{Name: "stop", Make: func(w sweep.World) { faultHost(w, true) }, Run: []string{"domuswitch", "stop", "vm3"}, State: faultState, Whole: faultWhole,
			Undone: func(int, string, string) bool { return true }}, // a guest that was asked may end at any time
		{Name: "restart", Make: func(w sweep.World) { faultHost(w, true) }, Run: onMirror("restart"), State: faultState, Undone: orDown, Whole: faultWhole, Settle: unmade},
		{Name: "live by migrate", Make: func(w sweep.World) { faultHost(w, true) }, Run: onMirror("live"), State: faultState, Whole: faultWhole},
		{Name: "live by restore", Make: func(w sweep.World) {
			faultHost(w, true)
			edit(w, func(s *fakehost.State) { s.Xl.Caps = "hap" })
		}, Run: onMirror("live"), State: faultState, Whole: faultWhole},
	}
	for i := range plans {
		plans[i].Temporary = []string{"tmp/*", "state/vm3/*.cfg"}
		if plans[i].Settle == nil {
			plans[i].Settle = settle
		}
		plans[i].Env = map[string]string{"DOMUSWITCH_XEN_DIR": "xen", "DOMUSWITCH_STATE_DIR": "state", "TMPDIR": "tmp"}
	}
	sweep.Run(t, slices.Concat(slices.Collect(maps.Keys(fakehost.Commands())), []string{"domuswitch"}), plans)
}

// faultHost is a host with a domain on an image, its mirror, and a volume.
func faultHost(w sweep.World, running bool) {
	w.Helper()
	for _, dir := range []string{"tmp", "shm"} {
		if err := os.Mkdir(filepath.Join(w.Dir, dir), 0o700); err != nil {
			w.Fatal(err)
		}
	}
	w.Write("srv/vm3.img", "")
	image := filepath.Join(w.Dir, "srv/vm3.img")
	stamp := time.Unix(1700000000, 0)
	if err := os.Truncate(image, faultSize); err != nil {
		w.Fatal(err)
	}
	if err := os.Chtimes(image, stamp, stamp); err != nil {
		w.Fatal(err)
	}
	w.Write("xen/vm3.cfg", beforeText)
	w.Write("host.json", "{}")
	edit(w, func(s *fakehost.State) {
		s.LastID, s.Xl.FreeMiB = 4, 300
		if running {
			s.Domains = []*fakehost.Domain{{Name: "vm3", ID: 4, Disks: []*fakehost.Disk{{VDev: "xvda", Path: image, State: 4, Number: "7:1", Size: faultSize}}}}
		}
		loop := filepath.Join(w.Dir, "dev/loop2")
		s.Devices = map[string]*fakehost.Device{
			loop: {Size: faultSize, Major: 7, Minor: 2, On: []string{image}},
			filepath.Join(w.Dir, "dev/mapper/xenlvm-vm3-xvda"): {Size: faultSize, Major: 253, Minor: 20, DM: "XENLVM-1", On: []string{loop}},
			filepath.Join(w.Dir, "dev/vg0/a"):                  {Size: faultSize, Major: 253, Minor: 10, LV: "vg0/a", UUID: "u"},
		}
	})
}

// settle lets a domain end that was asked to.
func settle(w sweep.World) {
	w.Done("xl", "list")
	w.Done("xl", "list")
}

// unmade does what a start says that was killed, or cannot tell: it gives up the domain
// that is there, paused.
func unmade(w sweep.World) {
	settle(w)
	for _, d := range hostState(w).Domains {
		if d.State == "--p---" {
			w.Done("xl", "destroy", d.Name)
		}
	}
}

func edit(w sweep.World, change func(*fakehost.State)) {
	w.Helper()
	if err := fakehost.Edit(filepath.Join(w.Dir, "host.json"), change); err != nil {
		w.Fatal(err)
	}
}

func hostState(w sweep.World) (s fakehost.State) {
	if err := json.Unmarshal([]byte(w.Read("host.json")), &s); err != nil {
		w.Fatal(err)
	}
	return s
}

// faultState is the configuration, what the domain runs on, and what is left about.
func faultState(w sweep.World) string {
	b := strings.Builder{}
	b.WriteString(w.Read("xen/vm3.cfg"))
	s := hostState(w)
	for _, d := range s.Domains {
		fmt.Fprintf(&b, "domain %s %q", d.Name, d.State)
		for _, k := range d.Disks {
			fmt.Fprintf(&b, " %s %d", k.Path, k.State)
		}
		fmt.Fprintf(&b, " restarts from %q\n", d.Restarts)
	}
	for _, path := range slices.Sorted(maps.Keys(s.Devices)) {
		fmt.Fprintf(&b, "%s %q\n", path, s.Devices[path].Tags)
	}
	for _, pattern := range []string{"tmp/*", "shm/*", "state/vm3/*.cfg", "xen/.*"} {
		found, err := filepath.Glob(filepath.Join(w.Dir, pattern))
		if err != nil {
			w.Fatal(err)
		}
		for _, f := range found {
			fmt.Fprintf(&b, "left: %s\n", strings.TrimPrefix(f, w.Dir))
		}
	}
	return b.String()
}

// faultWhole says what must never be: a configuration that is neither the old nor the
// new one, or a domain that exists twice.
func faultWhole(w sweep.World) error {
	var found []string
	for _, d := range hostState(w).Domains {
		if d.State == "" || d.State == "-b----" { // may write
			found = append(found, d.Name)
		}
	}
	if len(found) > 1 {
		return fmt.Errorf("domains that write: %q", found)
	}
	switch text := w.Read("xen/vm3.cfg"); text {
	case beforeText, strings.ReplaceAll(beforeText, "file:$WORK/srv/vm3.img", "phy:$WORK/dev/vg0/a"):
		return nil
	default:
		return fmt.Errorf("the configuration is %q", text)
	}
}
