package diskimg

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"xenlvm/lib/directio"
	"xenlvm/lib/extent"
)

func TestRawSource(t *testing.T) {
	path := disk(t, 8*mib)
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s, err := OpenSource(path, "raw")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	got := make([]byte, len(want))
	if n, err := s.ReadAt(got, 0); n != len(want) || err != nil && err != io.EOF || !bytes.Equal(got, want) {
		t.Fatalf("%d, %v", n, err)
	}
	zerosOutside(t, want, s)
	data, err := s.Data()
	if err != nil {
		t.Fatal(err)
	}
	if data.Equal(extent.Whole(s.Size())) {
		t.Skip("this filesystem does not report holes")
	}
	if data.Contains(6 * mib) {
		t.Errorf("a hole is data: %v", data)
	}
}

// The source is opened for reading only, and its file is the same afterwards.
func TestReadOnly(t *testing.T) {
	path := disk(t, 8*mib)
	s, err := OpenSource(path, "raw")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	f := s.(*rawSource).f
	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
	if err != nil || flags&unix.O_ACCMODE != unix.O_RDONLY {
		t.Errorf("open flags %#x, %v", flags, err)
	}
}

func TestUnchanged(t *testing.T) {
	for _, c := range []struct {
		name, reason string
		change       func(path string) error
	}{
		{"nothing", "", func(string) error { return nil }},
		{"written to", "written to while it was read", func(p string) error { patch(t, p, 5, []byte("x")); return nil }},
		{"replaced", "replaced", func(p string) error {
			if err := os.Rename(p, p+".old"); err != nil {
				return err
			}
			return os.WriteFile(p, make([]byte, mib), 0o600)
		}},
		{"grown", "its size was 1048576 and is 2097152", func(p string) error { return os.Truncate(p, 2*mib) }},
		{"emptied", "empty", func(p string) error { return os.Truncate(p, 0) }},
		{"removed", "no such file", os.Remove},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := sparse(t, mib)
			// A file system may count time in ticks of 4 ms.
			if err := os.Chtimes(path, time.Time{}, time.Unix(1, 0)); err != nil {
				t.Fatal(err)
			}
			s, err := OpenSource(path, "raw")
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if err := c.change(path); err != nil {
				t.Fatal(err)
			}
			err = s.Unchanged()
			if (err == nil) != (c.reason == "") || err != nil && !strings.Contains(err.Error(), c.reason) {
				t.Errorf("%v", err)
			}
		})
	}
}

