package main

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"xenlvm/lib/blkdev"
	"xenlvm/lib/diskimg"
	"xenlvm/lib/extent"
	"xenlvm/lib/fault"
	"xenlvm/lib/loopdev"
)

// sectorsRead is how much of a device was read, in bytes.
func sectorsRead(t *testing.T, path string) int64 {
	t.Helper()
	dev, err := blkdev.Stat(path)
	must(t, err)
	text, err := os.ReadFile("/sys/dev/block/" + dev.Number.String() + "/stat")
	must(t, err)
	var ios, merges, sectors int64
	_, err = fmt.Sscan(string(text), &ios, &merges, &sectors)
	must(t, err)
	return sectors * 512
}

func noise(t *testing.T, path string, size int) []byte {
	t.Helper()
	b := make([]byte, size)
	_, _ = rand.Read(b)
	must(t, os.WriteFile(path, b, 0o600))
	return b
}

// Neither end is read more often than it must be.
func TestRootReadsNoMore(t *testing.T) {
	needRoot(t)
	const size, sample = 128 << 20, (compareData + compareZeros) * chunk
	dir := t.TempDir()
	image := noise(t, dir+"/a.img", size)
	changed := bytes.Clone(image)
	for off := 0; off < size; off += 8 << 20 {
		changed[off]++
	}
	for _, c := range []struct {
		what        string
		there       []byte // nil: zeros
		flags       options
		from, to    int64 // bytes read, besides the sample
		status      fault.Status
		changed     bool
		mostWritten int64
	}{
		{"other data, to be destroyed", bytes.Repeat([]byte{0xa5}, size), options{overwrite: true, verify: "none"}, size, 0, fault.Done, true, size},
		{"other data", bytes.Repeat([]byte{0xa5}, size), options{}, 0, 0, fault.Refused, false, 0},
		{"mostly equal, to be destroyed", changed, options{overwrite: true}, size, size, fault.Done, true, 16 * 4096},
		{"equal, to be destroyed", image, options{overwrite: true}, size, size, fault.Done, false, 0},
		{"equal", image, options{}, size, size, fault.Done, false, 0},
		{"zeros", nil, options{verify: "none"}, size, size, fault.Done, true, size},
		{"zeros, to be destroyed", nil, options{overwrite: true, verify: "sample"}, size, 40 << 20, fault.Done, true, size},
	} {
		t.Run(c.what, func(t *testing.T) {
			behind := filepath.Join(t.TempDir(), "b.img")
			there := c.there
			if there == nil {
				there = make([]byte, size)
			}
			must(t, os.WriteFile(behind, there, 0o600))
			loop := attach(t, behind, loopdev.Options{})
			src := openImage(t, dir+"/a.img")
			to, err := openTarget(loop, src, false)
			must(t, err)
			defer to.close()
			src.read.Store(0) // it was looked for file systems
			before := sectorsRead(t, loop)
			done, err := copyPlain(t, c.flags, src, to)
			if fault.StatusOf(err) != c.status || done.changed != c.changed || done.BytesWritten > c.mostWritten {
				t.Errorf("%v, %+v", err, done)
			}
			if got := src.read.Load(); got < c.from || got > c.from+sample {
				t.Errorf("%d bytes of the source were read; want %d and a sample", got, c.from)
			}
			if got := sectorsRead(t, loop) - before; got > c.to+sample+1<<20 {
				t.Errorf("%d bytes of the destination were read; want %d and a sample", got, c.to)
			}
			if c.status == fault.Done {
				b, err := os.ReadFile(behind)
				must(t, err)
				if !bytes.Equal(b, image) {
					t.Error("it is not equal")
				}
			}
		})
	}
}

// What a larger device has behind the image becomes zero, and counts.
func TestRootLarger(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	image := noise(t, dir+"/a.img", 3<<20+512)
	from := attach(t, dir+"/a.img", loopdev.Options{ReadOnly: true})
	there := append(bytes.Clone(image), make([]byte, 5<<20-512)...)
	there[len(there)-1] = 'x'
	must(t, os.WriteFile(dir+"/b.img", there, 0o600))
	loop := attach(t, dir+"/b.img", loopdev.Options{})
	if s, said := imgconv(t, from, loop); s != fault.Refused || !strings.Contains(said, "it holds other data") {
		t.Errorf("status %d: %s", s, said)
	}
	if s, said := imgconv(t, "--overwrite", from, loop); s != fault.Done || !strings.Contains(said, "wrote 0 B, made 4.00 KiB of the destination zero") {
		t.Errorf("status %d: %s", s, said)
	}
	if s, said := imgconv(t, from, loop); s != fault.Done || !strings.Contains(said, "nothing to do") {
		t.Errorf("status %d: %s", s, said)
	}
	there[len(there)-1] = 0
	if b, err := os.ReadFile(dir + "/b.img"); err != nil || !bytes.Equal(b, there) {
		t.Errorf("not equal, %v", err)
	}
}

// A sample has whole pages of data, and zeros that no block of data reaches.
func TestDraw(t *testing.T) {
	const size = 64 << 20
	path := filepath.Join(t.TempDir(), "a.img")
	must(t, os.WriteFile(path, nil, 0o600))
	must(t, os.Truncate(path, size))
	src := openImage(t, path)
	src.Source = withData{src.Source, extent.Of(extent.Range{Off: 512, Len: 8192}, extent.Range{Off: 1 << 20, Len: 1 << 20})}
	f := filled{src, size + 24<<20}
	for range 100 {
		p, err := f.draw(4, 4)
		must(t, err)
		for r := range p.data.All() {
			if r.Off%4096 != 0 || r.Len%4096 != 0 || !(r.Off == 4096 && r.Len == 4096 || r.Off >= 1<<20 && r.End() <= 2<<20) {
				t.Fatalf("data %v", r)
			}
		}
		if p.data.Empty() || p.zeros.Empty() || !p.zeros.Subtract(extent.Whole(f.size)).Empty() || !p.zeros.Intersect(extent.Whole(largestBlock)).Empty() {
			t.Fatalf("data %v, zeros %v", p.data, p.zeros)
		}
	}
}

type withData struct {
	diskimg.Source
	data extent.Set
}

func (w withData) Data() (extent.Set, error) { return w.data, nil }

// later does something when all was copied, and nothing read back.
type later struct {
	diskimg.Source
	do func()
}

func (l later) Unchanged() error {
	l.do()
	return l.Source.Unchanged()
}

// What the device does not keep is found, if it is looked for, and the copy is not
// given for complete.
func TestMismatch(t *testing.T) {
	for verify, want := range map[string]fault.Status{"": fault.Mismatch, "full": fault.Mismatch, "sample": fault.Mismatch, "none": fault.Done} {
		dir := t.TempDir()
		noise(t, dir+"/a.img", 8<<20)
		src := openImage(t, dir+"/a.img")
		to, err := openTarget(dir+"/b.img", src, false)
		must(t, err)
		defer to.close()
		src.Source = later{src.Source, func() {
			_, err := to.f.WriteAt([]byte("other"), 4096)
			must(t, err)
		}}
		done, err := copyPlain(t, options{verify: verify}, src, to)
		if fault.StatusOf(err) != want || want == fault.Done && done.verified != "none" {
			t.Errorf("--verify %s: %v, %+v", verify, err, done)
		}
		if want == fault.Mismatch && !strings.Contains(err.Error(), "cannot trust ") {
			t.Errorf("--verify %s: %v", verify, err)
		}
	}
}
