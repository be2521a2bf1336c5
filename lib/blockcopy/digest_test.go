package blockcopy

import (
	"bytes"
	"context"
	"encoding/binary"
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

// Any single bit, any truncation and any addition is found.
func TestDamagedDigestFile(t *testing.T) {
	file := marshal(t, someDigests(t, noise(20*4096, 1)))
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
		{"newer", "format version 2 is not known", header(2, 4096, 0, 0, 0)},
		{"block size", "block size 4095", header(1, 4095, 0, 0, 0)},
		{"count", "3 digests do not describe 4096 bytes", header(1, 4096, 4096, 3, 0)},
		{"negative size", "do not describe", header(1, 4096, 1<<63, 1<<51, 0)},
		{"a disk of exabytes", "truncated", header(1, 4096, 1<<62, 1<<50, 0)},
		{"flags", "flags 0x4 are not known", header(1, 4096, 0, 0, 4)},
		{"something else", "not a digest file", bytes.Repeat([]byte("x"), 100)},
	} {
		if _, err := ReadDigests(bytes.NewReader(c.file)); err == nil || !strings.Contains(err.Error(), c.reason) {
			t.Errorf("%s: %v", c.name, err)
		}
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
	}{{0, 65536}, {64 << 30, 65536}, {65 << 30, 131072}, {1 << 40, 1 << 20}, {1 << 50, 1 << 20}} {
		if got := blockFor(c.size); got != c.want {
			t.Errorf("%d bytes: blocks of %d, want %d", c.size, got, c.want)
		}
	}
}
