package diskimg

import (
	"bytes"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"xenlvm/lib/extent"
)

// asQemu is the disk in path as qemu-img reads it.
func asQemu(t *testing.T, path string) []byte {
	t.Helper()
	raw := filepath.Join(t.TempDir(), "raw")
	tool(t, "qemu-img", "convert", "-f", "qcow2", "-O", "raw", path, raw)
	b, err := os.ReadFile(raw)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// likeQemu fails unless the source reads as qemu-img reads it: whole, in
// pieces from several goroutines, and with zeros outside its data map.
func likeQemu(t *testing.T, path string) Source {
	t.Helper()
	want := asQemu(t, path)
	s, err := OpenSource(path, "qcow2")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if s.Size() != int64(len(want)) {
		t.Fatalf("size %d, qemu %d", s.Size(), len(want))
	}
	got := make([]byte, s.Size())
	if n, err := s.ReadAt(got, 0); n != len(got) || err != nil && err != io.EOF {
		t.Fatalf("read %d of %d: %v", n, len(got), err)
	}
	if !bytes.Equal(got, want) {
		t.Fatal("bytes differ from qemu's")
	}
	var wg sync.WaitGroup
	for seed := range uint64(3) {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(seed, 2))
			for range 40 {
				off := r.IntN(len(want))
				b := make([]byte, 1+r.IntN(min(300000, len(want)-off)))
				if n, err := s.ReadAt(b, int64(off)); n != len(b) || err != nil && err != io.EOF || !bytes.Equal(b, want[off:off+n]) {
					t.Errorf("read of %d bytes at %d: %d, %v", len(b), off, n, err)
				}
			}
		})
	}
	wg.Wait()
	if n, err := s.ReadAt(make([]byte, 10), s.Size()-3); n != 3 || err != io.EOF {
		t.Errorf("read across the end: %d, %v", n, err)
	}
	zerosOutside(t, want, s)
	if err := s.Unchanged(); err != nil {
		t.Error(err)
	}
	return s
}

func zerosOutside(t *testing.T, want []byte, s Source) {
	t.Helper()
	data, err := s.Data()
	if err != nil {
		t.Fatal(err)
	}
	if data.End() > s.Size() {
		t.Errorf("data ends at %d, the disk at %d", data.End(), s.Size())
	}
	for r := range data.Complement(s.Size()).All() {
		if slices.ContainsFunc(want[r.Off:r.End()], func(b byte) bool { return b != 0 }) {
			t.Errorf("there is data in the hole %v", r)
		}
	}
}

// disk is a raw file with text, noise, zeros and holes.
func disk(t *testing.T, size int64) string {
	t.Helper()
	path := sparse(t, size)
	r := rand.New(rand.NewPCG(7, 7))
	noise := make([]byte, 300000)
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	patch(t, path, 100000, noise)
	patch(t, path, 2*mib, bytes.Repeat([]byte("a guest writes this. "), 40000))
	patch(t, path, 4*mib, make([]byte, mib))
	patch(t, path, size-700, noise[:700])
	return path
}

func TestQcow2LikeQemu(t *testing.T) {
	for _, c := range []struct {
		name    string
		size    int64
		options []string
	}{
		{"version 3", 8 * mib, nil},
		{"version 2", 8 * mib, []string{"-o", "compat=0.10"}},
		{"compressed", 8 * mib, []string{"-c"}},
		{"compressed version 2", 8 * mib, []string{"-c", "-o", "compat=0.10"}},
		{"compressed in 2 MiB", 8 * mib, []string{"-c", "-o", "cluster_size=2M"}},
		{"compressed in 512", 6 * mib, []string{"-c", "-o", "cluster_size=512"}},
		{"odd size", 7*mib + 512*3, nil},
		{"preallocated", 6 * mib, []string{"-o", "preallocation=metadata"}},
		{"lazy refcounts", 6 * mib, []string{"-o", "lazy_refcounts=on"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			raw, img := disk(t, c.size), filepath.Join(t.TempDir(), "img")
			tool(t, "qemu-img", append(append([]string{"convert", "-f", "raw", "-O", "qcow2"}, c.options...), raw, img)...)
			likeQemu(t, img)
			info := mustProbe(t, img)
			if info.Format != Qcow2 || info.Unreadable != nil || info.Size != c.size {
				t.Errorf("%+v", info)
			}
		})
	}
}

