package xl

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"xenlvm/lib/fault"
	"xenlvm/lib/run"
)

// answers is a runner that knows what each command line prints. A line that
// begins with "!" is standard error of a command that failed.
type answers map[string]string

func (a answers) Run(_ context.Context, c run.Cmd) (run.Result, error) {
	out, ok := a[c.Line()]
	if !ok {
		return run.Result{Code: -1}, errors.New("unexpected " + c.Line())
	}
	if c.Effect != run.Query {
		return run.Result{Code: -1}, errors.New("not a query: " + c.Line())
	}
	if said, failed := strings.CutPrefix(out, "!"); failed {
		return run.Result{Code: 1}, &run.Error{Cmd: c, Code: 1, Stderr: said, Err: errors.New("exit status 1")}
	}
	return run.Result{Stdout: []byte(out)}, nil
}

const listed = `Name                                        ID   Mem VCPUs	State	Time(s)
Domain-0                                     0  1500     1     r-----      21.3
vm3                                          4   256     1     -b----       1.2
my old vm                                    5   256     1     --p---       0.0
a-name-that-is-longer-than-the-forty-columns-of-xl    6   256     2     ---s--       3.4
saved                                        7   256     1     ---ss-       3.4
rebooting                                    8   256     1     ---sr-       3.4
hung                                         9   256     1     ---sw-       3.4
vm7                                         17   255     1     ---sc-       3.4
(null)                                      18     0     1     --ps-d       3.4
`

