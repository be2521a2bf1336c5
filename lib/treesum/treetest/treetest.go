// Package treetest makes, for tests, filesystems on loop devices and file trees
// that hold everything a copy may lose.
package treetest

import (
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"xenlvm/lib/run"
)

// Root skips a test that makes devices or mounts, unless it may.
func Root(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 || os.Getenv("XENLVM_ROOT_TESTS") != "1" {
		t.Skip("needs root and XENLVM_ROOT_TESTS=1: it makes device nodes, attaches loops and mounts them")
	}
}

// Run runs a command and returns its standard output.
func Run(t testing.TB, name string, args ...string) string {
	t.Helper()
	res, err := run.Host{}.Run(t.Context(), run.Cmd{Name: name, Args: args, Effect: run.Change})
	if err != nil {
		t.Fatalf("%s: %v", run.Quote(append([]string{name}, args...)...), err)
	}
	return string(res.Stdout)
}

// Image is a new sparse file of size bytes.
func Image(t testing.TB, size int64) string {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "image")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

// Mount attaches image to a loop device, mounts it in a directory of its own,
// and takes both back at the end of the test.
func Mount(t testing.TB, image string, options ...string) string {
	t.Helper()
	dir := t.TempDir()
	loop := strings.TrimSpace(Run(t, "losetup", "-f", "--show", "--", image))
	clean := func(name string, args ...string) {
		// The test's own context has ended by then.
		if _, err := (run.Host{}).Run(context.Background(), run.Cmd{Name: name, Args: args, Effect: run.Change}); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(func() {
		file, err := os.ReadFile("/sys/block/" + filepath.Base(loop) + "/loop/backing_file")
		if err != nil || strings.TrimSpace(string(file)) != image {
			t.Errorf("%s is not on %s any more (%q, %v): left alone", loop, image, file, err)
			return
		}
		clean("losetup", "-d", loop)
	})
	Run(t, "mount", append([]string{loop, dir}, options...)...)
	t.Cleanup(func() { clean("umount", dir) })
	return dir
}

// Plant fills the empty directory dir with a tree of everything that gets lost
// in bad copies. It needs root.
func Plant(t testing.TB, dir string) {
	t.Helper()
	p := planter{t, dir, rand.New(rand.NewChaCha8([32]byte{1}))}
	p.files()
	p.names()
	p.links()
	p.nodes()
	p.attributes()
	p.times()
}

type planter struct {
	t   testing.TB
	dir string
	rng *rand.Rand
}

func (p planter) at(path string) string { return p.dir + "/" + path }

func (p planter) ok(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p planter) random(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(p.rng.Uint32())
	}
	return b
}

func (p planter) write(path string, data []byte) {
	p.t.Helper()
	p.ok(os.MkdirAll(filepath.Dir(p.at(path)), 0o755))
	p.ok(os.WriteFile(p.at(path), data, 0o644))
}

func (p planter) files() {
	p.write("plain", []byte("plain"))
	p.write("empty", nil)
	p.write("big", p.random(3<<20+123))
	p.write("zeros", make([]byte, 1<<20))
	p.write("sparse", nil)
	f, err := os.OpenFile(p.at("sparse"), os.O_WRONLY, 0)
	p.ok(err)
	defer f.Close()
	for _, at := range []int64{5000, 10 << 20, 40<<20 - 1} {
		_, err := f.WriteAt([]byte("data"), at)
		p.ok(err)
	}
	p.ok(f.Truncate(64<<20 + 7))
	for path, mode := range map[string]uint32{"none": 0, "suid": 0o4755, "sgid": 0o2711, "sticky/": 0o1777, "sgid.d/": 0o2775} {
		if path, isDir := strings.CutSuffix(path, "/"); isDir {
			p.ok(os.Mkdir(p.at(path), 0o700))
		} else {
			p.write(path, []byte(path))
		}
		p.ok(unix.Chmod(strings.TrimSuffix(p.at(path), "/"), mode))
	}
	p.write("owned", []byte("owned"))
	p.ok(os.Lchown(p.at("owned"), 4_000_000_000, 4_000_000_001))
	Run(p.t, "chattr", "+d", "--", p.at("plain")) // no dump: rsync cannot keep it
}

func (p planter) names() {
	for _, name := range []string{"new\nline", "invalid\xff\xfe\x80", "-rf", " spaces ", "*?[a]", "\x1b[31mred", "...", "back\\slash",
		`"quotes'`, "#012", strings.Repeat("n", 255), "a.b", "a-b", "a/x", "a0"} {
		p.write("names/"+name, []byte(name))
	}
	p.write("deep/"+strings.Repeat("a directory deeper/", 40)+"bottom", []byte("bottom"))
}