// Clusters that qemu-io wrote, zeroed, discarded and snapshotted.
func TestQcow2History(t *testing.T) {
	img := filepath.Join(t.TempDir(), "img")
	tool(t, "qemu-img", "create", "-q", "-f", "qcow2", img, "20M")
	tool(t, "qemu-io", "-f", "qcow2", "-c", "write -P 0x11 0 5M", "-c", "write -P 0x22 8M 700", img)
	tool(t, "qemu-img", "snapshot", "-c", "before", img)
	tool(t, "qemu-io", "-f", "qcow2", "-c", "write -P 0x33 1M 1M", "-c", "write -z 2M 1M", "-c", "discard 3M 512k",
		"-c", "write -z -u 4M 64k", "-c", "write -P 0x44 19M 513", img)
	s := likeQemu(t, img)
	data, err := s.Data()
	if err != nil {
		t.Fatal(err)
	}
	if zeros := (extent.Range{Off: 2 * mib, Len: mib}); !data.Intersect(extent.Of(zeros)).Empty() {
		t.Error("zero clusters count as data")
	}
	if data.Bytes() > 6*mib {
		t.Errorf("%d bytes of data", data.Bytes())
	}
	tool(t, "qemu-io", "-f", "qcow2", "-c", "write -P 0x55 0 512", img)
	if err := s.Unchanged(); err == nil {
		t.Error("a write to the image went unnoticed")
	}
}

