package scripttest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestMain is imgconv, mdmirror, domuswitch or sleep when it is called by that name.
func TestMain(m *testing.M) {
	switch filepath.Base(os.Args[0]) {
	case "imgconv", "mdmirror", "domuswitch":
		os.Exit(play(os.Args[1:]))
	case "sleep": // nobody waits in a test
	default:
		os.Exit(m.Run())
	}
}

// host is what the programs change. A State "ending N" has run, and will have
// stopped when show was asked N times. With a base, its disks are "images, base".
type host struct {
	State, Disks string
}

// base is a snapshot that was kept, as part of a host's Disks.
const base = ", base"

func (h host) save(dir string) error {
	return os.WriteFile(filepath.Join(dir, "host"), []byte(h.State+"\t"+h.Disks), 0o600)
}

func load(dir string) (host, error) {
	b, err := os.ReadFile(filepath.Join(dir, "host"))
	state, disks, _ := strings.Cut(string(b), "\t")
	return host{state, disks}, err
}

// program is a stand-in at work.
type program struct {
	dir     string
	host    host
	args    []string
	step    string // copy, final, or the verb of another program; plan and check: dry runs; qemu: live without devices
	apart   bool   // it has a session of its own
	signals chan os.Signal
}

// play is one call. Like the real programs, a stand-in listens to the signals
// that its parent may have ignored, and does not die of a reader that went away.
func play(args []string) int {
	p := program{dir: os.Getenv("SCRIPTTEST"), signals: make(chan os.Signal, 4)}
	signal.Notify(p.signals, syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM)
	signal.Ignore(syscall.SIGPIPE)
	sid, err := unix.Getsid(0)
	if err != nil {
		return p.fail(err)
	}
	p.apart = sid == os.Getpid()
	if p.host, err = load(p.dir); err != nil {
		return p.fail(err)
	}
	p.step, p.args = stepOf(args), args
	switch p.step {
	case "show":
		return p.show()
	case "drop":
		if !p.apart {
			return p.fail(errors.New("a hangup would reach --drop-base"))
		}
		return p.work()
	case "status":
		if act, err := p.act(); act == "absent" && err == nil { // in the journal only
			fmt.Print(sign + "absent\n")
		}
		if p.host.Disks == "mirrors" {
			fmt.Print(sign + "in_sync\n")
		}
		return 0
	}
	if err := p.record(args); err != nil {
		return p.fail(err)
	}
	act, err := p.act()
	if err != nil {
		return p.fail(err)
	}
	if slices.Contains(args, "-") {
		// A check takes what the final pass has not copied yet, and nothing else does.
		b, err := io.ReadAll(os.Stdin)
		if err != nil || strings.Contains(string(b), "planned") && p.step != "check" || len(b) == 0 || slices.Contains(args, "--offline") {
			return p.fail(fmt.Errorf("%s got %q, %v", p.step, b, err))
		}
	}
	return p.do(act)
}

func (p *program) fail(err error) int {
	fmt.Fprintf(os.Stderr, "scripttest: %v\n", err)
	return 99
}

func stepOf(args []string) string {
	switch {
	case slices.Contains(args, "--dry-run") && args[0] == "apply":
		return "check"
	case args[0] == "live" && !slices.Contains(args, "-"):
		if slices.Contains(args, "--dry-run") {
			return "qemu plan"
		}
		return "qemu"
	case slices.Contains(args, "--dry-run"):
		return "plan"
	case !slices.Contains(args, "--snapshot"):
		return args[0]
	case slices.Contains(args, "--final"):
		return "final"
	case slices.Contains(args, "--drop-base"):
		return "drop"
	}
	return "copy"
}

