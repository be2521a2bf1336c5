package rsync

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"xenlvm/lib/fault"
	"xenlvm/lib/mkfs"
	"xenlvm/lib/run"
	"xenlvm/lib/treesum"
	"xenlvm/lib/treesum/treetest"
	"xenlvm/lib/units"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestCommand(t *testing.T) {
	c := Command("/mnt/a b", "/mnt/dst/", Options{})
	if c.Effect != run.Change || !c.Interruptible || c.Name != "rsync" {
		t.Errorf("%+v; want an interruptible change", c)
	}
	if got := c.Args[len(c.Args)-3:]; !slices.Equal(got, []string{"--", "/mnt/a b/", "/mnt/dst/"}) {
		t.Errorf("operands %q", got)
	}
	// On one host this shows only where two users have one name.
	if !slices.Contains(c.Args, "--numeric-ids") {
		t.Error("owners are not copied as numbers")
	}
	if !slices.Contains(c.Args, "--modify-window=-1") || slices.Contains(Command("/a", "/b", Options{WholeSeconds: true}).Args, "--modify-window=-1") {
		t.Error("nanoseconds are to be compared unless there are none")
	}
	if c := Command("/a", "/b", Options{BytesPerSecond: 100}); !slices.Contains(c.Args, "--bwlimit=1") {
		t.Errorf("%s has no limit", c.Line())
	}
	for in, want := range map[string]string{"/": "/", "host:x": "./host:x/", "-a": "./-a/", "/a:b//": "/a:b/"} {
		if got := tree(in); got != want {
			t.Errorf("tree(%q) = %q; want %q", in, got, want)
		}
	}
}

// copyAndCompare runs a copy and returns its statistics; every difference is an
// error of the test.
func copyAndCompare(t *testing.T, src, dst string, o Options) Stats {
	t.Helper()
	s, err := Copy(t.Context(), run.Host{}, src, dst, o, nil)
	must(t, err)
	r, err := treesum.Compare(t.Context(), src, dst, treesum.Options{WholeSeconds: o.WholeSeconds})
	must(t, err)
	for _, d := range r.Differences {
		t.Error(d)
	}
	if r.Source.Digest != r.Destination.Digest || r.Source.Entries() != r.Destination.Entries() {
		t.Errorf("source %+v, destination %+v", r.Source, r.Destination)
	}
	return s
}

// The whole way: a guest's filesystem of each kind, remade smaller or of
// another kind, gets all files, the changes since, and nothing at the third pass.
func TestCopyBetweenFilesystems(t *testing.T) {
	treetest.Root(t)
	const mib = 1 << 20
	ext4 := []string{"mke2fs", "-q", "-t", "ext4", "-I", "1024"} // room for the attributes of Plant
	xfs := []string{"mkfs.xfs", "-q", "-m", "bigtime=1"}
	for _, tt := range []struct {
		name     string
		src, dst []string // no dst: remade like src
	}{
		{"ext4 remade", ext4, nil},
		{"xfs remade", xfs, nil},
		{"ext4 to xfs", ext4, xfs},
		{"xfs to ext4", xfs, ext4},
		{"ext2, 4k blocks, remade", []string{"mke2fs", "-q", "-t", "ext2", "-b", "4096"}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			image := treetest.Image(t, 500*mib)
			treetest.Run(t, tt.src[0], append(slices.Clone(tt.src[1:]), image)...)
			src := treetest.Mount(t, image)
			treetest.Plant(t, src)

			const size = 320 * mib
			smaller := treetest.Image(t, size)
			if tt.dst != nil {
				treetest.Run(t, tt.dst[0], append(slices.Clone(tt.dst[1:]), smaller)...)
			} else {
				d, err := mkfs.Describe(t.Context(), run.Host{}, image)
				must(t, err)
				cmds, err := mkfs.Make(t.Context(), run.Host{}, d, smaller, units.Bytes(size))
				must(t, err)
				for _, c := range cmds {
					treetest.Run(t, c.Name, c.Args...)
				}
			}
			// XFS refuses the UUID of a filesystem that is mounted already.
			var options []string
			if strings.HasPrefix(tt.name, "xfs remade") {
				options = []string{"-o", "nouuid"}
			}
			dst := treetest.Mount(t, smaller, options...)
			_, noLostFound := os.Stat(dst + "/lost+found")
			room, err := mkfs.SpaceOf(dst)
			must(t, err)
			used, err := mkfs.SpaceOf(src)
			must(t, err)
			must(t, mkfs.Fits(used, room))

			if s := copyAndCompare(t, src, dst, Options{}); s.Transferred == 0 || s.LiteralBytes > 72*mib {
				t.Errorf("the first pass did %+v", s)
			}
			if after, err := mkfs.SpaceOf(dst); err != nil || after.Used-room.Used > 8*mib {
				t.Errorf("holes were filled: %v more are used (%v)", after.Used-room.Used, err)
			}
			// What a guest does between the passes.
			must(t, os.WriteFile(src+"/plain", []byte("PLAIN"), 0o644))
			must(t, os.RemoveAll(src+"/deep"))
			must(t, os.Remove(src+"/hard/first"))
			must(t, os.Chtimes(src+"/hard/twin", time.Time{}, time.Now()))
			must(t, os.Rename(src+"/hard/twin", src+"/hard/second"))
			must(t, unix.Lremovexattr(src+"/attr/user", "user.text"))
			treetest.Run(t, "setfacl", "-m", "u:6:r", src+"/attr/acl")
			must(t, os.Remove(src+"/nodes/null"))
			must(t, os.Mkdir(src+"/nodes/null", 0o700))
			if s := copyAndCompare(t, src, dst, Options{}); s.Transferred > 2 || s.Deleted == 0 {
				t.Errorf("the second pass did %+v", s)
			}
			if _, err := os.Stat(dst + "/lost+found"); noLostFound == nil && err != nil {
				t.Errorf("the destination's own lost+found is gone: %v", err)
			}
			for range 2 { // twice: see trusted.SGI_ACL_*
				if s := copyAndCompare(t, src, dst, Options{}); s.Transferred+s.Created+s.Deleted != 0 {
					t.Errorf("with nothing to do, a pass did %+v", s)
				}
			}
		})
	}
}

