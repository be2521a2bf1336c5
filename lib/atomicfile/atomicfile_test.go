package atomicfile

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"xenlvm/lib/fault"
)

const limit = 1 << 20

func write(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func mustRead(t *testing.T, path string) *File {
	t.Helper()
	f, err := Read(path, limit)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// holds checks a directory's whole content: no temporary file may be left.
func holds(t *testing.T, dir string, want map[string]string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		text, ok := want[e.Name()]
		if !ok {
			t.Errorf("%s was left in the directory", e.Name())
			continue
		}
		if got, err := os.ReadFile(filepath.Join(dir, e.Name())); err != nil || string(got) != text {
			t.Errorf("%s holds %.40q, %v; want %.40q", e.Name(), got, err, text)
		}
	}
	if len(entries) != len(want) {
		t.Errorf("%d files; want %d", len(entries), len(want))
	}
}

func TestReplaceThroughLinks(t *testing.T) {
	dir, links := t.TempDir(), t.TempDir()
	write(t, dir+"/vm3.cfg", "old", 0o640)
	if err := os.Symlink(dir+"/vm3.cfg", links+"/first"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("first", links+"/second"); err != nil {
		t.Fatal(err)
	}
	f := mustRead(t, links+"/second")
	if err := f.Replace([]byte("new")); err != nil {
		t.Fatal(err)
	}
	holds(t, dir, map[string]string{"vm3.cfg": "new"})
	for _, l := range []string{"first", "second"} {
		if info, err := os.Lstat(links + "/" + l); err != nil || info.Mode()&os.ModeSymlink == 0 {
			t.Errorf("%s is no symbolic link any more", l)
		}
	}
	info, err := os.Stat(dir + "/vm3.cfg")
	if err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, %v; want 0640", info.Mode(), err)
	}
	if err := f.Replace([]byte("newer")); err != nil {
		t.Fatalf("a second replacement: %v", err)
	}
	holds(t, dir, map[string]string{"vm3.cfg": "newer"})
}

func TestModeBeyondUmask(t *testing.T) {
	dir := t.TempDir()
	for _, mode := range []os.FileMode{0o666, 0o400, 0o644, 0o600 | os.ModeSetgid} {
		path := fmt.Sprintf("%s/%o", dir, mode)
		write(t, path, "old", 0o600)
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if err := mustRead(t, path).Replace([]byte("new")); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode() != mode {
			t.Errorf("mode %v became %v, %v", mode, info.Mode(), err)
		}
	}
}

func TestXattrsAreKept(t *testing.T) {
	path := t.TempDir() + "/f"
	write(t, path, "old", 0o600)
	if err := unix.Setxattr(path, "user.note", []byte("mine\x00too"), 0); errors.Is(err, unix.ENOTSUP) {
		t.Skip("the file system has no user attributes")
	} else if err != nil {
		t.Fatal(err)
	}
	if err := mustRead(t, path).Replace([]byte("new")); err != nil {
		t.Fatal(err)
	}
	value, err := sized(func(b []byte) (int, error) { return unix.Lgetxattr(path, "user.note", b) })
	if err != nil || string(value) != "mine\x00too" {
		t.Errorf("attribute %q, %v", value, err)
	}
}

func TestOwnerIsKept(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	path := t.TempDir() + "/f"
	write(t, path, "old", 0o600)
	if err := os.Chown(path, 1234, 2345); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o4755); err != nil {
		t.Fatal(err)
	}
	if err := mustRead(t, path).Replace([]byte("new")); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if o := owner(info); o != (ids{1234, 2345}) {
		t.Errorf("owner %+v", o)
	}
}

// Whatever somebody else does between Read and Replace, he wins.
func TestChangedMeanwhile(t *testing.T) {
	for name, change := range map[string]func(path string) error{
		"written":  func(p string) error { return os.WriteFile(p, []byte("odd"), 0o600) },
		"longer":   func(p string) error { return os.WriteFile(p, []byte("older"), 0o600) },
		"removed":  os.Remove,
		"mode":     func(p string) error { return os.Chmod(p, 0o644) },
		"replaced": func(p string) error { return errors.Join(os.Remove(p), os.WriteFile(p, []byte("old"), 0o600)) },
		"linked":   func(p string) error { return errors.Join(os.Remove(p), os.Symlink("/dev/null", p)) },
	} {
		dir := t.TempDir()
		write(t, dir+"/f", "old", 0o600)
		f := mustRead(t, dir+"/f")
		// Kept open, so that a new file cannot get the old one's inode.
		keep, err := os.Open(dir + "/f")
		if err != nil {
			t.Fatal(err)
		}
		if err := change(dir + "/f"); err != nil {
			t.Fatal(err)
		}
		if err := f.Replace([]byte("new")); !errors.Is(err, ErrChanged) {
			t.Errorf("%s: %v; want ErrChanged", name, err)
		}
		keep.Close()
		if got, _ := os.ReadFile(dir + "/f"); string(got) == "new" {
			t.Errorf("%s: was overwritten", name)
		}
		if left, _ := filepath.Glob(dir + "/.f*"); left != nil {
			t.Errorf("%s: %q was left", name, left)
		}
	}
}