// TestRefused: what is not an image is named, and nothing blocks.
func TestRefused(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, err := range []error{
		os.Mkdir(at("dir"), 0o700),
		unix.Mkfifo(at("fifo"), 0o600),
		os.Symlink("loop", at("loop")),
		os.WriteFile(at("empty"), nil, 0o600),
		os.WriteFile(at("odd"), make([]byte, 1000001), 0o600),
		os.WriteFile(at("short"), make([]byte, 1), 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct{ path, reason string }{
		{at("dir"), "it is a directory"},
		{at("fifo"), "it is a FIFO"},
		{at("loop"), "too many levels of symbolic links"},
		{at("empty"), "it is empty"},
		{at("odd"), "its size 1000001 is not a multiple of 512 bytes"},
		{at("short"), "its size 1 is not a multiple"},
		{at("absent"), "no such file"},
		{"/dev/null", "neither a file nor a block device"},
	} {
		for what, f := range map[string]func() error{
			"Probe":      func() error { _, err := Probe(c.path); return err },
			"OpenSource": func() error { _, err := OpenSource(c.path, "raw"); return err },
		} {
			err := f()
			if err == nil || !strings.HasPrefix(err.Error(), "cannot ") || !strings.Contains(err.Error(), c.path+": ") ||
				!strings.Contains(err.Error(), c.reason) || strings.Count(err.Error(), c.path) != 1 {
				t.Errorf("%s: %v", what, err)
			}
		}
	}
}

func TestFormats(t *testing.T) {
	make1 := func(format string, options ...string) string {
		img := filepath.Join(t.TempDir(), "img")
		args := append([]string{"create", "-q", "-f", format}, options...)
		tool(t, "qemu-img", append(args, img, "8M")...)
		return img
	}
	for _, c := range []struct {
		path string
		want Format
	}{
		{make1("raw"), Raw}, {make1("qcow2"), Qcow2}, {make1("qcow"), Qcow}, {make1("qed"), QED}, {make1("vmdk"), VMDK},
		{make1("vmdk", "-o", "subformat=monolithicFlat"), VMDK}, {make1("vpc"), VHD}, {make1("vpc", "-o", "subformat=fixed"), VHD},
		{make1("vhdx"), VHDX}, {make1("vdi"), VDI},
	} {
		t.Run(string(c.want), func(t *testing.T) {
			info := mustProbe(t, c.path)
			if info.Format != c.want {
				t.Fatalf("format %s", info.Format)
			}
			for _, configured := range []string{"raw", "qcow2"} {
				err := CheckFormat(info, configured)
				_, openErr := OpenSource(c.path, configured)
				if agree := configured == string(c.want); (err == nil) != agree || (openErr == nil) != agree {
					t.Errorf("configured %s: %v; %v", configured, err, openErr)
				}
			}
			if err := CheckFormat(info, "vmdk"); err == nil || !strings.Contains(err.Error(), "not supported") {
				t.Errorf("configured vmdk: %v", err)
			}
		})
	}
}

// A guest writes a qcow2 header that names a host file into its raw disk.
func TestGuestWritesHeader(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, bytes.Repeat([]byte("secret"), 1024), 0o600); err != nil {
		t.Fatal(err)
	}
	evil := filepath.Join(t.TempDir(), "evil")
	tool(t, "qemu-img", "create", "-q", "-f", "qcow2", "-u", "-b", secret, "-F", "raw", evil, "8M")
	header, err := os.ReadFile(evil)
	if err != nil {
		t.Fatal(err)
	}
	path := disk(t, 8*mib)
	patch(t, path, 0, header)
	_, err = OpenSource(path, "raw")
	if err == nil || !strings.Contains(err.Error(), "configured as raw but has a qcow2 header") {
		t.Errorf("as raw: %v", err)
	}
	if _, err = OpenSource(path, "qcow2"); err == nil || !strings.Contains(err.Error(), "backing file") {
		t.Errorf("as qcow2: %v", err)
	}
}

// Holes are forgotten, never data, when there are too many.
func TestBound(t *testing.T) {
	var s, all extent.Set
	for i := range int64(3 * maxRanges) {
		s = bound(s, i*8192, 4096)
		all.Add(i*8192, 4096)
	}
	if s.Len() > maxRanges || !all.Subtract(s).Empty() {
		t.Errorf("%d ranges, %d bytes lost", s.Len(), all.Subtract(s).Bytes())
	}
}

// Data in the middle of a disk is data, even if both its ends are zero.
func TestDataInTheMiddleIsNotBlank(t *testing.T) {
	path := filepath.Join(t.TempDir(), "middle")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(16 << 20); err != nil {
		t.Fatal(err)
	}
	info, err := Probe(path)
	if err != nil || info.Kind != Blank {
		t.Errorf("a disk of zeros is %s, %v", info.Kind, err)
	}
	if _, err := f.WriteAt(bytes.Repeat([]byte{0xA5}, 1<<20), 4<<20); err != nil {
		t.Fatal(err)
	}
	if info, err = Probe(path); err != nil || info.Kind != Unknown {
		t.Errorf("a disk with data in the middle is %s, %v; want unknown", info.Kind, err)
	}
}

func TestIs(t *testing.T) {
	path := sparse(t, mib)
	s, err := OpenSource(path, "raw")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	link := path + ".link"
	if err := os.Link(path, link); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{path: true, link: true, sparse(t, mib): false} {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Is(f); got != want {
			t.Errorf("%s: %v", name, got)
		}
		f.Close()
	}
}

// Every way to read gives the same bytes; qcow2 cannot be read past the page cache
// alone, and says so.
func TestOpenSourceDirect(t *testing.T) {
	path := disk(t, 8*mib)
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	q := filepath.Join(t.TempDir(), "q")
	tool(t, "qemu-img", "create", "-q", "-f", "qcow2", q, "8M")
	for _, mode := range []directio.Mode{directio.Auto, directio.On, directio.Off} {
		s, err := OpenSourceDirect(path, "raw", mode)
		if err != nil {
			if mode == directio.On && strings.Contains(err.Error(), "past the page cache") {
				t.Skip(err) // tells of the file system of the test
			}
			t.Fatal(err)
		}
		got := directio.Buffer(len(want))
		if n, err := s.ReadAt(got, 0); n != len(want) || !bytes.Equal(got, want) {
			t.Errorf("%v: %d bytes, %v", mode, n, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		s, err = OpenSourceDirect(q, "qcow2", mode)
		if (err != nil) != (mode == directio.On) || err != nil && !strings.Contains(err.Error(), "past the page cache: it is qcow2") {
			t.Errorf("qcow2, %v: %v", mode, err)
		}
		if err == nil {
			s.Close()
		}
	}
}
