package treesum

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"xenlvm/lib/treesum/treetest"
)

// copyTree copies with a tool other than the one that these sums prove.
func copyTree(t *testing.T, src string) string {
	t.Helper()
	dst := t.TempDir()
	treetest.Run(t, "cp", "-aT", "--sparse=auto", "--", src, dst)
	return dst
}

func compare(t *testing.T, src, dst string, o Options) *Report {
	t.Helper()
	r, err := Compare(t.Context(), src, dst, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestCompareEqualTrees(t *testing.T) {
	treetest.Root(t)
	src := t.TempDir()
	treetest.Plant(t, src)
	dst := copyTree(t, src)
	r := compare(t, src, dst, Options{})
	for _, d := range r.Differences {
		t.Error(d)
	}
	if !r.Equal() {
		t.Fatalf("%d entries differ", r.Different)
	}
	if r.Source.Digest != r.Destination.Digest {
		t.Errorf("the trees are equal, and their digests %v and %v", r.Source.Digest, r.Destination.Digest)
	}

	// find is the oracle for the counts.
	s := r.Source
	for kind, got := range map[string]int64{"d": s.Directories, "f": s.Files, "l": s.Symlinks, "p": s.FIFOs, "s": s.Sockets} {
		if want := len(treetest.Run(t, "find", src, "-type", kind, "-printf", "x")); got != int64(want) {
			t.Errorf("%d entries of type %s; find says %d", got, kind, want)
		}
	}
	if s.Devices != 4 || s.Linked != 4 || s.Flagged != 1 || r.Destination.Flagged != 0 {
		t.Errorf("%d devices, %d further names, %d and %d flagged; want 4, 4, 1 and 0", s.Devices, s.Linked, s.Flagged, r.Destination.Flagged)
	}
	if s.Bytes < 64<<20 || s.BytesRead > 10<<20 {
		t.Errorf("of %d bytes %d were read: holes, too?", s.Bytes, s.BytesRead)
	}
}

// must is for the changes below, which all have to work.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// keepTimes runs change and gives path its times back, so that nothing but the
// change is to be seen.
func keepTimes(t *testing.T, path string, change func()) {
	t.Helper()
	paths := []string{path, filepath.Dir(path)}
	var stats [2]unix.Stat_t
	for i := range paths {
		must(t, unix.Lstat(paths[i], &stats[i]))
	}
	change()
	for i := range paths {
		err := unix.UtimesNanoAt(unix.AT_FDCWD, paths[i], []unix.Timespec{stats[i].Atim, stats[i].Mtim}, unix.AT_SYMLINK_NOFOLLOW)
		if !errors.Is(err, unix.ENOENT) {
			must(t, err)
		}
	}
}

func TestCompareNamesEachChange(t *testing.T) {
	treetest.Root(t)
	src := t.TempDir()
	treetest.Plant(t, src)
	replace := func(path string, node func() error) error {
		return errors.Join(os.Remove(path), node())
	}
	poke := func(path string, at int64, b byte) error {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = f.WriteAt([]byte{b}, at)
		return errors.Join(err, f.Close())
	}
	tests := []struct {
		path   string
		change func(path string) error
		want   string // "field" or "field; field"
	}{
		{"plain", func(p string) error { return poke(p, 0, 'P') }, "contents"},
		{"big", func(p string) error { return poke(p, 3<<20+122, 0) }, "contents"},
		{"big", func(p string) error { return os.Truncate(p, 3<<20+122) }, "size"},
		{"sparse", func(p string) error { return poke(p, 20<<20, 1) }, "contents"},
		{"sparse", func(p string) error { return poke(p, 64<<20+6, 1) }, "contents"},
		{"zeros", func(p string) error { return poke(p, 77777, 1) }, "contents"},
		{"zeros", func(p string) error { return os.Truncate(p, 1<<20+1) }, "size"},
		{"plain", func(p string) error { return os.Chmod(p, 0o645) }, "mode"},
		{"suid", func(p string) error { return unix.Chmod(p, 0o755) }, "mode"},
		{"sticky", func(p string) error { return unix.Chmod(p, 0o777) }, "mode"},
		{"owned", func(p string) error { return os.Lchown(p, 4_000_000_002, -1) }, "uid"},
		{"owned", func(p string) error { return os.Lchown(p, -1, 0) }, "gid"},
		{"hard/to-loop", func(p string) error { return os.Lchown(p, 0, 0) }, "uid; gid"},
		{"hard/to-absolute", func(p string) error { return replace(p, func() error { return os.Symlink("/etc/shadow", p) }) }, "target"},
		{"hard/to-loop", func(p string) error {
			return replace(p, func() error { return errors.Join(os.Symlink("looq", p), os.Lchown(p, 7, 8)) })
		}, "target"},
		{"nodes/null", func(p string) error {
			return replace(p, func() error {
				return errors.Join(unix.Mknod(p, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))), unix.Lsetxattr(p, "trusted.node", []byte("on a device"), 0))
			})
		}, "device"},
		{"nodes/loop", func(p string) error {
			return replace(p, func() error { return unix.Mknod(p, unix.S_IFCHR|0o640, int(unix.Mkdev(7, 200))) })
		}, "type"},
		{"nodes/socket", func(p string) error {
			return replace(p, func() error { return unix.Mknod(p, unix.S_IFIFO|0o755, 0) })
		}, "type"},
		{"empty", func(p string) error { return replace(p, func() error { return os.Symlink("x", p) }) }, "type; mode"},
		{"hard/second", func(p string) error {
			return replace(p, func() error { return os.WriteFile(p, []byte("several names"), 0o644) })
		}, "hard link"},
		{"hard/twin", func(p string) error {
			return replace(p, func() error { return os.Link(filepath.Dir(p)+"/first", p) })
		}, "hard link"},
		{"nodes/fifo-too", func(p string) error {
			return replace(p, func() error { return unix.Mknod(p, unix.S_IFIFO|0o640, 0) })
		}, "hard link"},
		{"attr/user", func(p string) error { return unix.Lsetxattr(p, "user.text", []byte("texT"), 0) }, "xattr user.text"},
		{"attr/user", func(p string) error { return unix.Lremovexattr(p, "user.empty") }, "xattr user.empty"},
		{"attr/user", func(p string) error { return unix.Lremovexattr(p, "user.rsync.%stat") }, "xattr user.rsync.%stat"},
		{"attr/user", func(p string) error { return unix.Lremovexattr(p, "user.with\nnewline") }, `xattr "user.with\nnewline"`},
		{"attr/user", func(p string) error { return unix.Lsetxattr(p, "trusted.new", nil, 0) }, "xattr trusted.new"},
		{"hard/to-line", func(p string) error { return unix.Lremovexattr(p, "trusted.link") }, "xattr trusted.link"},
		{"nodes/null", func(p string) error { return unix.Lremovexattr(p, "trusted.node") }, "xattr trusted.node"},
		{"attr/capable", func(p string) error { return unix.Lremovexattr(p, "security.capability") }, "xattr security.capability"},
		{"attr/acl", func(p string) error { treetest.Run(t, "setfacl", "-m", "u:5:r", p); return nil }, "xattr system.posix_acl_access"},
		{"attr/default", func(p string) error { treetest.Run(t, "setfacl", "-k", p); return nil }, "xattr system.posix_acl_default"},
		{"empty", os.Remove, "entry"},
		{"names/new", func(p string) error { return os.WriteFile(p, nil, 0o644) }, "entry"},
	}
	for _, tt := range tests {
		dst := copyTree(t, src)
		path := filepath.Join(dst, tt.path)
		if _, err := os.Lstat(path); err == nil {
			keepTimes(t, path, func() { must(t, tt.change(path)) })
		} else {
			parent := filepath.Dir(path)
			keepTimes(t, parent, func() { must(t, tt.change(path)) })
		}
		r := compare(t, src, dst, Options{})
		var fields []string
		for _, d := range r.Differences {
			if d.Path != tt.path {
				t.Errorf("%s, %s: also named %v", tt.path, tt.want, d)
			}
			fields = append(fields, d.Field)
		}
		if got := strings.Join(fields, "; "); got != tt.want || r.Different != 1 {
			t.Errorf("%s: named %q in %d entries; want %q in one", tt.path, got, r.Different, tt.want)
		}
	}
}