func TestList(t *testing.T) {
	got, err := List(t.Context(), answers{"xl list": listed})
	if err != nil {
		t.Fatal(err)
	}
	want := []Domain{
		{0, "Domain-0", Running, 1500 << 20}, {4, "vm3", Running, 256 << 20}, {5, "my old vm", Paused, 256 << 20},
		{6, "a-name-that-is-longer-than-the-forty-columns-of-xl", ShutDown, 256 << 20}, {7, "saved", ShutDown, 256 << 20}, {8, "rebooting", ShutDown, 256 << 20}, {9, "hung", Crashed, 256 << 20}, {17, "vm7", Crashed, 255 << 20}, {18, "(null)", Dying, 0},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if _, err := List(t.Context(), answers{"xl list": "Name\nsomething else\n"}); err == nil {
		t.Error("a line of another kind was read")
	}
	if _, _, err := Find(t.Context(), answers{"xl list": "!cannot open /proc/xen/privcmd"}, "vm3"); err == nil {
		t.Error("a broken toolstack is no absent domain")
	}
	if d, ok, err := Find(t.Context(), answers{"xl list": listed}, "my old vm"); err != nil || !ok || d.ID != 5 {
		t.Errorf("Find = %v, %v, %v", d, ok, err)
	}
}

const front = `/local/domain/4/device/vbd/51712 = ""
/local/domain/4/device/vbd/51712/backend = "/local/domain/0/backend/vbd/4/51712"
/local/domain/4/device/vbd/51712/state = "4"
/local/domain/4/device/vbd/5632 = ""
/local/domain/4/device/vbd/5632/backend = "/local/domain/0/backend/qdisk/4/5632"
/local/domain/4/device/vbd/5632/state = "1"
`

const phy = `/local/domain/0/backend/vbd/4/51712/frontend = "/local/domain/4/device/vbd/51712"
/local/domain/0/backend/vbd/4/51712/params = "/srv/it\\'s "new".img"
/local/domain/0/backend/vbd/4/51712/state = "4"
/local/domain/0/backend/vbd/4/51712/dev = "xvda"
/local/domain/0/backend/vbd/4/51712/device-type = "disk"
/local/domain/0/backend/vbd/4/51712/physical-device = "fd:1f"
/local/domain/0/backend/vbd/4/51712/sectors = "266240"
/local/domain/0/backend/vbd/4/51712/sector-size = "4096"
`

const qdisk = `/local/domain/0/backend/qdisk/4/5632/params = "qcow2:/srv/a:b.qcow2"
/local/domain/0/backend/qdisk/4/5632/state = "2"
/local/domain/0/backend/qdisk/4/5632/dev = "hdc"
/local/domain/0/backend/qdisk/4/5632/device-type = "cdrom"
`

func TestDisks(t *testing.T) {
	a := answers{
		"xenstore-ls -f /local/domain/4/device/vbd":            front,
		"xenstore-ls -f /local/domain/0/backend/vbd/4/51712":   phy,
		"xenstore-ls -f /local/domain/0/backend/qdisk/4/5632":  qdisk,
		"xenstore-ls -f /local/domain/9/device/vbd":            "!xenstore-ls: xs_directory (/local/domain/9/device/vbd): No such file or directory\n",
		"xenstore-ls -f /local/domain/8/device/vbd":            "!xenstore-ls: could not connect to xenstore\n",
		"xenstore-ls -f /local/domain/0/backend/vbd/9/51712":   "!xenstore-ls: xs_directory (x): No such file or directory\n",
		"xenstore-ls -f /local/domain/0/backend/vbd/4/51713":   "!xenstore-ls: could not connect to xenstore\n",
		"xenstore-ls -f /local/domain/0/backend/vbd/4/unasked": "",
	}
	got, err := Disks(t.Context(), a, 4)
	if err != nil {
		t.Fatal(err)
	}
	want := []Disk{
		{VDev: "hdc", ID: 5632, Kind: "qdisk", Node: "/local/domain/0/backend/qdisk/4/5632", State: 2, Path: "/srv/a:b.qcow2", CDROM: true},
		{VDev: "xvda", ID: 51712, Kind: "vbd", Node: "/local/domain/0/backend/vbd/4/51712", State: 4, Path: `/srv/it\'s "new".img`,
			Major: 253, Minor: 31, HasDevice: true, GuestUp: true, Size: 130 << 20, SectorSize: 4096},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if got, err := Disks(t.Context(), a, 9); err != nil || got != nil {
		t.Errorf("a domain without disks: %v, %v", got, err)
	}
	if _, err := Disks(t.Context(), a, 8); err == nil {
		t.Error("a broken xenstore is no domain without disks")
	}
	still, err := Attached(t.Context(), a, []string{"/local/domain/0/backend/vbd/9/51712", "/local/domain/0/backend/vbd/4/51712"})
	if err != nil || !slices.Equal(still, []string{"/local/domain/0/backend/vbd/4/51712"}) {
		t.Errorf("Attached = %q, %v", still, err)
	}
	if _, err := Attached(t.Context(), a, []string{"/local/domain/0/backend/vbd/4/51713"}); err == nil {
		t.Error("a broken xenstore is no backend that is gone")
	}
}

func TestUnescape(t *testing.T) {
	for in, want := range map[string]string{
		`plain`: "plain", `a\tb\nc\rd\\e`: "a\tb\nc\rd\\e", `\303\251`: "é", `\0`: "\x00", `\0011`: "\x011", `end\`: `end\`, `\q`: `\q`,
	} {
		if got := unescape(in); got != want {
			t.Errorf("unescape(%q) = %q; want %q", in, got, want)
		}
	}
}

func FuzzParseTree(f *testing.F) {
	f.Add(front)
	f.Add("a = \"\\")
	f.Fuzz(func(t *testing.T, in string) {
		for k := range parseTree(in) {
			if !strings.Contains(in, k) {
				t.Errorf("key %q is not in %q", k, in)
			}
		}
	})
}

func TestCommands(t *testing.T) {
	for want, c := range map[string]run.Cmd{
		"xl shutdown vm3":                      Shutdown("vm3"),
		"xl destroy 'my vm'":                   Destroy("my vm"),
		"xl destroy 4":                         Destroy(Domain{ID: 4, Name: "vm3"}.Number()),
		"xl pause 4":                           Pause("4"),
		"xl unpause -- -f":                     Unpause("-f"),
		"xl create -q -p /etc/xen/vm3.cfg":     CreatePaused("/etc/xen/vm3.cfg"),
		"xl create -q -p -- -odd/relative.cfg": CreatePaused("-odd/relative.cfg"),

		"xl save 4 /dev/shm/x/memory":                                   Save("4", "/dev/shm/x/memory"),
		"xl restore -p /x/memory":                                       RestorePaused("/x/memory"),
		"xl restore -p /x/new.cfg /x/memory":                            RestorePausedOn("/x/new.cfg", "/x/memory"),
		"xl config-update vm3 /etc/xen/vm3.cfg":                         ConfigUpdate("vm3", "/etc/xen/vm3.cfg"),
		"xl migrate -p -s '' -C /x/new.cfg vm3 'xl migrate-receive -p'": MigratePaused("vm3", "/x/new.cfg"),
	} {
		if c.Line() != want || c.Effect != run.Change {
			t.Errorf("%s (change: %v); want %s", c.Line(), c.Effect == run.Change, want)
		}
	}
}

func TestCheckName(t *testing.T) {
	for _, name := range []string{"", "12", "a\nb", "\x1b", "Domain-0"} {
		if CheckName(name) == nil {
			t.Errorf("%q was accepted", name)
		}
	}
	for _, name := range []string{"vm3", "my vm", "-x", "it's", "é"} {
		if err := CheckName(name); err != nil {
			t.Error(err)
		}
	}
}

// lay makes a directory with files. "-> X" is a symbolic link, "FIFO" a FIFO.
func lay(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		if target, link := strings.CutPrefix(text, "-> "); link {
			err = errors.Join(err, os.Symlink(target, path))
		} else if text == "FIFO" {
			err = errors.Join(err, unix.Mkfifo(path, 0o644))
		} else {
			err = errors.Join(err, os.WriteFile(path, []byte(text), 0o644))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestFindConfig(t *testing.T) {
	const vm3, vm4, broken = "name = 'vm3'\n", "name = 'vm4'\n", "name = vm3\n"
	for _, tt := range []struct {
		name  string
		files map[string]string // see lay
		want  string
		err   string
	}{
		{"its own file", map[string]string{"vm3.cfg": vm3, "old.cfg": vm3}, "vm3.cfg", ""},
		{"without a suffix", map[string]string{"vm3": vm3}, "vm3", ""},
		{"in auto", map[string]string{"auto/10": vm3, "auto/20": vm4}, "auto/10", ""},
		{"a link in auto", map[string]string{"vm3.cfg": vm3, "auto/vm3.cfg": "-> ../vm3.cfg"}, "vm3.cfg", ""},
		{"a copy in auto", map[string]string{"vm3.cfg": vm3, "auto/vm3.cfg": vm3}, "", "all have that name"},
		{"any name", map[string]string{"web.cfg": vm3, "vm4.cfg": vm4}, "web.cfg", ""},
		{"any name, twice", map[string]string{"web.cfg": vm3, "web2.cfg": vm3}, "", "web.cfg, "},
		{"hidden", map[string]string{"auto/.vm3": vm3}, "", "no configuration"},
		{"another suffix", map[string]string{"vm3.bak": vm3}, "", "no configuration"},
		{"somebody else's", map[string]string{"vm3.cfg": vm4}, "", `its name is "vm4"`},
		{"broken", map[string]string{"vm3.cfg": broken}, "", "cannot parse"},
		{"another one broken", map[string]string{"vm3.cfg": vm3, "auto/x": broken}, "vm3.cfg", ""},
		{"a dead link", map[string]string{"vm3.cfg": "-> nowhere"}, "", "vm3.cfg: no such file"},
		{"a FIFO", map[string]string{"vm3.cfg": "FIFO"}, "", "vm3.cfg: it is not a regular file"},
		{"a FIFO without a suffix", map[string]string{"vm3": "FIFO", "auto/10": vm3}, "", "vm3: it is not a regular file"},
		{"a FIFO elsewhere", map[string]string{"auto/x": "FIFO", "y.cfg": "FIFO", "web.cfg": vm3}, "web.cfg", ""},
		{"a directory", map[string]string{"vm3.cfg/x": vm3}, "", "vm3.cfg: it is not a regular file"},
		{"a directory without a suffix", map[string]string{"vm3/x": vm3, "auto/10": vm3}, "auto/10", ""},
		{"only a directory", map[string]string{"vm3/x": vm3}, "", "no configuration"},
		{"none", nil, "", "no configuration"},
	} {
		dir := lay(t, tt.files)
		got, err := FindConfig(dir, "vm3")
		if tt.err == "" && (err != nil || got != filepath.Join(dir, tt.want)) {
			t.Errorf("%s: %s, %v; want %s", tt.name, got, err, tt.want)
		}
		if tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
			t.Errorf("%s: %s, %v; want %s", tt.name, got, err, tt.err)
		}
		if none := strings.HasPrefix(tt.err, "no config"); errors.Is(err, ErrNoConfig) != none || none && fault.StatusOf(err) != fault.Refused {
			t.Errorf("%s: ErrNoConfig: %v", tt.name, err)
		}
	}
}

// A configuration that xl would not take is refused, and says what to do.
func TestFindConfigRefusesWhatXlRefuses(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "vm3.cfg"), []byte("name = 'vm3'\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := FindConfig(dir, "vm3")
	if fault.StatusOf(err) != fault.Refused || !strings.Contains(err.Error(), "CR LF") || len(fault.Hints(err)) == 0 {
		t.Errorf("FindConfig = %v, hints %q", err, fault.Hints(err))
	}
}
