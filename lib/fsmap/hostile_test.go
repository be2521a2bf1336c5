package fsmap

import (
	"bytes"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"xenlvm/lib/extent"
	"xenlvm/lib/treesum/treetest"
	"xenlvm/lib/units"
)

// patched is an image with some bytes changed, and a count of what is read.
type patched struct {
	base []byte
	at   map[int64]byte
	read int64
}

func (p *patched) ReadAt(b []byte, off int64) (int, error) {
	n, err := bytes.NewReader(p.base).ReadAt(b, off)
	p.read += int64(n)
	for at, v := range p.at {
		if at >= off && at < off+int64(n) {
			b[at-off] = v
		}
	}
	return n, err
}

// survives maps an image that a guest means harm with: it must end, read no more
// than it would cost to copy, and give a set that makes sense.
func survives(t testing.TB, p *patched) {
	t.Helper()
	size := int64(len(p.base))
	set, regions, err := Used(p, units.Bytes(size))
	if err != nil {
		t.Fatal(err)
	}
	if p.read > 3*size {
		t.Errorf("%d bytes read of %d", p.read, size)
	}
	if set.End() > size || set.Len() > maxRanges+1 {
		t.Errorf("%d ranges to %d", set.Len(), set.End())
	}
	if !set.Contains(0) {
		t.Error("the first byte is not used")
	}
	for _, r := range regions {
		if r.Free < 0 || r.Free > r.Len || r.Whole != "" && r.Free != 0 || strings.ContainsAny(r.String(), "\n\x1b") {
			t.Errorf("%#v", r)
		}
	}
}

// fuzz changes bytes of the images: a patch is the image, a place, a value.
func fuzz(f *testing.F, images []string, place func(b []byte, at int64) int64) {
	bases := make([][]byte, len(images))
	for i, image := range images {
		bases[i] = contents(f, image)
		for _, at := range []byte{0, 4, 8, 12, 16, 20, 24, 32, 64, 96, 100, 128, 0xe0} {
			f.Add([]byte{byte(i), 0, 4, at, 0xff})
			f.Add([]byte{byte(i), 0, 4, at, 1, 0, 8, at, 0})
			f.Add([]byte{byte(i), 0, 16, at, 0x80, 0, 18, at, 2})
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) == 0 {
			return
		}
		p := &patched{base: bases[int(data[0])%len(bases)], at: map[int64]byte{}}
		for data = data[1:]; len(data) >= 4; data = data[4:] {
			at := place(p.base, int64(data[0])<<16|int64(data[1])<<8|int64(data[2]))
			p.at[at%int64(len(p.base))] = data[3]
		}
		survives(t, p)
	})
}

func FuzzExt(f *testing.F) {
	dir := tree(f)
	log := makeExt(f, 14*mib, dir, "-t", "ext3", "-b", "1024", "-J", "size=1")
	debugfs(f, log, "jo", "jw -b 9000,9001 "+log, "jw -r 9000", "jc")
	extents := makeExt(f, 16*mib, dir, "-t", "ext4", "-b", "4096", "-O", "^metadata_csum", "-J", "size=4")
	meta := makeExt(f, 14*mib, dir, "-t", "ext4", "-b", "1024", "-O", "^metadata_csum,meta_bg,^resize_inode,uninit_bg,^has_journal")
	fuzz(f, []string{log, extents, meta}, func(_ []byte, at int64) int64 { return at })
}

func FuzzXFS(f *testing.F) {
	dir := tree(f)
	v4 := makeXFS(f, 340*mib, dir, "-m", "crc=0")
	small := makeXFS(f, 340*mib, dir, "-m", "crc=0", "-b", "size=512")
	x, err := openXFS(open(f, v4))
	if err != nil {
		f.Fatal(err)
	}
	// The first 64 KiB of a group, or of the log.
	fuzz(f, []string{v4, small}, func(b []byte, at int64) int64 {
		if group := at >> 16 % 8; group < x.groups {
			return group*x.agBlocks*x.bs + at&0xffff
		}
		return x.logStart + at&0xffff
	})
}