// A lost first name moves the hard-link group to the next one.
func TestCompareLostLink(t *testing.T) {
	treetest.Root(t)
	src := t.TempDir()
	treetest.Plant(t, src)
	dst := copyTree(t, src)
	keepTimes(t, dst+"/hard/first", func() { must(t, os.Remove(dst+"/hard/first")) })
	var got []string
	for _, d := range compare(t, src, dst, Options{}).Differences {
		got = append(got, d.Path+" "+d.Field)
	}
	want := []string{"hard/first entry", "hard/second hard link", "hard/sub/third hard link"}
	if !slices.Equal(got, want) {
		t.Errorf("named %q; want %q", got, want)
	}
}

func TestCompareTimes(t *testing.T) {
	src := t.TempDir()
	must(t, os.WriteFile(src+"/f", []byte("x"), 0o644))
	must(t, os.Chtimes(src+"/f", time.Time{}, time.Unix(1000, 5)))
	must(t, os.Chtimes(src, time.Time{}, time.Unix(2000, 5)))
	dst := copyTree(t, src)
	must(t, os.Chtimes(dst+"/f", time.Time{}, time.Unix(1000, 6)))
	r := compare(t, src, dst, Options{})
	if len(r.Differences) != 1 || r.Differences[0].Field != "mtime" || r.Differences[0].Path != "f" {
		t.Errorf("named %v; want the mtime of f", r.Differences)
	}
	if !compare(t, src, dst, Options{WholeSeconds: true}).Equal() {
		t.Error("a nanosecond counts between whole seconds")
	}
	must(t, os.Chtimes(dst, time.Time{}, time.Unix(2001, 5)))
	if r := compare(t, src, dst, Options{WholeSeconds: true}); len(r.Differences) != 1 || r.Differences[0].Path != "." {
		t.Errorf("named %v; want the mtime of the root", r.Differences)
	}
}