// record notes the call, and those flags that image-to-lv hands on.
func (p *program) record(args []string) error {
	call := p.step
	if p.step == "start" {
		call += " on " + strings.TrimSuffix(p.host.Disks, base)
	}
	for _, f := range []string{"--config=/x.cfg", "--timeout=9s", "--max-pause=5", "--max-interruption=9", "--keep-back-door", "--back-door-size=5G", "--bwlimit=1M", "--overwrite", "--clone", "--to=vg0", "--check-add"} {
		if name, _, _ := strings.Cut(f, "="); slices.Contains(args, f) {
			call += " " + name
		}
	}
	if p.apart {
		call += " apart"
	}
	f, err := os.OpenFile(filepath.Join(p.dir, "calls"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = fmt.Fprintln(f, call)
	return err
}

// act is what goes wrong in this call. Each "step=act" counts once.
func (p *program) act() (string, error) {
	path := filepath.Join(p.dir, "on")
	b, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	acts := strings.Fields(string(b))
	i := slices.IndexFunc(acts, func(a string) bool { return strings.HasPrefix(a, p.step+"=") })
	if i < 0 {
		return "", nil
	}
	_, act, _ := strings.Cut(acts[i], "=")
	return act, os.WriteFile(path, []byte(strings.Join(slices.Delete(acts, i, i+1), " ")), 0o600)
}

func (p *program) do(act string) int {
	switch act {
	case "":
	case "nothing":
		return 0
	case "partial":
		fmt.Print(sign + "planned\n")
		return 0
	case "fail", "later":
		return p.end(1, act)
	case "refused":
		return 3
	case "left":
		p.work()
		return 4
	case "dead":
		return 4
	case "differs":
		return 5
	case "term":
		if err := syscall.Kill(os.Getppid(), syscall.SIGTERM); err != nil {
			return p.fail(err)
		}
	case "hangup", "hangup-later":
		group, err := unix.Getpgid(os.Getppid())
		if err != nil {
			return p.fail(err)
		}
		if err := syscall.Kill(-group, syscall.SIGHUP); err != nil {
			return p.fail(err)
		}
		// The signal comes to us as well, unless we are out of its reach.
		if own, _ := unix.Getpgid(0); own == group {
			<-p.signals
			return p.end(130, act)
		}
	default:
		return p.fail(fmt.Errorf("unknown act %q", act))
	}
	return p.work()
}

// end gives up; later: what was begun goes on without us.
func (p *program) end(status int, act string) int {
	if strings.HasSuffix(act, "later") {
		p.host.State = "ending 3"
		if err := p.host.save(p.dir); err != nil {
			return p.fail(err)
		}
	}
	return status
}

// work is what the step does when all goes well.
func (p *program) work() int {
	switch p.step {
	case "copy":
		if slices.Contains(p.args, "--keep-base") {
			p.host.Disks += base
		}
		fmt.Print(sign + "copied\n")
	case "final":
		p.host.Disks = strings.TrimSuffix(p.host.Disks, base)
		fmt.Print(sign + "copied\n")
	case "drop":
		p.host.Disks = strings.TrimSuffix(p.host.Disks, base)
	case "plan", "check":
		fmt.Print(dry)
	case "stop":
		p.host.State = "stopped"
	case "apply":
		p.host.Disks = "lvs"
		fmt.Print(moved)
	case "qemu plan":
		if p.host.Disks == "qcow2" {
			fmt.Print(dry)
		}
	case "qemu":
		if p.host.Disks == "qcow2" {
			p.host.Disks = "lvs"
			fmt.Print(moved)
		}
	case "build", "add":
		fmt.Print(sign + "mirrored\n")
	case "wait":
		fmt.Print(sign + "synced\n")
	case "restart", "live":
		p.host.Disks = "mirrors"
	case "abort":
		if p.host.Disks == "mirrors" {
			p.host.Disks = "images"
		}
	case "finish":
		p.host.Disks = "lvs"
		fmt.Print(moved)
	case "revert":
		p.host.Disks = "images"
		fmt.Print(sign + "copied\n")
	case "start":
		p.host.State = "running"
	default:
		return p.fail(fmt.Errorf("unknown step %q", p.step))
	}
	if err := p.host.save(p.dir); err != nil {
		return p.fail(err)
	}
	return 0
}

// show prints the domain with two disks, and lets a moment pass.
func (p *program) show() int {
	state := p.host.State
	var n int
	if _, err := fmt.Sscanf(state, "ending %d", &n); err == nil {
		state = "running"
		p.host.State = fmt.Sprintf("ending %d", n-1)
		if n == 1 {
			p.host.State = "stopped"
		}
		if err := p.host.save(p.dir); err != nil {
			return p.fail(err)
		}
	}
	for _, vdev := range []string{"xvda", "xvdb"} {
		fmt.Printf("vm3\t%s\t/srv/vm3.img\traw\tphy\t%s\t-\n", vdev, state)
	}
	return 0
}
