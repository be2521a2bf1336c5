package diskimg

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"xenlvm/lib/extent"
)

// watched tells how many bytes of news there are of files below dir that were opened
// since it was asked last.
func watched(t *testing.T, dir string) (opens func() int) {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err == nil {
		t.Cleanup(func() { unix.Close(fd) })
		_, err = unix.InotifyAddWatch(fd, dir, unix.IN_OPEN)
	}
	if err != nil {
		t.Fatal(err)
	}
	return func() int {
		n, err := unix.Read(fd, make([]byte, 64<<10))
		if err != nil && !errors.Is(err, unix.EAGAIN) {
			t.Fatal(err)
		}
		return max(n, 0)
	}
}

// What the header of an image names is a file of the host: it is never opened.
func TestNamedFilesAreNotOpened(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, bytes.Repeat([]byte("secret"), 10000), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, options := range map[string][]string{
		"backing file":      {"-u", "-b", secret, "-F", "raw"},
		"json backing file": {"-u", "-b", fmt.Sprintf(`json:{"driver":"file","filename":"%s"}`, secret), "-F", "raw"},
		"data file":         {"-o", "data_file=" + secret + ",data_file_raw=on"},
	} {
		img := filepath.Join(t.TempDir(), "img")
		tool(t, "qemu-img", append(append([]string{"create", "-q", "-f", "qcow2"}, options...), img, "8M")...)
		opens := watched(t, dir)
		for _, format := range []string{"raw", "qcow2"} {
			if s, err := OpenSource(img, format); err == nil {
				s.Close()
				t.Errorf("%s: opened as %s", name, format)
			}
		}
		mustProbe(t, img)
		if opens() > 0 {
			t.Errorf("%s: it was opened", name)
		}
		if f, err := os.Open(secret); err != nil || opens() == 0 {
			t.Fatalf("an open is not seen: %v", err)
		} else {
			f.Close()
		}
	}
}

// Tables that lead out of the file, or beside a cluster, are an error before or where
// the disk is read, never zeros.
func TestDamagedQcow2Tables(t *testing.T) {
	raw := disk(t, 8*mib)
	const copied = 1 << 63 // a cluster of its own
	for _, c := range []struct {
		name  string
		level int
		entry uint64
	}{
		{"first level beyond the file", 1, copied | 1<<40},
		{"first level beside a cluster", 1, copied | 0x20200},
		{"second level beyond the file", 2, copied | 1<<40},
		{"second level beside a cluster", 2, copied | 0x50200},
		{"compressed, beyond the file", 2, 1<<62 | 1<<40},
		{"compressed, of garbage", 2, 1<<62 | 0x200}, // in the header, behind what counts
	} {
		img := filepath.Join(t.TempDir(), "img")
		tool(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, img)
		b, err := os.ReadFile(img)
		if err != nil {
			t.Fatal(err)
		}
		at := int64(binary.BigEndian.Uint64(b[40:]))
		if c.level == 2 {
			at = int64(binary.BigEndian.Uint64(b[at:])&(1<<56-1)) + 2*mib/65536*8 // text, see disk
		}
		patch(t, img, at, binary.BigEndian.AppendUint64(nil, c.entry))
		s, err := OpenSource(img, "qcow2")
		if err != nil {
			continue // refused at once is as good
		}
		// Who copies asks for the data first.
		if _, err := s.Data(); err != nil {
			if !strings.HasPrefix(err.Error(), "cannot read "+img+": ") {
				t.Errorf("%s: %v", c.name, err)
			}
		} else {
			got := make([]byte, 65536)
			if n, err := s.ReadAt(got, 2*mib); err == nil {
				t.Errorf("%s: read %d bytes, %.20q", c.name, n, got)
			}
		}
		s.Close()
	}
}

// FuzzQcow2Tables holds of any entries of both tables: they are refused, or what is
// no data reads as zeros, and nothing is read from beside a cluster.
func FuzzQcow2Tables(f *testing.F) {
	const cluster, size, second = 4096, 2 * mib, 2 * 4096
	f.Add(uint64(1<<63|second), binary.BigEndian.AppendUint64(nil, 1<<63|3*cluster))
	f.Fuzz(func(t *testing.T, first uint64, entries []byte) {
		if len(entries) > cluster {
			return
		}
		b := bytes.Repeat([]byte{0xa5}, 7*cluster)
		clear(b[:3*cluster])
		copy(b, "QFI\xfb\x00\x00\x00\x03")
		binary.BigEndian.PutUint32(b[20:], 12)
		binary.BigEndian.PutUint64(b[24:], size)
		binary.BigEndian.PutUint32(b[36:], 1)
		binary.BigEndian.PutUint64(b[40:], cluster)
		binary.BigEndian.PutUint32(b[100:], 104)
		binary.BigEndian.PutUint64(b[cluster:], first)
		copy(b[second:], entries)
		path := sparse(t, 0)
		patch(t, path, 0, b)
		s, err := OpenSource(path, "qcow2")
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		data, err := s.Data()
		if err != nil {
			return
		}
		if first&(1<<56-1<<9)%cluster != 0 {
			t.Fatalf("the first level leads to %#x", first)
		}
		got := make([]byte, size)
		if n, err := s.ReadAt(got, 0); n != size || err != nil && !errors.Is(err, io.EOF) {
			return
		}
		zerosOutside(t, got, s)
		if data.End() > size {
			t.Errorf("data end at %d", data.End())
		}
	})
}

// A file of more than 16 TiB is mapped and read where its data lie.
func TestHugeSparseImage(t *testing.T) {
	const size, at = 17 << 40, 16<<40 + 512*7
	fd, err := unix.MemfdCreate("disk.img", 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "disk.img")
	defer f.Close()
	want := bytes.Repeat([]byte("last"), 128)
	if _, err := f.WriteAt(want, at); err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	s, err := OpenSource(fmt.Sprintf("/proc/self/fd/%d", fd), "raw")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	data, err := s.Data()
	if err != nil || s.Size() != size || data.Bytes() > mib || !extent.Of(extent.Range{Off: at, Len: 512}).Subtract(data).Empty() {
		t.Errorf("%d bytes, of which data are %v, %v", s.Size(), data, err)
	}
	got := make([]byte, 512)
	if _, err := s.ReadAt(got, at); err != nil || !bytes.Equal(got, want) {
		t.Errorf("read %.20q, %v", got, err)
	}
}

// A hybrid MBR has partitions of its own beside the GPT: the GPT counts, as for the
// kernel.
func TestHybridMBR(t *testing.T) {
	path := sparse(t, 32*mib)
	script(t, "label: gpt\nstart=2048,size=4096,type=L\nstart=8192,size=4096,type=L\n", "sfdisk", "-q", path)
	entry := []byte{0x80, 0, 0, 0, 0x83, 0, 0, 0, 0, 0x20, 0, 0, 0, 0x10, 0, 0} // the second one, bootable
	patch(t, path, 446+16, entry)
	tab := table(t, path, "gpt")
	if len(tab.Partitions) != 2 || tab.Partitions[1].Start != 8192*512 {
		t.Errorf("%+v", tab)
	}
	if !strings.HasPrefix(blkid(t, path)["PTTYPE"], "gpt") {
		t.Errorf("blkid says %q", blkid(t, path))
	}
}