// Without --modify-window=-1, a file rewritten within one second at equal size
// stays as it was.
func TestSecondPassSeesNanoseconds(t *testing.T) {
	src, dst := t.TempDir(), t.TempDir()
	write := func(text string, ns int64) {
		must(t, os.WriteFile(src+"/f", []byte(text), 0o644))
		must(t, os.Chtimes(src+"/f", time.Time{}, time.Unix(1000, ns)))
	}
	write("one", 1)
	copyAndCompare(t, src, dst, Options{})
	write("two", 2)
	if s := copyAndCompare(t, src, dst, Options{}); s.Transferred != 1 || s.TransferredBytes != 3 {
		t.Errorf("the second pass did %+v", s)
	}
}

// Where a guest replaces one name of a hard-linked file between two passes, the
// others must keep the old contents: rsync --inplace does not.
func TestBrokenHardLink(t *testing.T) {
	src, dst := t.TempDir(), t.TempDir()
	must(t, os.WriteFile(src+"/a", []byte("old"), 0o644))
	must(t, os.Link(src+"/a", src+"/b"))
	copyAndCompare(t, src, dst, Options{})
	must(t, os.WriteFile(src+"/new", []byte("newer"), 0o644))
	must(t, os.Rename(src+"/new", src+"/a"))
	copyAndCompare(t, src, dst, Options{})
}

// A link that the guest replaced by a copy of the same size and time looks
// unchanged to rsync, so the link stays. The comparison must tell.
func TestLinkReplacedByAnEqualCopyIsFound(t *testing.T) {
	src, dst := t.TempDir(), t.TempDir()
	must(t, os.WriteFile(src+"/a", []byte("same"), 0o644))
	must(t, os.Link(src+"/a", src+"/b"))
	copyAndCompare(t, src, dst, Options{})
	treetest.Run(t, "cp", "-p", src+"/b", src+"/new")
	must(t, os.Rename(src+"/new", src+"/b"))
	if _, err := Copy(t.Context(), run.Host{}, src, dst, Options{}, nil); err != nil {
		t.Fatal(err)
	}
	r, err := treesum.Compare(t.Context(), src, dst, treesum.Options{})
	must(t, err)
	if len(r.Differences) != 1 || r.Differences[0].Path != "b" || r.Differences[0].Field != "hard link" {
		t.Errorf("differences %v; want the link of b (if there are none, rsync has learnt it: say so in the package comment)", r.Differences)
	}
}

func TestExplain(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: only root can make a file that root cannot replace")
	}
	src, dst := t.TempDir(), t.TempDir()
	must(t, os.WriteFile(src+"/f", []byte("new"), 0o644))
	must(t, os.WriteFile(dst+"/f", []byte("o"), 0o644))
	treetest.Run(t, "chattr", "+i", dst+"/f")
	t.Cleanup(func() {
		if _, err := (run.Host{}).Run(context.Background(), run.Cmd{Name: "chattr", Args: []string{"-i", dst + "/f"}, Effect: run.Change}); err != nil {
			t.Error(err)
		}
	})
	_, err := Copy(t.Context(), run.Host{}, src, dst, Options{}, nil)
	if !errors.Is(err, ErrPartial) || !strings.Contains(err.Error(), "f") {
		t.Errorf("an immutable file gave %v", err)
	}
	_, err = Copy(t.Context(), run.Host{}, src+"/none", dst, Options{}, nil)
	if err == nil || !strings.HasPrefix(err.Error(), "cannot copy "+src+"/none") {
		t.Errorf("a missing source gave %v", err)
	}
	if err := Explain(&run.Error{Code: 24, Err: errors.New("x")}); !errors.Is(err, ErrVanished) {
		t.Errorf("code 24 gave %v", err)
	}
	if err := Explain(context.Canceled); err != context.Canceled {
		t.Errorf("another error became %v", err)
	}
}