func (p planter) links() {
	p.write("hard/first", []byte("several names"))
	p.ok(os.Mkdir(p.at("hard/sub"), 0o755))
	p.ok(os.Link(p.at("hard/first"), p.at("hard/second")))
	p.ok(os.Link(p.at("hard/first"), p.at("hard/sub/third")))
	p.write("hard/twin", []byte("several names")) // equal, and another file
	for name, target := range map[string]string{"dangling": "no such", "absolute": "/etc/passwd", "loop": "loop", "line": "a\nb", "long": strings.Repeat("t/", 500)} {
		p.ok(os.Symlink(target, p.at("hard/to-"+name)))
	}
	p.ok(os.Link(p.at("hard/to-dangling"), p.at("hard/to-dangling-too")))
	p.ok(os.Lchown(p.at("hard/to-loop"), 7, 8))
}

func (p planter) nodes() {
	p.ok(os.Mkdir(p.at("nodes"), 0o755))
	for name, node := range map[string]struct{ mode, major, minor uint32 }{
		"null": {unix.S_IFCHR | 0o666, 1, 3}, "loop": {unix.S_IFBLK | 0o660, 7, 200}, "large": {unix.S_IFBLK | 0o600, 511, 1<<18 - 1},
		"whiteout": {unix.S_IFCHR, 0, 0}, "fifo": {unix.S_IFIFO | 0o640, 0, 0}, "socket": {unix.S_IFSOCK | 0o755, 0, 0},
	} {
		p.ok(unix.Mknod(p.at("nodes/"+name), node.mode, int(unix.Mkdev(node.major, node.minor))))
	}
	p.ok(os.Link(p.at("nodes/fifo"), p.at("nodes/fifo-too")))
}

func (p planter) attributes() {
	p.write("attr/acl", []byte("acl"))
	p.write("attr/user", []byte("user"))
	p.write("attr/capable", []byte("capable"))
	p.ok(os.Mkdir(p.at("attr/default"), 0o755))
	Run(p.t, "setfacl", "-m", "u:4000000000:rw,g:12:r,m::rw", p.at("attr/acl"))
	Run(p.t, "setfacl", "-m", "u:1000:rwx,d:u:1001:rx,d:g:12:rwx", p.at("attr/default"))
	Run(p.t, "setcap", "cap_net_raw,cap_net_bind_service+ep", p.at("attr/capable"))
	p.write("attr/default/inherits", []byte("inherits"))
	for name, value := range map[string][]byte{"user.text": []byte("text"), "user.empty": nil, "user.binary": p.random(700), "user.rsync.%stat": []byte("100644 0,0 5:5"),
		"user.with\nnewline": []byte("x"), "trusted.t": []byte("trusted"), "trusted.overlay.opaque": []byte("y")} {
		p.ok(unix.Lsetxattr(p.at("attr/user"), name, value, 0))
	}
	p.ok(unix.Lsetxattr(p.at("hard/to-line"), "trusted.link", []byte("on a symlink"), 0))
	p.ok(unix.Lsetxattr(p.at("nodes/null"), "trusted.node", []byte("on a device"), 0))
}

// times gives each entry its own modification time, directories last. Twin has
// that of its equal, so that only the link between them is missing.
func (p planter) times() {
	var paths []string
	p.ok(filepath.WalkDir(p.dir, func(path string, _ fs.DirEntry, err error) error {
		if !strings.HasPrefix(path, p.at("lost+found")) {
			paths = append(paths, path)
		}
		return err
	}))
	base := time.Date(1969, 12, 30, 0, 0, 0, 123_456_789, time.UTC)
	for i := len(paths) - 1; i >= 0; i-- {
		at := i
		if paths[i] == p.at("hard/twin") {
			at = slices.Index(paths, p.at("hard/first"))
		}
		when := base.Add(time.Duration(at) * (37*time.Hour + 7*time.Nanosecond))
		ts := []unix.Timespec{unix.NsecToTimespec(when.UnixNano()), unix.NsecToTimespec(when.UnixNano())}
		if err := unix.UtimesNanoAt(unix.AT_FDCWD, paths[i], ts, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			p.t.Fatal(fmt.Errorf("cannot set the time of %q: %w", paths[i], err))
		}
	}
}
