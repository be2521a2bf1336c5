package scripttest

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

const (
	sign  = "vm3\txvda\t/srv/vm3.img\t/dev/vg0/vm3-xvda\t"
	moved = sign + "switched\n"
	dry   = "a line for a shell\n"
)

// job is one run of image-to-lv.
type job struct {
	args   string // before the domain
	host   host
	on     string // what goes wrong: "step=act ..."; see act
	noOne  bool   // nobody reads standard error
	status int
	calls  string // of the programs, without show; "apart": in a session of its own
	end    host
	says   string
	not    string // and does not say
	prints string // on standard output, where that does not follow from the calls
}

const (
	untilStop  = "copy, check, stop, "
	untilFinal = untilStop + "final, "
	untilApply = untilFinal + "apply, "
	again      = "start on images apart"
)

var (
	up   = host{"running", "images"}
	down = host{"stopped", "images"}
	done = host{"running", "lvs"}
	qcow = host{"running", "qcow2"}
	onto = host{"running", "mirrors"}
)

var jobs = map[string]job{
	"the whole move":             {host: up, calls: untilApply + "start on lvs", end: done, says: "vm3 runs on its new disks"},
	"prepare":                    {args: "--prepare", host: up, calls: "copy, check", end: up, says: "prepared"},
	"limited":                    {args: "--max-interruption 9", host: up, calls: "copy --max-interruption, check, stop, final, apply, start on lvs", end: done},
	"limited, but prepared only": {args: "--prepare --max-interruption 9", host: up, status: 2, end: up, says: "--max-interruption is for the cutover"},
	"limited, by mirror":         {args: "--plan mirror --max-interruption=9", host: up, status: 2, end: up, says: "--max-interruption is for the plan snapshot"},
	"from clones":                {args: "--clone", host: up, calls: "copy --clone, check, stop, final --clone, apply, start on lvs", end: done},
	"from clones, by mirror":     {args: "--plan mirror --clone", host: up, status: 2, end: up, says: "--clone is for the plan snapshot"},
	"with a back door": {args: "--keep-back-door --back-door-size 5G", host: up,
		calls: "copy, check --keep-back-door --back-door-size, stop, final, apply --keep-back-door --back-door-size, start on lvs", end: done},
	"with a back door, by mirror": {args: "--plan mirror --keep-back-door", host: up, status: 2, end: up, says: "--keep-back-door and --back-door-size are for the plan snapshot"},
	"dry run":                     {args: "--dry-run", host: up, calls: "plan", end: up},
	"configuration and timeout": {args: "--config=/x.cfg --timeout=9s", host: up,
		calls: "copy --config, check --config, stop --config --timeout, final --config, apply --config, start on lvs --config --timeout", end: done},
	"nobody reads": {host: up, noOne: true, calls: untilApply + "start on lvs", end: done},

	// A domain that does not run is not started.
	"stopped": {host: down, calls: "copy, check, final, apply", end: host{"stopped", "lvs"},
		says: "was left stopped; start it with: domuswitch start vm3"},
	"stopped, final fails":     {host: down, on: "final=fail", status: 1, calls: "copy, check, final", end: down},
	"stopped, apply fails":     {host: down, on: "apply=fail", status: 1, calls: "copy, check, final, apply", end: down},
	"stopped, apply and term":  {host: down, on: "apply=term", status: 130, calls: "copy, check, final, apply", end: host{"stopped", "lvs"}},
	"nothing to do, stopped":   {host: host{"stopped", "lvs"}, on: "copy=nothing", calls: "copy", end: host{"stopped", "lvs"}, says: "start it with: domuswitch start vm3"},
	"nothing to do, it runs":   {host: done, on: "copy=nothing", calls: "copy", end: done},
	"nothing to do, with file": {args: "--config=/x.cfg", host: host{"stopped", "lvs"}, on: "copy=nothing", calls: "copy --config", end: host{"stopped", "lvs"}, says: "domuswitch start --config=/x.cfg vm3"},

	// What cannot be switched is found out before the domain is asked to stop. The
	// files of a running guest are copied in part, and that is no reason.
	"cannot be switched":          {host: up, on: "check=refused", status: 3, calls: "copy, check", end: up},
	"cannot be switched, stopped": {host: down, on: "check=refused", status: 3, calls: "copy, check", end: down},
	"cannot be switched, prepare": {args: "--prepare", host: up, on: "check=refused", status: 3, calls: "copy, check", end: up},
	"check and term":              {host: up, on: "check=term", status: 130, calls: "copy, check", end: up},
	"files":                       {host: up, on: "copy=partial", calls: untilApply + "start on lvs", end: done},

	// The exit status is that of the program that failed.
	"copy fails":    {host: up, on: "copy=fail", status: 1, calls: "copy", end: up},
	"copy differs":  {host: up, on: "copy=differs", status: 5, calls: "copy", end: up},
	"stop refused":  {host: up, on: "stop=refused", status: 3, calls: "copy, check, stop", end: up, not: "waiting"},
	"stop too late": {host: up, on: "stop=fail", status: 1, calls: "copy, check, stop", end: up, says: "vm3 has not shut down; if it does so later: domuswitch start vm3"},
	"final fails":   {host: up, on: "final=fail", status: 1, calls: untilFinal + again, end: up},
	"final differs": {host: up, on: "final=differs", status: 5, calls: untilFinal + again, end: up},
	"apply fails":   {host: up, on: "apply=fail", status: 1, calls: untilApply + again, end: up},
	"start fails":   {host: up, on: "start=fail", status: 1, calls: untilApply + "start on lvs, revert apart, " + again, end: up},
	"start leaves":  {host: up, on: "start=left", status: 4, calls: untilApply + "start on lvs", end: done},
	"start dies":    {host: up, on: "start=dead", status: 4, calls: untilApply + "start on lvs", end: host{"stopped", "lvs"}},
	"revert fails":  {host: up, on: "start=fail revert=fail", status: 1, calls: untilApply + "start on lvs, revert apart, start on lvs apart", end: done},
	"all starts fail": {host: up, on: "start=fail start=fail", status: 1, calls: untilApply + "start on lvs, revert apart, " + again,
		end: down, says: "cannot start vm3: try 'domuswitch start vm3'"},

	// Nobody reads what back says, and it does its work.
	"nobody reads, final fails": {host: up, noOne: true, on: "final=fail", status: 1, calls: untilFinal + again, end: up},
	"nobody reads, start fails": {host: up, noOne: true, on: "start=fail", status: 1,
		calls: untilApply + "start on lvs, revert apart, " + again, end: up},

	// A guest that was asked to shut down does so when nobody waits any more.
	"stop too late, and then it ends": {host: up, on: "stop=later", status: 1, calls: untilStop + again, end: up},
	"stop interrupted, then it ends":  {host: up, on: "stop=hangup-later", status: 130, calls: untilStop + again, end: up},

	// The script alone gets SIGTERM while a program runs, which ends well.
	"copy and term":  {host: up, on: "copy=term", status: 130, calls: "copy", end: up},
	"stop and term":  {host: up, on: "stop=term", status: 130, calls: untilStop + again, end: up},
	"final and term": {host: up, on: "final=term", status: 130, calls: untilFinal + again, end: up},
	"apply and term": {host: up, on: "apply=term", status: 130, calls: untilApply + "revert apart, " + again, end: up},
	"start and term": {host: up, on: "start=term", status: 130, calls: untilApply + "start on lvs", end: done, says: "vm3 runs; 'domuswitch show vm3' prints on which disks"},

	"final fails, and then term": {host: up, on: "final=fail start=term", status: 1, calls: untilFinal + again, end: up},

	// The terminal goes away, and says so once more while back works.
	"copy and hangup":  {host: up, noOne: true, on: "copy=hangup", status: 130, calls: "copy", end: up},
	"stop and hangup":  {host: up, noOne: true, on: "stop=hangup-later start=hangup", status: 130, calls: untilStop + again, end: up},
	"final and hangup": {host: up, noOne: true, on: "final=hangup start=hangup", status: 130, calls: untilFinal + again, end: up},
	"apply and hangup": {host: up, noOne: true, on: "apply=hangup start=hangup", status: 130, calls: untilApply + again, end: up},
	"start and hangup": {host: up, noOne: true, on: "start=hangup start=hangup revert=hangup", status: 130,
		calls: untilApply + "start on lvs, revert apart, " + again, end: up},

	// By mirrors.
	"mirror":       {args: "--plan mirror --to vg0", host: up, calls: "build --to --check-add, restart, add --to, wait, finish", end: done, prints: moved},
	"live":         {args: "--plan live --to vg0 --max-pause 5", host: up, calls: "qemu --max-pause --to, build --to --check-add, live --max-pause, add --to, wait, finish", end: done, prints: moved},
	"live prepare": {args: "--plan live --prepare", host: up, calls: "qemu plan, build --check-add, live, add, wait", end: onto, prints: sign + "synced\n", says: "prepared"},
	"live cutover": {args: "--plan live --cutover", host: onto, calls: "finish", end: done, prints: moved},
	"live dry run": {args: "--plan live --dry-run", host: up, calls: "qemu plan, plan --check-add", end: up, prints: dry},
	"mirror, with flags": {args: "--plan mirror --to vg0 --bwlimit 1M --overwrite", host: up,
		calls: "build --bwlimit --overwrite --to --check-add, restart, add --bwlimit --overwrite --to, wait, finish --bwlimit", end: done, prints: moved},
	"mirror to nowhere": {args: "--plan mirror", host: up, on: "build=refused", status: 3, calls: "build --check-add", end: up},
	"live fails":        {args: "--plan live", host: up, on: "live=fail", status: 1, calls: "qemu, build --check-add, live, abort apart", end: up},
	"after a boot":      {args: "--plan live", host: up, on: "status=absent live=refused", status: 3, calls: "qemu, build --check-add, live, abort apart", end: up},
	"cutover dry":       {args: "--plan live --cutover --dry-run", host: onto, calls: "plan", end: onto, prints: dry},
	"cutover, to":       {args: "--plan live --cutover --to vg0", host: onto, status: 2, end: onto, says: "takes no --prepare, --to and --overwrite"},
	"cutover, again":    {args: "--plan live --cutover --prepare", host: onto, status: 2, end: onto, says: "takes no --prepare, --to and --overwrite"},
	"mirror, pause":     {args: "--plan mirror --max-pause 5", host: up, status: 2, end: up, says: "--max-pause is for the plans live and auto"},
	"auto":              {args: "--plan auto", host: up, on: "live=refused", calls: "qemu, build --check-add, live, restart, add, wait, finish", end: done, prints: moved, says: "live is refused"},
	"mirror of QEMU":    {args: "--plan mirror", host: qcow, on: "build=refused", status: 3, calls: "build --check-add", end: qcow},

	// What QEMU serves, it moves itself.
	"QEMU": {args: "--plan live --to vg0 --overwrite --bwlimit 1M --max-pause 5 --config /x.cfg --timeout 9s", host: qcow,
		calls: "qemu --config --timeout --max-pause --bwlimit --overwrite --to", end: done, prints: moved, says: "vm3 runs on its new disks"},
	"QEMU, auto":         {args: "--plan auto", host: qcow, calls: "qemu", end: done, prints: moved},
	"QEMU, dry run":      {args: "--plan live --dry-run", host: qcow, calls: "qemu plan", end: qcow, prints: dry},
	"QEMU, prepare":      {args: "--plan live --prepare", host: qcow, status: 3, calls: "qemu plan", end: qcow, says: "leave --prepare out"},
	"QEMU, refused":      {args: "--plan auto", host: qcow, on: "qemu=refused", status: 3, calls: "qemu", end: qcow},
	"QEMU, fails":        {args: "--plan live", host: qcow, on: "qemu=fail", status: 1, calls: "qemu", end: qcow},
	"QEMU, interrupted":  {args: "--plan live", host: qcow, on: "qemu=hangup", status: 130, calls: "qemu", end: qcow},
	"QEMU, nobody reads": {args: "--plan live", host: qcow, noOne: true, calls: "qemu", end: done, prints: moved},
}

