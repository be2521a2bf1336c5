package fsmap

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"xenlvm/lib/extent"
	"xenlvm/lib/treesum/treetest"
)

// logCase is a filesystem whose journal debugfs writes and replays.
type logCase struct{ name, options, open string }

var logCases = []logCase{
	{"ext3", "-t ext3 -b 1024", "jo"},
	{"ext4 without checksums", "-t ext4 -b 4096 -O ^metadata_csum,^64bit", "jo"},
	{"64bit without checksums", "-t ext4 -b 1024 -O ^metadata_csum,64bit", "jo"},
	{"checksums 2", "-t ext4 -b 1024 -O ^64bit", "jo -c -v 2"},
	{"checksums 2, 64bit", "-t ext4 -b 4096", "jo -c -v 2"},
	{"checksums 3", "-t ext4 -b 1024 -O ^64bit", "jo -c -v 3"},
	{"checksums 3, 64bit", "-t ext4 -b 4096", "jo -c -v 3"},
	{"a journal without extents", "-t ext4 -b 1024 -O ^extents,^64bit,^flex_bg -J size=8", "jo -c -v 3"},
}

// logged makes an image before a change, one after it, and one before it whose
// journal holds the change, with all that makes a replay hard: older versions,
// revoked blocks, escaped blocks, and at the end a transaction not committed.
func (c logCase) images(t *testing.T) (before, after, log string) {
	before = makeExt(t, 48*mib, tree(t), strings.Fields(c.options)...)
	after = duplicate(t, before)
	source := filepath.Join(t.TempDir(), "new")
	if err := os.WriteFile(source, bytes.Repeat([]byte("new "), 3000), 0o600); err != nil {
		t.Fatal(err)
	}
	debugfs(t, after, "rm /d1/file-1", "rm /d4/file-4", "mkdir /new", "write "+source+" /new/file")
	e, err := openExt(open(t, before))
	if err != nil {
		t.Fatal(err)
	}
	a, b := contents(t, before), contents(t, after)
	var blocks, data []string
	var right, wrong, escaped []byte
	for n := 1024/e.bs + 1; n < e.blocks; n++ { // but for the superblock, which debugfs does not mark
		was, is := a[n*e.bs:][:e.bs], b[n*e.bs:][:e.bs]
		if !bytes.Equal(was, is) {
			blocks = append(blocks, fmt.Sprint(n))
			right = append(right, is...)
			wrong = append(wrong, was...)
		}
	}
	// Blocks of a file that stays: one whose contents look like the journal's own,
	// and one that is revoked.
	inUse, err := e.descriptors()
	if err != nil {
		t.Fatal(err)
	}
	meta := extent.Of(inUse.meta...)
	for n := e.blocks - 1; n > 0 && len(data) < 2; n-- {
		if block := a[n*e.bs:][:e.bs]; !meta.Contains(n*e.bs) && bytes.Equal(block, b[n*e.bs:][:e.bs]) && len(bytes.Trim(block, "\x00")) > 0 {
			data = append(data, fmt.Sprint(n))
		}
	}
	if len(blocks) < 4 || len(data) < 2 {
		t.Fatal(blocks, data)
	}
	escaped = append([]byte{0xc0, 0x3b, 0x39, 0x98}, bytes.Repeat([]byte{7}, int(e.bs)-4)...)
	file := func(b []byte) string {
		f := filepath.Join(t.TempDir(), "blocks")
		if err := os.WriteFile(f, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return f
	}
	log = duplicate(t, before)
	list := strings.Join(blocks, ",")
	junk := bytes.Repeat([]byte{0xee}, len(right))
	debugfs(t, log, c.open,
		fmt.Sprintf("jw -b %s %s", list, file(wrong)),
		fmt.Sprintf("jw -b %s %s", strings.Join(data, ","), file(append(bytes.Clone(escaped), junk[:e.bs]...))),
		fmt.Sprintf("jw -b %s %s", list, file(right)),
		"jw -r "+data[1],
		fmt.Sprintf("jw -b %s -c %s", list, file(junk)),
		"jc")
	return before, after, log
}

// exact is the free bytes, without regard to the superblock's count.
func exact(t testing.TB, e *ext) extent.Set {
	t.Helper()
	g, err := e.descriptors()
	if err != nil {
		t.Fatal(err)
	}
	f := freeRuns{gap: 1, meta: sorted(g.meta)}
	if err := g.free(&f); err != nil {
		t.Fatal(err)
	}
	f.end()
	return extent.Of(f.runs...)
}

// What a journal holds is mapped as if it had been replayed, by e2fsprogs' own
// replay and block by block.
func TestJournal(t *testing.T) {
	t.Parallel()
	for _, c := range logCases {
		t.Run(c.name, func(t *testing.T) {
			before, after, log := c.images(t)
			e, err := openExt(open(t, log))
			if err != nil {
				t.Fatal(err)
			}
			if e.log.transactions != 4 || e.log.checksums() != strings.Contains(c.open, "-c") {
				t.Errorf("%d transactions, features %#x", e.log.transactions, e.log.incompat)
			}
			replayed := duplicate(t, log)
			debugfs(t, replayed, "jr")
			want := contents(t, replayed)
			if len(e.log.latest) < 4 {
				t.Error(e.log.latest)
			}
			escapes := 0
			for n, l := range e.log.latest {
				b, err := e.block(n)
				if err != nil || !bytes.Equal(b, want[n*e.bs:][:e.bs]) {
					t.Errorf("block %d: %v, other contents than replayed", n, err)
				}
				if l.escape {
					escapes++
				}
			}
			if escapes != 1 {
				t.Errorf("%d escaped blocks", escapes)
			}
			was, err := openExt(open(t, before))
			if err != nil {
				t.Fatal(err)
			}
			is, err := openExt(open(t, after))
			if err != nil {
				t.Fatal(err)
			}
			if free := exact(t, e); !free.Equal(exact(t, is)) || free.Equal(exact(t, was)) {
				t.Error("the map is not that after the replay")
			}
			set, region := used(t, log)
			if region.Note != "4 transactions of its journal taken into account" {
				t.Errorf("%v", region)
			}
			if !sparseReplay(t, log, set, want, e) {
				t.Error("replayed on the copy, the used bytes differ")
			}
		})
	}
}

// sparseReplay replays the journal of a copy of the used bytes, and reports
// whether what is in use then is what it would be in a full copy.
func sparseReplay(t *testing.T, log string, set extent.Set, want []byte, e *ext) bool {
	dst := sparseCopy(t, log, set)
	debugfs(t, dst, "jr")
	got := contents(t, dst)
	copy(got[1024:2048], want[1024:2048]) // the time of the replay is in it
	for r := range exact(t, e).Complement(int64(len(want))).All() {
		if !bytes.Equal(got[r.Off:r.End()], want[r.Off:r.End()]) {
			return false
		}
	}
	return true
}

// A filesystem that was grown while it was mounted may be large in its journal
// alone: more groups, another superblock.
func TestJournalGrows(t *testing.T) {
	t.Parallel()
	grown := makeExt(t, 40*mib, tree(t), "-t", "ext4", "-b", "1024")
	if err := os.Truncate(grown, 90*mib); err != nil {
		t.Fatal(err)
	}
	log := duplicate(t, grown)
	treetest.Run(t, "resize2fs", grown, "90M")
	want, region := used(t, grown)
	if region.Free < 60*mib {
		t.Fatalf("%v", region)
	}
	// As the kernel logs it: with the mark of a filesystem in use.
	is, was := contents(t, grown), contents(t, log)
	is[1024+0x60] |= extRecover
	binary.LittleEndian.PutUint32(is[1024+0x3fc:], crc32c(^uint32(0), is[1024:][:0x3fc]))
	var blocks []string
	var logged []byte
	for n := 1; n < 90<<10; n++ {
		if b := is[n<<10:][:1<<10]; !bytes.Equal(b, was[n<<10:][:1<<10]) && n < 40<<10 {
			blocks = append(blocks, fmt.Sprint(n))
			logged = append(logged, b...)
		} else if !bytes.Equal(b, was[n<<10:][:1<<10]) {
			f, err := os.OpenFile(log, os.O_WRONLY, 0) // what is new lies in its place
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.WriteAt(b, int64(n)<<10); err != nil {
				t.Fatal(err)
			}
			f.Close()
		}
	}
	payload := filepath.Join(t.TempDir(), "blocks")
	if err := os.WriteFile(payload, logged, 0o600); err != nil {
		t.Fatal(err)
	}
	debugfs(t, log, "jo -c -v 3", fmt.Sprintf("jw -b %s %s", strings.Join(blocks, ","), payload), "jc")
	if set, after := used(t, log); !set.Equal(want) || after.Free != region.Free {
		t.Errorf("%v, want %v", after, region)
	}
}

// rotate moves the log round its ring so that it begins shift blocks later.
func rotate(t testing.TB, b []byte, j *journal, shift int64) {
	t.Helper()
	old := bytes.Clone(b)
	n := int64(j.last - j.first)
	place := func(i int64) int64 {
		block, err := j.where.find(int64(j.first) + i)
		if err != nil {
			t.Fatal(err)
		}
		return block * j.fs.bs
	}
	for i := range n {
		copy(b[place((i+shift)%n):][:j.fs.bs], old[place(i):][:j.fs.bs])
	}
	super, err := j.where.find(0)
	if err != nil {
		t.Fatal(err)
	}
	sb := b[super*j.fs.bs:][:1024]
	binary.BigEndian.PutUint32(sb[28:], uint32((int64(j.start-j.first)+shift)%n)+j.first)
	reseal(sb)
}

// reseal puts the right checksum into a journal's superblock.
func reseal(sb []byte) {
	clear(sb[0xfc:0x100])
	binary.BigEndian.PutUint32(sb[0xfc:], crc32c(^uint32(0), sb))
}

// A log that wraps round the end of the journal, at every place it can.
func TestJournalWraps(t *testing.T) {
	t.Parallel()
	_, _, log := logCases[6].images(t)
	b := contents(t, log)
	e, err := openExt(open(t, log))
	if err != nil {
		t.Fatal(err)
	}
	want := exact(t, e)
	n := int64(e.log.last - e.log.first)
	for shift := n - 60; shift <= n; shift++ {
		moved := bytes.Clone(b)
		rotate(t, moved, e.log, shift)
		again, err := openExt(disk{bytes.NewReader(moved), int64(len(moved))})
		if err != nil {
			t.Fatal(shift, err)
		}
		if again.log.transactions != 4 || !slices.Equal(slices.Sorted(maps.Keys(again.log.latest)), slices.Sorted(maps.Keys(e.log.latest))) || !exact(t, again).Equal(want) {
			t.Fatalf("moved by %d: %d transactions", shift, again.log.transactions)
		}
	}
}

// A journal that is damaged, or of a kind that is not known, is a reason to copy
// all.
func TestJournalDoubts(t *testing.T) {
	t.Parallel()
	_, _, log := logCases[6].images(t)
	e, err := openExt(open(t, log))
	if err != nil {
		t.Fatal(err)
	}
	at := func(b []byte, n uint32) []byte {
		block, err := e.log.where.find(int64(n))
		if err != nil {
			t.Fatal(err)
		}
		return b[block*e.bs:][:e.bs]
	}
	super := func(off int, set uint32) func(b []byte) {
		return func(b []byte) {
			sb := at(b, 0)[:1024]
			binary.BigEndian.PutUint32(sb[off:], set|binary.BigEndian.Uint32(sb[off:]))
			reseal(sb)
		}
	}
	inode := func(b []byte) []byte {
		d, err := e.descriptor(0, b[e.bs:][:e.bs])
		if err != nil {
			t.Fatal(err)
		}
		return b[d.inodeTable*e.bs+7*e.inodeSize:][:e.inodeSize]
	}
	for _, c := range []struct {
		name, want string
		damage     func(b []byte)
	}{
		{"an asynchronous commit", "feature incompat 0x4 of its journal", super(40, 4)},
		{"fast commits", "feature incompat 0x20 of its journal", super(40, 0x20)},
		{"checksums of transactions", "features 0x1 and 0x0 of its journal", super(36, 1)},
		{"an error", "recorded an error", super(32, 1)},
		{"a start beyond the end", "superblock of its journal makes no sense", super(28, 1<<30)},
		{"a bit of its superblock", "checksum of the superblock of its journal", func(b []byte) { at(b, 0)[60] ^= 1 }},
		{"no magic", "superblock of its journal makes no sense", func(b []byte) { clear(at(b, 0)[:4]) }},
		{"a bit of a descriptor", "checksum of a block in its journal", func(b []byte) { at(b, e.log.start)[40] ^= 1 }},
		{"a bit of a logged block", "checksum of a block in its journal", func(b []byte) { at(b, e.log.start+1)[99] ^= 1 }},
		{"a bit of its inode", "checksum of the inode of its journal", func(b []byte) { inode(b)[0x30] ^= 1 }},
	} {
		if region := change(t, log, c.damage); !strings.Contains(region.Whole, c.want) {
			t.Errorf("%s: %v, want %q", c.name, region, c.want)
		}
	}

	// A log that is not empty, in a filesystem that says it is.
	clean := change(t, log, func(b []byte) {
		b[1024+0x60] &^= extRecover
		binary.LittleEndian.PutUint32(b[1024+0x3fc:], crc32c(^uint32(0), b[1024:][:0x3fc]))
	})
	if !strings.Contains(clean.Whole, "its journal is not empty") {
		t.Errorf("%v", clean)
	}
}

// Any damage to the log is seen, or ends the log where replay would end it too:
// it never makes a map of something else.
func TestJournalDamage(t *testing.T) {
	t.Parallel()
	_, _, log := logCases[6].images(t)
	image := contents(t, log)
	e, err := openExt(open(t, log))
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(3, 4))
	doubts := 0
	for range 300 {
		block, err := e.log.where.find(int64(e.log.start) + rng.Int64N(20))
		if err != nil {
			t.Fatal(err)
		}
		bit := rng.Int64N(e.bs * 8)
		if rng.IntN(2) == 0 {
			bit = rng.Int64N(12 * 8) // of a header
		}
		place, mask := block*e.bs+bit/8, byte(1)<<(bit%8)
		image[place] ^= mask
		again, err := openExt(disk{bytes.NewReader(image), int64(len(image))})
		image[place] ^= mask
		if err != nil {
			doubts++
		} else if again.log.transactions > 4 {
			t.Error("a transaction out of nothing")
		}
	}
	if doubts < 100 {
		t.Errorf("only %d of 300 damaged logs were doubted", doubts)
	}
}