// FuzzTable puts any bytes where a partition table is.
func FuzzTable(f *testing.F) {
	image := partitioned(f, 8*mib, "label: dos\nstart=2048,size=4096,type=83\nstart=8192,type=5\nstart=9000,size=2000,type=83\n")
	gpt := partitioned(f, 8*mib, "label: gpt\nstart=2048,size=4096,type=L\n")
	ext := treetest.Image(f, 2*mib)
	treetest.Run(f, "mke2fs", "-q", "-F", ext)
	put(f, image, ext, mib)
	put(f, gpt, ext, mib)
	b := bytes.Clone(contents(f, image))
	f.Add(bytes.Clone(b[:512]))
	f.Add(bytes.Clone(contents(f, gpt)[:34*512]))
	f.Fuzz(func(t *testing.T, head []byte) {
		copied := bytes.Clone(b)
		copy(copied, head)
		survives(t, &patched{base: copied})
	})
}

// The runs of a bitmap are its zeros, for any bitmap and group.
func TestClusters(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		ratio := rapid.SampledFrom([]int64{1, 2, 16}).Draw(t, "blocks in a cluster")
		e := &ext{bs: 1024, first: rapid.Int64Range(0, 1).Draw(t, "first"), ratio: ratio, perGroup: 256 * ratio}
		e.blocks = e.first + rapid.Int64Range(1, 3*e.perGroup).Draw(t, "blocks")
		e.groups = (e.blocks - e.first + e.perGroup - 1) / e.perGroup
		table := &groupTable{ext: e}
		gap := rapid.SampledFrom([]int64{1, 4096, minGap}).Draw(t, "gap")
		f := freeRuns{gap: gap}
		var want extent.Set
		for g := range e.groups {
			words := rapid.SliceOfN(rapid.SampledFrom([]byte{0, 0, 0xff, 0x81, 0x10, 0xfe}), 32, 32).Draw(t, "bitmap")
			n, err := table.clusters(g, words, &f)
			if err != nil {
				t.Fatal(err)
			}
			free := int64(0)
			for c := range 256 * int64(1) {
				start := e.groupStart(g) + c*ratio
				if words[c/8]>>(c%8)&1 == 0 && start < e.blocks {
					want.Add(start*e.bs, (min(start+ratio, e.blocks)-start)*e.bs)
					free++
				}
			}
			if n != free {
				t.Fatalf("group %d: %d free clusters, want %d", g, n, free)
			}
		}
		f.end()
		if f.total != want.Bytes() {
			t.Fatalf("%d free bytes, want %d", f.total, want.Bytes())
		}
		var kept extent.Set
		for r := range want.All() {
			if r.Len >= gap {
				kept.Add(r.Off, r.Len)
			}
		}
		if !extent.Of(f.runs...).Equal(kept) {
			t.Fatalf("%v, want %v", f.runs, kept)
		}
	})
}

// What must not be free is found wherever a free range touches it.
func TestMetadataIsNotFree(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var meta []extent.Range
		for range rapid.IntRange(0, 5).Draw(t, "metadata") {
			meta = append(meta, extent.Range{Off: rapid.Int64Range(0, 90).Draw(t, "at"), Len: rapid.Int64Range(1, 10).Draw(t, "length")})
		}
		f := freeRuns{gap: 1, meta: sorted(meta)}
		var free extent.Set
		var err error
		for off := int64(0); off < 100 && err == nil; {
			off += rapid.Int64Range(0, 20).Draw(t, "used")
			n := rapid.Int64Range(1, 10).Draw(t, "free")
			err = f.add(off, n)
			free.Add(off, n)
			off += n
		}
		if touches := !free.Intersect(extent.Of(meta...)).Empty(); touches != (err != nil) {
			t.Fatalf("free %v, metadata %v: %v", free, meta, err)
		}
	})
}

// The checksums of Linux, by their published check values.
func TestChecksums(t *testing.T) {
	t.Parallel()
	check := []byte("123456789")
	if got := ^crc32c(^uint32(0), check[:4], check[4:]); got != 0xe3069283 {
		t.Errorf("crc32c %#x", got)
	}
	if got := crc16(0, check); got != 0xbb3d {
		t.Errorf("crc16 %#x", got)
	}
}

// A set stays small on a disk of any size.
func TestGaps(t *testing.T) {
	t.Parallel()
	for size, want := range map[int64]int64{0: minGap, 64 << 30: minGap, 65 << 30: 2 * minGap, 1 << 40: 1 << 20, 1 << 60: 1 << 40} {
		if got := gapFor(size); got != want {
			t.Errorf("gapFor(%d) = %d, want %d", size, got, want)
		}
	}
}