func TestRefused(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/large", strings.Repeat("x", limit+1), 0o600)
	if err := unix.Mkfifo(dir+"/fifo", 0o600); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		dir:             "is not a regular file",
		dir + "/fifo":   "is not a regular file",
		dir + "/large":  "larger than",
		dir + "/absent": "no such file",
		"/dev/null":     "is not a regular file",
	} {
		if _, err := Read(name, limit); err == nil || !strings.Contains(err.Error(), "cannot read "+name+": ") || !strings.Contains(err.Error(), want) {
			t.Errorf("Read(%s): %v; want %q", name, err, want)
		}
	}
}

func TestCreate(t *testing.T) {
	dir := t.TempDir()
	if err := Create(dir+"/backup", []byte("old")); err != nil {
		t.Fatal(err)
	}
	if err := Create(dir+"/backup", []byte("new")); !errors.Is(err, os.ErrExist) && !errors.Is(err, syscall.EEXIST) {
		t.Errorf("an existing file: %v", err)
	}
	holds(t, dir, map[string]string{"backup": "old"})
	if info, err := os.Stat(dir + "/backup"); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

// A write that fails half-way leaves the old file, and no other. The limit is
// set in a process of its own: it would hold for all tests.
func TestFileSizeLimit(t *testing.T) {
	if dir := os.Getenv("ATOMICFILE_LIMITED_DIR"); dir != "" {
		limited(dir)
		return
	}
	dir := t.TempDir()
	write(t, dir+"/f", "old", 0o600)
	cmd := exec.Command(os.Args[0], "-test.run=^TestFileSizeLimit$")
	cmd.Env = append(os.Environ(), "ATOMICFILE_LIMITED_DIR="+dir)
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "f: file too large\n") || !strings.Contains(string(out), "g: file too large\n") {
		t.Errorf("%v, said %s", err, out)
	}
	holds(t, dir, map[string]string{"f": "old"})
}

func limited(dir string) {
	signal.Ignore(syscall.SIGXFSZ)
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 5000, Max: 5000}); err != nil {
		fmt.Println(err)
		return
	}
	f, err := Read(dir+"/f", limit)
	if err == nil {
		err = f.Replace(bytes.Repeat([]byte("x"), 10000))
	}
	fmt.Println(err)
	fmt.Println(Create(dir+"/g", bytes.Repeat([]byte("x"), 10000)))
}

func TestFullDisk(t *testing.T) {
	if os.Geteuid() != 0 || os.Getenv("XENLVM_ROOT_TESTS") != "1" {
		t.Skip("mounts a file system: needs root and XENLVM_ROOT_TESTS=1")
	}
	dir := t.TempDir()
	if err := unix.Mount("xenlvm-test", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	}()
	write(t, dir+"/f", "old", 0o600)
	f := mustRead(t, dir+"/f")
	if err := f.Replace(bytes.Repeat([]byte("x"), 200<<10)); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("Replace: %v; want ENOSPC", err)
	}
	if err := Create(dir+"/g", bytes.Repeat([]byte("x"), 200<<10)); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("Create: %v; want ENOSPC", err)
	}
	holds(t, dir, map[string]string{"f": "old"})
	if err := f.Replace([]byte("fits")); err != nil {
		t.Errorf("after the failure: %v", err)
	}
}

// A reader never sees anything but the old or the new content.
func TestReaderSeesNothingBetween(t *testing.T) {
	path := t.TempDir() + "/f"
	a, b := strings.Repeat("a", 100<<10), strings.Repeat("b", 50<<10)
	write(t, path, a, 0o600)
	f := mustRead(t, path)
	done := make(chan error)
	go func() {
		for i := range 50 {
			if err := f.Replace([]byte([]string{b, a}[i%2])); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	for {
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
			return
		default:
			if got, err := os.ReadFile(path); err != nil || string(got) != a && string(got) != b {
				t.Fatalf("read %d bytes, %v", len(got), err)
			}
		}
	}
}

func TestHardLinksAreNotParted(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/f", "old", 0o600)
	if err := os.Link(dir+"/f", dir+"/g"); err != nil {
		t.Fatal(err)
	}
	f := mustRead(t, dir+"/f")
	for _, err := range []error{f.Replaceable(), f.Replace([]byte("new"))} {
		if fault.StatusOf(err) != fault.Refused || !strings.Contains(err.Error(), "2 hard links") {
			t.Errorf("%v; want a refusal", err)
		}
	}
	holds(t, dir, map[string]string{"f": "old", "g": "old"})
}

func TestStatusOfRefusals(t *testing.T) {
	if _, err := Read("/dev/null", limit); fault.StatusOf(err) != fault.Refused {
		t.Errorf("status of %v", err)
	}
}

// What the file system itself protects is not replaced by way of its directory.
func TestImmutable(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can make a file immutable")
	}
	for _, what := range []string{"file", "directory"} {
		dir := t.TempDir()
		write(t, dir+"/f", "old", 0o600)
		f := mustRead(t, dir+"/f")
		protected := map[string]string{"file": dir + "/f", "directory": dir}[what]
		if out, err := exec.Command("chattr", "+i", protected).CombinedOutput(); err != nil {
			t.Fatalf("chattr: %v: %s", err, out)
		}
		t.Cleanup(func() {
			if out, err := exec.Command("chattr", "-i", protected).CombinedOutput(); err != nil {
				t.Errorf("chattr: %v: %s", err, out)
			}
		})
		if err := f.Replace([]byte("new")); !errors.Is(err, unix.EPERM) {
			t.Errorf("%s: %v; want EPERM", what, err)
		}
		holds(t, dir, map[string]string{"f": "old"})
	}
}
