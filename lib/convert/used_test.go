package convert

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"xenlvm/lib/blockcopy"
	"xenlvm/lib/diskimg"
	"xenlvm/lib/extent"
	"xenlvm/lib/fault"
	"xenlvm/lib/journal"
)

func conversion(t *testing.T, told *[]string) *Conversion {
	t.Helper()
	j, err := journal.Open(t.TempDir(), "vm3", "test")
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Append("x", nil); err != nil {
		t.Fatal(err)
	}
	return &Conversion{journal: j, rep: teller{told: told}}
}

// What the last pass did not copy because it was free is looked at, too, and where
// nobody knows any more what that was, everything is.
func TestLookAt(t *testing.T) {
	var told []string
	c := conversion(t, &told)
	d := based()
	set := func(ranges ...extent.Range) extent.Set { return extent.Of(ranges...) }
	sum, err := c.saveUsed(d, set(extent.Range{Off: 0, Len: 4096}, extent.Range{Off: 65536, Len: 4096}))
	if err != nil {
		t.Fatal(err)
	}
	changed, used := set(extent.Range{Off: 0, Len: 10}), set(extent.Range{Off: 0, Len: 8192})
	for _, tt := range []struct {
		name   string
		change func(*Disk)
		want   *extent.Set
		delta  string
	}{
		{"a block is in use since", func(*Disk) {}, ptr(set(extent.Range{Off: 0, Len: 10}, extent.Range{Off: 4096, Len: 4096})), byExceptions},
		{"all was copied", func(d *Disk) { d.last.Used, d.last.DiskSize = "", 1<<20 }, ptr(changed), byExceptions},
		{"the file is another one", func(d *Disk) { d.last.UsedSum = "x" }, nil, byDigests},
		{"the file is gone", func(d *Disk) { d.last.Used = "x" }, nil, byDigests},
		{"the base said nothing", func(d *Disk) { d.changed = nil }, nil, byDigests},
		{"the destination was read", func(d *Disk) { d.Result.Delta = byDestination }, nil, byDestination},
	} {
		d := based()
		d.last.Used, d.last.UsedSum, d.changed, d.Result.Delta = usedName(d), sum, &changed, byDigests
		tt.change(d)
		told = nil
		got := c.lookAt(&source{base: keptSnapshot{}}, d, used)
		if (got == nil) != (tt.want == nil) || got != nil && !got.Equal(*tt.want) || d.Result.Delta != tt.delta {
			t.Errorf("%s: %v by %s; want %v by %s", tt.name, got, d.Result.Delta, tt.want, tt.delta)
		}
		if strings.HasPrefix(tt.name, "the file") && len(told) != 1 {
			t.Errorf("%s: said %q", tt.name, told)
		}
	}
}

func ptr[T any](v T) *T { return &v }

// A guest that writes, frees and takes blocks as it likes, whose image is copied in
// passes: all that it uses is in the destination after each.
func TestPassesMissNothing(t *testing.T) {
	const block, blocks = 4096, 24
	c := conversion(t, &[]string{})
	dir := t.TempDir()
	for seed := range uint64(25) { // each pass waits for the disk
		random := rand.New(rand.NewPCG(seed, 0))
		image, dest := filepath.Join(dir, "image"), filepath.Join(dir, "dest")
		if err := os.WriteFile(dest, bytes.Repeat([]byte{0xa5}, block*blocks), 0o600); err != nil {
			t.Fatal(err)
		}
		dst, err := os.OpenFile(dest, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { dst.Close() })
		data := make([]byte, block*blocks)
		d := based()
		d.last = nil
		var before *blockcopy.Digests
		for range 4 {
			var used extent.Set
			changed := extent.Set{}
			for b := int64(0); b < blocks; b++ {
				if random.IntN(2) == 0 {
					used.Add(b*block, block)
				}
				if random.IntN(4) == 0 { // used or not
					copy(data[b*block:], bytes.Repeat([]byte{byte(random.IntN(4))}, block))
					changed.Add(b*block, block)
				}
			}
			if err := os.WriteFile(image, data, 0o600); err != nil {
				t.Fatal(err)
			}
			d.changed, d.Result.Delta = &changed, byDigests
			o := blockcopy.Options{Before: before, BlockSize: block}
			if before != nil {
				o.Only = c.lookAt(&source{base: keptSnapshot{}}, d, used)
			}
			src, err := diskimg.OpenSource(image, "raw")
			if err != nil {
				t.Fatal(err)
			}
			_, before, err = blockcopy.Copy(t.Context(), dst, blockcopy.Mask(src, used), o)
			src.Close()
			if err != nil {
				t.Fatal(err)
			}
			sum, err := c.saveUsed(d, used)
			if err != nil {
				t.Fatal(err)
			}
			last := copied("xvda", "b")
			last.Used, last.UsedSum = usedName(d), sum
			d.last = &last
			got, err := os.ReadFile(dest)
			if err != nil {
				t.Fatal(err)
			}
			for r := range used.All() {
				if !bytes.Equal(got[r.Off:r.End()], data[r.Off:r.End()]) {
					t.Fatalf("seed %d: bytes in use at %v are not in the destination", seed, r)
				}
			}
			if err := blockcopy.Verify(t.Context(), dst, before, nil, blockcopy.Options{}); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// A dry run says what would be left out, and reads nothing that counts.
func TestSurvey(t *testing.T) {
	image := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(image, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	var told []string
	c := conversion(t, &told)
	files, missing := based(), based()
	files.Method, missing.Image = Files, image+".gone"
	d := based()
	d.Image = image
	c.Disks = []*Disk{d, files, missing}
	c.Survey()
	if len(d.Result.Regions) != 1 || d.Result.BytesRead != 0 || d.Result.Whole || len(files.Result.Regions) != 0 {
		t.Errorf("%+v, by files %+v", d.Result, files.Result)
	}
	if len(told) != 2 || !strings.Contains(told[0], "xvda: disk (") || !strings.Contains(told[1], "cannot tell now what is in use") {
		t.Errorf("said %q", told)
	}
	c.o.Whole = true
	told = nil
	c.Disks = []*Disk{d}
	if c.Survey(); len(told) != 0 || !d.Result.Whole {
		t.Errorf("the whole disk: said %q, %+v", told, d.Result)
	}
}

// liar is an image whose file system says that it is one hole.
type liar struct{ diskimg.Source }

func (liar) Data() (extent.Set, error) { return extent.Set{}, nil }

// An image that lies about its holes is not copied, neither all of it nor what is in use.
func TestHolesThatAreNone(t *testing.T) {
	image := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(image, bytes.Repeat([]byte{1}, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	src, err := diskimg.OpenSource(image, "raw")
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	for _, whole := range []bool{false, true} {
		c := conversion(t, &[]string{})
		c.o.Whole = whole
		if _, err := c.used(liar{src}, based()); fault.StatusOf(err) != fault.Refused || !strings.Contains(err.Error(), "a hole at") {
			t.Errorf("whole %v: %v", whole, err)
		}
	}
}
