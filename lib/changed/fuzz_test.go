package changed

import (
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"xenlvm/lib/extent"
)

// FuzzExceptions holds of any COW space with chunks of 512 bytes: it is refused, or
// exactly what its table lists before its end is in the set, and nothing beyond the
// origin.
func FuzzExceptions(f *testing.F) {
	f.Add(storeOf(512, 0, 5, 9, 1), int64(1000*512))
	many := make([]int64, 40) // one area is full, 8 are in the next
	for i := range many {
		many[i] = int64(i * 7)
	}
	f.Add(storeOf(512, 1, many...), int64(300*512-100))
	f.Fuzz(func(t *testing.T, b []byte, origin int64) {
		if origin <= 0 || origin > 1<<30 { // LVM tells it, and not the table
			return
		}
		got, err := exceptions(b, 512, origin)
		if err != nil {
			if !got.Empty() || strings.Contains(err.Error(), "\n") {
				t.Fatalf("%d bytes, %v", got.Bytes(), err)
			}
			return
		}
		if want := listed(b).Clip(origin); !got.Equal(want) {
			t.Fatalf("got %d bytes, the table lists %d", got.Bytes(), want.Bytes())
		}
	})
}

// listed is every exception of a table that is whole, without a question.
func listed(b []byte) (set extent.Set) {
	for area := 512; ; area += 33 * 512 {
		for at := area; at < area+512; at += 16 {
			if binary.LittleEndian.Uint64(b[at+8:]) == 0 {
				return set
			}
			set.Add(int64(binary.LittleEndian.Uint64(b[at:]))*512, 512)
		}
	}
}

// FuzzThinDelta holds of whatever thin_delta may print: it is refused in one line, or
// the set has whole blocks of the pool, and nothing beyond the volume.
func FuzzThinDelta(f *testing.F) {
	f.Add(deltaXML)
	f.Fuzz(func(t *testing.T, text string) {
		const size = 1<<30 + 512
		got, err := ThinDelta(strings.NewReader(text), size)
		if err != nil {
			if !got.Empty() || strings.Contains(err.Error(), "\n") {
				t.Fatalf("%d bytes, %q", got.Bytes(), err)
			}
			return
		}
		for _, r := range slices.Collect(got.All()) {
			if r.Off%(64<<10) != 0 || r.End()%(64<<10) != 0 && r.End() != size || r.End() > size {
				t.Fatalf("%+v is no block", r)
			}
		}
	})
}