func TestInterrupted(t *testing.T) {
	src, dst := t.TempDir(), t.TempDir()
	must(t, os.WriteFile(src+"/f", make([]byte, 20<<20), 0o644))
	ctx, cancel := context.WithCancelCause(t.Context())
	_, err := Copy(ctx, run.Host{}, src, dst, Options{BytesPerSecond: 1 << 20}, func(Progress) { cancel(fault.ErrInterrupted) })
	if !errors.Is(err, fault.ErrInterrupted) {
		t.Errorf("error %v; want the cause", err)
	}
	copyAndCompare(t, src, dst, Options{}) // and the rerun goes on
}

func TestProgress(t *testing.T) {
	src, dst := t.TempDir(), t.TempDir()
	for _, name := range []string{"a", "b", "c"} {
		must(t, os.WriteFile(src+"/"+name, []byte(strings.Repeat(name, 1<<20)), 0o644))
	}
	var seen []Progress
	_, err := Copy(t.Context(), run.Host{}, src, dst, Options{}, func(p Progress) { seen = append(seen, p) })
	must(t, err)
	if len(seen) == 0 {
		t.Fatal("no progress")
	}
	if last, want := seen[len(seen)-1], (Progress{Bytes: 3 << 20, Transferred: 3, Checked: 4, Found: 4, Listed: true}); last != want {
		t.Errorf("the last progress is %+v; want %+v", last, want)
	}
	if !slices.IsSortedFunc(seen, func(a, b Progress) int { return int(a.Bytes - b.Bytes) }) {
		t.Errorf("progress goes back: %+v", seen)
	}
}

func TestOutputInPieces(t *testing.T) {
	text := "\r      1,234   0%    0.00kB/s    0:00:00  \r  99,999  12%  1.00MB/s    0:00:01 (xfr#7, ir-chk=1000/1200)\n\nNumber of files: 8 (reg: 5, dir: 3)\nTotal file size: 35673 bytes\n"
	for _, size := range []int{1, 2, 7, len(text)} {
		var seen []Progress
		o := output{progress: func(p Progress) { seen = append(seen, p) }}
		for part := range slices.Chunk([]byte(text), size) {
			if n, err := o.Write(part); n != len(part) || err != nil {
				t.Fatal(n, err)
			}
		}
		want := []Progress{{Bytes: 1234}, {Bytes: 99999, Transferred: 7, Checked: 200, Found: 1200}}
		if !slices.Equal(seen, want) {
			t.Errorf("in pieces of %d: %+v; want %+v", size, seen, want)
		}
		if got := string(o.rest()); !strings.HasSuffix(got, "Number of files: 8 (reg: 5, dir: 3)\nTotal file size: 35673 bytes\n") {
			t.Errorf("in pieces of %d, kept %q", size, got)
		}
	}
	o := output{}
	for range 100 {
		_, _ = o.Write([]byte(strings.Repeat("x", 1000)))
	}
	if len(o.rest()) > 2*outputKept {
		t.Errorf("%d bytes of one line are kept", len(o.rest()))
	}
}

func TestParseStats(t *testing.T) {
	text := `
Number of files: 1,234,567 (reg: 1,000,000, dir: 234,567)
Number of created files: 12 (reg: 12)
Number of deleted files: 0
Number of regular files transferred: 5
Total file size: 98,765,432,109 bytes
Total transferred file size: 4,321 bytes
Literal data: 4,000 bytes
Matched data: 321 bytes
File list size: 65,535
`
	want := Stats{Files: 1234567, Created: 12, Transferred: 5, TotalBytes: 98765432109, TransferredBytes: 4321, LiteralBytes: 4000, MatchedBytes: 321}
	if got, err := ParseStats([]byte(text)); err != nil || got != want {
		t.Errorf("ParseStats = %+v, %v; want %+v", got, err, want)
	}
	for _, bad := range []string{"", strings.Replace(text, "Literal", "Liberal", 1), strings.Replace(text, "98,765", "many", 1), strings.Replace(text, " 5\n", " -5\n", 1)} {
		if got, err := ParseStats([]byte(bad)); err == nil {
			t.Errorf("ParseStats(%q) = %+v; want an error", bad, got)
		}
	}
}