func TestImageToLV(t *testing.T) {
	script, err := filepath.Abs("../../scripts/image-to-lv")
	if err != nil {
		t.Fatal(err)
	}
	for _, shell := range []string{"dash", "bash"} {
		if _, err := exec.LookPath(shell); err != nil {
			t.Fatal(err)
		}
		for name, j := range jobs {
			t.Run(shell+" "+name, func(t *testing.T) {
				t.Parallel()
				j.run(t, shell, script)
			})
		}
	}
}

func (j job) run(t *testing.T, shell, script string) {
	dir := t.TempDir()
	tmp := filepath.Join(dir, "tmp")
	if err := errors.Join(os.Mkdir(tmp, 0o700), j.host.save(dir), os.WriteFile(filepath.Join(dir, "on"), []byte(j.on), 0o600)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(shell, append([]string{script}, append(strings.Fields(j.args), "vm3")...)...)
	cmd.Env = append(os.Environ(), "PATH="+programs(t)+":"+os.Getenv("PATH"), "TMPDIR="+tmp, "SCRIPTTEST="+dir)
	// What is sent to the script's group must not reach the test's.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if j.noOne {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		r.Close()
		defer w.Close()
		cmd.Stderr = w
	}
	_ = cmd.Run() // the status tells
	if got := cmd.ProcessState.ExitCode(); got != j.status {
		t.Errorf("status %d, %v; want %d", got, cmd.ProcessState, j.status)
	}
	log, _ := os.ReadFile(filepath.Join(dir, "calls"))
	if got := strings.Join(strings.Split(strings.TrimSpace(string(log)), "\n"), ", "); got != j.calls {
		t.Errorf("calls: %s\n want: %s", got, j.calls)
	}
	if end, err := load(dir); err != nil || end != j.end {
		t.Errorf("in the end %+v, %v; want %+v", end, err, j.end)
	}
	if !strings.Contains(stderr.String(), j.says) {
		t.Errorf("it does not say %q", j.says)
	}
	want := map[bool]string{true: moved}[j.status == 0 && strings.Contains(j.calls, "apply")]
	switch {
	case j.args == "--dry-run":
		want = dry
	case j.args == "--prepare" && j.status == 0:
		want = sign + "copied\n"
	}
	if j.prints != "" {
		want = j.prints
	}
	if j.not != "" && strings.Contains(stderr.String(), j.not) {
		t.Errorf("it says %q", j.not)
	}
	if stdout.String() != want {
		t.Errorf("standard output is %q; want %q", stdout.String(), want)
	}
	if left, _ := os.ReadDir(tmp); len(left) > 0 {
		t.Errorf("%v is left", left)
	}
	if t.Failed() {
		t.Logf("it said:\n%s", stderr.String())
	}
}

// programs is a directory with the stand-ins: this test binary, see TestMain.
func programs(t *testing.T) string {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	for _, name := range []string{"imgconv", "mdmirror", "domuswitch", "sleep"} {
		if err := os.Symlink(self, filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	return bin
}
