package changed

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"xenlvm/lib/extent"
	"xenlvm/lib/lvm"
)

// storeOf is an exception store as the kernel writes it, with the chunks of the
// origin in the order in which they were written, and room for spare areas more.
func storeOf(chunk int, spare int, chunks ...int64) []byte {
	perArea := chunk / exception
	areas := len(chunks)/perArea + 1 + spare
	b := make([]byte, chunk*(1+areas*(perArea+1)))
	for i, word := range []uint32{storeMagic, 1, storeVersion, uint32(chunk / sector)} {
		binary.LittleEndian.PutUint32(b[4*i:], word)
	}
	for i, c := range chunks {
		area := 1 + i/perArea*(perArea+1)
		at := area*chunk + i%perArea*exception
		binary.LittleEndian.PutUint64(b[at:], uint64(c))
		binary.LittleEndian.PutUint64(b[at+8:], uint64(area+1+i%perArea))
	}
	return b
}

func exceptions(b []byte, chunk, origin int64) (extent.Set, error) {
	return Exceptions(bytes.NewReader(b), int64(len(b)), chunk, origin)
}

func TestExceptions(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		chunk := rapid.SampledFrom([]int{512, 4096, 8192}).Draw(t, "chunk")
		origin := rapid.Int64Range(1, 4000*int64(chunk)).Draw(t, "origin")
		last := (origin - 1) / int64(chunk)
		// An area holds 32, 256 or 512.
		n := rapid.OneOf(rapid.IntRange(0, 700), rapid.SampledFrom([]int{31, 32, 33, 255, 256, 257, 512})).Draw(t, "n")
		seed := rapid.Int64Range(1, 1<<30).Draw(t, "seed")
		var written []int64
		var want extent.Set
		for i := range int64(n) {
			c := (seed*i*i + 77*i) % (last + 1)
			written = append(written, c)
			want.Add(c*int64(chunk), int64(chunk))
		}
		got, err := exceptions(storeOf(chunk, rapid.IntRange(0, 2).Draw(t, "spare"), written...), int64(chunk), origin)
		if err != nil || !got.Equal(want.Clip(origin)) {
			t.Fatalf("%d exceptions: got %d bytes, want %d; %v", n, got.Bytes(), want.Bytes(), err)
		}
	})
}

// What cannot be a table of this origin is an error, never a smaller set.
func TestDamagedExceptions(t *testing.T) {
	const chunk, origin = 512, 1000 * 512
	many := make([]int64, 40) // one area is full, 8 are in the next
	for i := range many {
		many[i] = int64(i * 7)
	}
	put32 := func(at int, v uint32) func([]byte) []byte {
		return func(b []byte) []byte { binary.LittleEndian.PutUint32(b[at:], v); return b }
	}
	put64 := func(at int, v uint64) func([]byte) []byte {
		return func(b []byte) []byte { binary.LittleEndian.PutUint64(b[at:], v); return b }
	}
	for name, c := range map[string]struct {
		damage func([]byte) []byte
		say    string
	}{
		"no header":          {put32(0, 0), "no header"},
		"another header":     {put32(0, 0x4d2), "no header"},
		"lost":               {put32(4, 0), lvm.ErrLost.Error()},
		"valid 2":            {put32(4, 2), "neither valid nor lost"},
		"version 2":          {put32(8, 2), "version is 2"},
		"other chunks":       {put32(12, 8), "chunks have 4096 bytes"},
		"beyond the origin":  {put64(512+3*16, 1000), "it has chunk 1000 of the origin's 1000"},
		"far beyond":         {put64(512+3*16, 1<<63), "it has chunk 9223372036854775808"},
		"beyond the store":   {put64(512+3*16+8, 1<<40), "in chunk 1099511627776 of its"},
		"into an area":       {put64(512+3*16+8, 34), "in chunk 34 of its"},
		"into the header":    {put64(512*34+16+8, 1), "in chunk 1 of its"},
		"cut in the header":  {func(b []byte) []byte { return b[:10] }, "unexpected EOF"},
		"cut after an area":  {func(b []byte) []byte { return b[:512*34] }, "no end within its 34 chunks"},
		"cut in an area":     {func(b []byte) []byte { return b[:512*34+100] }, "no end within its 34 chunks"},
		"nothing but header": {func(b []byte) []byte { return b[:4096] }, "of its 8"},
	} {
		b := c.damage(storeOf(chunk, 0, many...))
		got, err := exceptions(b, chunk, origin)
		if err == nil || !strings.Contains(err.Error(), c.say) {
			t.Errorf("%s: %d bytes, %v; want %q", name, got.Bytes(), err, c.say)
		}
		if errors.Is(err, lvm.ErrLost) != (name == "lost") {
			t.Errorf("%s: is ErrLost: %v", name, err)
		}
	}
	for _, chunk := range []int64{0, -512, 100, 3 * 512, 32 << 20} {
		if _, err := exceptions(storeOf(512, 0), chunk, origin); err == nil {
			t.Errorf("chunks of %d bytes were read", chunk)
		}
	}
	// A table that never ends is read once.
	endless := &endlessStore{head: storeOf(chunk, 0)[:512]}
	if _, err := Exceptions(endless, 1<<20, chunk, origin); err == nil || endless.reads > 100 {
		t.Errorf("a table without end: %v after %d reads", err, endless.reads)
	}
}

// endlessStore has the same full area everywhere.
type endlessStore struct {
	head  []byte
	reads int
}

func (s *endlessStore) ReadAt(p []byte, off int64) (int, error) {
	s.reads++
	for i := 8; i < len(p); i += exception {
		p[i] = 2
	}
	if off == 0 {
		copy(p, s.head)
	}
	return len(p), nil
}

// failing fails to read anything but the header.
type failing struct{ io.ReaderAt }

func (f failing) ReadAt(p []byte, off int64) (int, error) {
	if off > 0 {
		return 0, errors.New("the disk is broken")
	}
	return f.ReaderAt.ReadAt(p, off)
}

func TestUnreadableExceptions(t *testing.T) {
	b := storeOf(512, 0, 1, 2, 3)
	if _, err := Exceptions(failing{bytes.NewReader(b)}, int64(len(b)), 512, 1<<20); err == nil || !strings.Contains(err.Error(), "the disk is broken") {
		t.Errorf("a read error: %v", err)
	}
}

// Random damage never makes the parser panic or run away.
func TestGarbageExceptions(t *testing.T) {
	whole := storeOf(512, 1, 5, 9, 1, 700, 3)
	rapid.Check(t, func(t *rapid.T) {
		b := bytes.Clone(whole)
		for range rapid.IntRange(1, 20).Draw(t, "n") {
			b[rapid.IntRange(0, 2*512).Draw(t, "at")] = rapid.Byte().Draw(t, "byte")
		}
		got, err := exceptions(b[:rapid.IntRange(0, len(b)).Draw(t, "length")], 512, 1000*512)
		if err == nil && got.End() > 1000*512 {
			t.Fatalf("it reaches to %d", got.End())
		}
	})
}