func TestContentsSince(t *testing.T) {
	src := t.TempDir()
	must(t, os.WriteFile(src+"/f", []byte("before"), 0o644))
	dst := copyTree(t, src)
	change := func(path string) {
		keepTimes(t, path, func() { must(t, os.WriteFile(path, []byte("beFore"), 0o644)) })
	}
	change(dst + "/f")
	if r := compare(t, src, dst, Options{ContentsSince: time.Now().Add(time.Hour)}); !r.Equal() || r.Source.BytesRead != 0 {
		t.Errorf("contents were read that did not change since: %+v", r)
	}
	if r := compare(t, src, dst, Options{ContentsSince: time.Now().Add(-time.Hour)}); r.Equal() {
		t.Error("a change since was not seen")
	}

	// A guest that changes bytes and sets the time back: rsync sees nothing, the
	// destination is old, only the source's ctime tells.
	src, dst = t.TempDir(), t.TempDir()
	must(t, os.WriteFile(src+"/f", []byte("before"), 0o644))
	treetest.Run(t, "cp", "-aT", src, dst)
	var st unix.Stat_t
	for since := time.Now(); ; time.Sleep(time.Millisecond) {
		change(src + "/f")
		must(t, unix.Stat(src+"/f", &st))
		if changed := time.Unix(st.Ctim.Unix()); changed.After(since) {
			break
		}
	}
	if r := compare(t, src, dst, Options{ContentsSince: time.Unix(st.Ctim.Unix())}); r.Equal() {
		t.Error("a change in the source with its time set back was not seen")
	}
}

func TestCompareCountsBeyondItsLimit(t *testing.T) {
	src, dst := t.TempDir(), t.TempDir()
	for i := range 50 {
		must(t, os.WriteFile(fmt.Sprintf("%s/f%d", src, i), nil, 0o644))
	}
	must(t, os.MkdirAll(dst+"/f7/below", 0o755)) // a directory in place of a file, with an extra inside
	now := time.Now()
	must(t, os.Chtimes(src, now, now))
	must(t, os.Chtimes(dst, now, now))
	r := compare(t, src, dst, Options{Limit: 3})
	if r.Different != 51 || len(r.Differences) != 3 {
		t.Errorf("%d differ, %d named; want 51 and 3", r.Different, len(r.Differences))
	}
	if r := compare(t, src, dst, Options{}); len(r.Differences) != 20 {
		t.Errorf("%d named; want 20", len(r.Differences))
	}
}

func TestDifferenceCannotDisturbATerminal(t *testing.T) {
	d := Difference{Path: "a\n\x1b[2J\xff", Field: "entry", Source: "file"}
	if got, want := d.String(), `"a\n\x1b[2J\xff": entry: file in the source, none in the destination`; got != want {
		t.Errorf("String() = %s; want %s", got, want)
	}
}
