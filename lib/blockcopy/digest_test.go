package blockcopy

import (
	"bytes"
	"context"
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"github.com/zeebo/xxh3"
)

func someDigests(t *testing.T, b []byte) *Digests {
	t.Helper()
	_, d, err := Copy(context.Background(), scratch(t, nil), all(b), Options{BlockSize: 4096})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestDigestFile(t *testing.T) {
	b := noise(50*4096+17, 1)
	clear(b[8192:20000])
	d := someDigests(t, b)
	file := marshal(t, d)
	again, err := ReadDigests(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(marshal(t, again), file) || again.size != d.size || again.block != 4096 {
		t.Error("not the same after a round trip")
	}
	// It serves a delta as the original does.
	dst := scratch(t, b)
	b[5] ^= 1
	st, _, err := Copy(context.Background(), dst, all(b), Options{Before: again})
	if err != nil || st.BytesWritten != 4096 {
		t.Errorf("%+v, %v", st, err)
	}
}

// someKnown is digests that know blocks 0, 64 to 129 and the last.
func someKnown(t *testing.T) *Digests {
	t.Helper()
	d := someDigests(t, noise(200*4096+17, 1))
	d.known = newBlockSet(201)
	d.known.add(0, 1)
	d.known.add(64, 130)
	d.known.add(200, 201)
	return d
}

// A partial set survives its file, and takes the room of what it knows.
func TestPartialDigestFile(t *testing.T) {
	d := someKnown(t)
	file := marshal(t, d)
	if want := headerLen + 16 + 2*4*8 + 68*16 + 16; len(file) != want {
		t.Errorf("%d bytes, want %d", len(file), want)
	}
	again, err := ReadDigests(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(marshal(t, again), file) || !again.Unknown().Equal(d.Unknown()) || again.Unknown().Bytes() != (201-68)*4096 {
		t.Error("not the same after a round trip")
	}
	for i := range d.sums {
		if again.knows(int64(i)) && again.sums[i] != d.sums[i] {
			t.Errorf("block %d has another digest", i)
		}
	}
}

// Any single bit, any truncation and any addition is found.
func TestDamagedDigestFile(t *testing.T) {
	damage(t, marshal(t, someDigests(t, noise(20*4096, 1))))
	damage(t, marshal(t, someKnown(t)))
}

func damage(t *testing.T, file []byte) {
	t.Helper()
	for i := range file {
		bad := bytes.Clone(file)
		bad[i] ^= 1 << (i % 8)
		if _, err := ReadDigests(bytes.NewReader(bad)); err == nil || !strings.HasPrefix(err.Error(), "cannot read digests: ") {
			t.Fatalf("byte %d changed: %v", i, err)
		}
		if _, err := ReadDigests(bytes.NewReader(file[:i])); err == nil || !strings.Contains(err.Error(), "truncated") {
			t.Fatalf("cut off at %d: %v", i, err)
		}
	}
	if _, err := ReadDigests(bytes.NewReader(append(file, 0))); err == nil {
		t.Error("a byte more went unnoticed")
	}
}

// header makes a digest file of consistent checksum and no content.
func header(version, block uint32, size, count, flags uint64) []byte {
	h := binary.LittleEndian.AppendUint32([]byte(digestMagic), version)
	h = binary.LittleEndian.AppendUint32(h, block)
	h = binary.LittleEndian.AppendUint64(h, size)
	h = binary.LittleEndian.AppendUint64(h, 1)
	h = binary.LittleEndian.AppendUint64(h, count)
	h = binary.LittleEndian.AppendUint64(h, flags)
	sum := xxh3.Hash128(h).Bytes()
	return append(h, sum[:]...)
}

func TestForeignDigestFile(t *testing.T) {
	for _, c := range []struct {
		name, reason string
		file         []byte
	}{
		{"newer", "format version 3 is not known", header(3, 4096, 0, 0, 0)},
		{"block size", "block size 4095", header(1, 4095, 0, 0, 0)},
		{"count", "3 digests do not describe 4096 bytes", header(1, 4096, 4096, 3, 0)},
		{"negative size", "do not describe", header(1, 4096, 1<<63, 1<<51, 0)},
		{"a disk of exabytes", "truncated", header(1, 4096, 1<<62, 1<<50, 0)},
		{"flags", "flags 0x4 are not known", header(1, 4096, 0, 0, 4)},
		{"partial, of exabytes", "truncated", header(2, 4096, 1<<62, 1<<50, 0)},
		{"bits behind the end", "behind the end", append(header(2, 4096, 4096, 1, 0), 0, 0, 0, 0, 0, 0, 0, 1)},
		{"a sum of what is not known", "where it should not", withSum(append(header(2, 4096, 4096, 1, 2), append(append(make([]byte, 8), 1, 0, 0, 0, 0, 0, 0, 0), bytes.Repeat([]byte{7}, 16)...)...))},
		{"something else", "not a digest file", bytes.Repeat([]byte("x"), 100)},
	} {
		if _, err := ReadDigests(bytes.NewReader(c.file)); err == nil || !strings.Contains(err.Error(), c.reason) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// withSum ends a digest file.
func withSum(file []byte) []byte {
	sum := xxh3.Hash128(file).Bytes()
	return append(file, sum[:]...)
}

// What the version before wrote is read.
func TestVersion1(t *testing.T) {
	file := header(1, 4096, 3*4096, 3, 1)
	file = append(file, make([]byte, 16)...)
	file = append(file, bytes.Repeat([]byte{7}, 32)...)
	d, err := ReadDigests(bytes.NewReader(withSum(file)))
	if err != nil {
		t.Fatal(err)
	}
	if d.sums[0] != (Sum{}) || d.sums[2] != Sum(bytes.Repeat([]byte{7}, 16)) || d.known != nil || !d.restUnknown {
		t.Errorf("%+v", d)
	}
}

// The holes of a large image take no room.
func TestDigestFileOfHoles(t *testing.T) {
	if n := len(marshal(t, newDigests(4<<30, 4096))); n > 140000 {
		t.Errorf("%d bytes for 4 GiB of zeros", n)
	}
}

// Two sets of one source have different seeds, and so different digests.
func TestSeeds(t *testing.T) {
	b := noise(4096, 1)
	if a, z := someDigests(t, b), someDigests(t, b); a.sums[0] == z.sums[0] {
		t.Error("equal digests")
	}
	d := someDigests(t, b)
	if d.sums[0] == (Sum{}) || d.sums[0].String() == "zeros" || (Sum{}).String() != "zeros" {
		t.Errorf("%s", d.sums[0])
	}
}

func TestBlockSizes(t *testing.T) {
	for _, c := range []struct {
		size int64
		want int
	}{{0, 4096}, {4 << 30, 4096}, {4<<30 + 1, 8192}, {64 << 30, 65536}, {1 << 40, 1 << 20}, {1 << 50, 8 << 20}} {
		if got := blockFor(c.size); got != c.want {
			t.Errorf("%d bytes: blocks of %d, want %d", c.size, got, c.want)
		}
	}
}

// Whatever a file holds, it is read or refused, and what was read is a set that
// another file brings back.
func FuzzReadDigests(f *testing.F) {
	d := newDigests(5*4096+1, 4096)
	d.sums[2] = Sum{1}
	var all, partial bytes.Buffer
	_, _ = d.WriteTo(&all)
	d.known = newBlockSet(6)
	d.known.add(1, 3)
	_, _ = d.WriteTo(&partial)
	f.Add(all.Bytes())
	f.Add(partial.Bytes())
	f.Add(header(2, 4096, 1<<62, 1<<50, 0))
	f.Fuzz(func(t *testing.T, file []byte) {
		for _, file := range [][]byte{file, withSum(file)} {
			d, err := ReadDigests(bytes.NewReader(file))
			if err != nil {
				continue
			}
			again, err := ReadDigests(bytes.NewReader(marshal(t, d)))
			if err != nil || !slices.Equal(again.sums, d.sums) || !again.Unknown().Equal(d.Unknown()) {
				t.Errorf("not the same after a round trip: %v", err)
			}
		}
	})
}