// The filesystem inside is seen.
func TestQcow2Content(t *testing.T) {
	raw, img := sparse(t, 16*mib), filepath.Join(t.TempDir(), "img")
	tool(t, "mkfs.ext4", "-q", "-L", "inside", raw)
	tool(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-c", raw, img)
	if info := mustProbe(t, img); info.Kind != Filesystem || info.Signature.Label != "inside" {
		t.Errorf("%+v", info)
	}
}

func TestQcow2Refused(t *testing.T) {
	create := func(args ...string) func(t *testing.T) string {
		return func(t *testing.T) string {
			img := filepath.Join(t.TempDir(), "img")
			for i := range args {
				args[i] = strings.ReplaceAll(args[i], "IMG", img)
			}
			tool(t, "qemu-img", append([]string{"create", "-q", "-f", "qcow2"}, append(args, img, "8M")...)...)
			return img
		}
	}
	patched := func(off int64, b ...byte) func(t *testing.T) string {
		return func(t *testing.T) string {
			img := create()(t)
			patch(t, img, off, b)
			return img
		}
	}
	for _, c := range []struct {
		name, reason string
		image        func(t *testing.T) string
	}{
		{"backing file", `backing file "/etc/shadow"`, create("-u", "-b", "/etc/shadow", "-F", "raw")},
		{"json backing file", `backing file "json:{`, create("-u", "-b", `json:{"driver":"file","filename":"/etc/shadow"}`, "-F", "raw")},
		{"data file", "external file", create("-o", "data_file=IMG.data")},
		{"encrypted", "encrypted", patched(35, 2)},
		{"zstd", "not zlib", create("-o", "compression_type=zstd")},
		{"subclusters", "subclusters", create("-o", "extended_l2=on")},
		{"dirty", "not closed cleanly", patched(79, 1)},
		{"corrupt", "marked corrupt", patched(79, 2)},
		{"unknown feature", "unknown features (0x8000000000000000)", patched(72, 0x80)},
		{"version 4", "version is 4", patched(7, 4)},
		{"cluster of 2^63", "cluster size", patched(23, 63)},
		{"L1 of 4 Gi entries", "first-level table", patched(36, 0xff, 0xff, 0xff, 0xff)},
		{"L1 elsewhere", "first-level table", patched(40, 0x7f)},
		{"huge disk", "does not fit", patched(24, 0x7f)},
		{"odd disk", "not a multiple of 512", patched(31, 1)},
		{"no disk", "empty", patched(24, 0, 0, 0, 0, 0, 0, 0, 0)},
		{"truncated header", "truncated", func(t *testing.T) string {
			img := create()(t)
			if err := os.Truncate(img, 60); err != nil {
				t.Fatal(err)
			}
			return img
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			img := c.image(t)
			_, err := OpenSource(img, "qcow2")
			if err == nil || !strings.HasPrefix(err.Error(), "cannot read "+img+": ") || !strings.Contains(err.Error(), c.reason) {
				t.Errorf("OpenSource: %v", err)
			}
			info := mustProbe(t, img)
			if info.Format != Qcow2 || info.Unreadable == nil || !strings.Contains(info.Unreadable.Error(), c.reason) {
				t.Errorf("Probe: %+v", info)
			}
			if err := CheckFormat(info, "qcow2"); err == nil || err != info.Unreadable {
				t.Errorf("CheckFormat: %v", err)
			}
		})
	}
}

// A file cut off after it was made is an error where data is missing, never
// zeros.
func TestQcow2CutOff(t *testing.T) {
	raw, img := disk(t, 8*mib), filepath.Join(t.TempDir(), "img")
	tool(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, img)
	st, err := os.Stat(img)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(img, st.Size()/2/65536*65536); err != nil {
		t.Fatal(err)
	}
	s, err := OpenSource(img, "qcow2")
	if err != nil {
		return // refused at once is as good
	}
	defer s.Close()
	b := make([]byte, s.Size())
	if n, err := s.ReadAt(b, 0); err == nil || n == len(b) {
		t.Errorf("read %d bytes, %v", n, err)
	}
}

// A file that ends inside its last cluster is whole: the rest is zeros.
func TestPadded(t *testing.T) {
	f, err := os.Open(sparse(t, 70000))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p := &padded{f, 70000, 65536}
	for _, c := range []struct{ off, length, n int64 }{
		{0, 100, 100}, {65536, 65536, 65536}, {69999, 2, 2}, {131071, 1, 1}, {131071, 2, 1}, {131072, 1, 0}, {200000, 5, 0},
	} {
		b := bytes.Repeat([]byte{9}, int(c.length))
		n, err := p.ReadAt(b, c.off)
		if int64(n) != c.n || (err != nil) != (c.n < c.length) || slices.Contains(b[:n], 9) {
			t.Errorf("read of %d at %d: %d, %v", c.length, c.off, n, err)
		}
	}
}

func FuzzQcow2Header(f *testing.F) {
	h := make([]byte, 65536*4)
	copy(h, "QFI\xfb\x00\x00\x00\x03")
	binary.BigEndian.PutUint32(h[20:], 16)
	binary.BigEndian.PutUint64(h[24:], mib)
	binary.BigEndian.PutUint32(h[36:], 1)
	binary.BigEndian.PutUint64(h[40:], 65536)
	binary.BigEndian.PutUint32(h[100:], 104)
	f.Add(h[:112])
	f.Fuzz(func(t *testing.T, b []byte) {
		file := bytes.Clone(h)
		copy(file, b)
		path := sparse(t, 0)
		patch(t, path, 0, file)
		info := mustProbe(t, path)
		if info.Format != Qcow2 || info.Unreadable != nil {
			return
		}
		s, err := OpenSource(path, "qcow2")
		if err != nil {
			t.Fatalf("readable, but %v", err)
		}
		defer s.Close()
		_, _ = s.ReadAt(make([]byte, 4096), 0)
	})
}
