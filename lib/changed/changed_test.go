package changed

import (
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"xenlvm/lib/extent"
)

// world is a small volume and the place of each byte of a file on it: -1 reads as zero.
const world = 64

// drawFile is a file of up to world bytes, in pieces that lie anywhere.
func drawFile(t *rapid.T, name string) []int64 {
	size := rapid.IntRange(0, world).Draw(t, name+" size")
	file := make([]int64, size)
	for i := range file {
		file[i] = -1
	}
	for range rapid.IntRange(0, 6).Draw(t, name+" pieces") {
		off := rapid.IntRange(0, world-1).Draw(t, name+" offset")
		n := rapid.IntRange(1, 24).Draw(t, name+" length")
		physical := rapid.Int64Range(0, world-1).Draw(t, name+" physical")
		for i := range n {
			if off+i < size && physical+int64(i) < world {
				file[off+i] = physical + int64(i)
			}
		}
	}
	return file
}

// mapOf is the file's map, split at random places, as file systems do.
func mapOf(t *rapid.T, file []int64) Map {
	m := Map{Size: int64(len(file))}
	for i, p := range file {
		if p < 0 {
			continue
		}
		if n := len(m.Data); n > 0 && m.Data[n-1].End() == int64(i) && m.Data[n-1].Physical+m.Data[n-1].Len == p && !rapid.Bool().Draw(t, "split") {
			m.Data[n-1].Len++
			continue
		}
		m.Data = append(m.Data, Extent{extent.Range{Off: int64(i), Len: 1}, p})
	}
	return m
}

// TestBetween compares with what is asked for each byte by itself.
func TestBetween(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		before, after := drawFile(t, "before"), drawFile(t, "after")
		if rapid.Bool().Draw(t, "alike") { // or nothing would ever stay
			after = append([]int64(nil), before...)
			for range rapid.IntRange(0, 4).Draw(t, "moves") {
				if len(after) > 0 {
					after[rapid.IntRange(0, len(after)-1).Draw(t, "move")] = rapid.Int64Range(-1, world-1).Draw(t, "to")
				}
			}
			after = after[:rapid.IntRange(0, len(after)).Draw(t, "cut")]
		}
		var written extent.Set
		for range rapid.IntRange(0, 5).Draw(t, "writes") {
			written.Add(rapid.Int64Range(0, world).Draw(t, "write"), rapid.Int64Range(0, 10).Draw(t, "bytes"))
		}
		got := Between(mapOf(t, before), mapOf(t, after), written)
		for i := range int64(world) {
			want := false
			switch {
			case i >= int64(len(after)):
			case i >= int64(len(before)):
				want = true
			default:
				want = before[i] != after[i] || after[i] >= 0 && written.Contains(after[i])
			}
			if got.Contains(i) != want {
				t.Fatalf("byte %d: %v, want %v\nbefore %v\nafter %v\nwritten %v\ngot %v", i, got.Contains(i), want, before, after, written, got)
			}
		}
		if got.End() > int64(len(after)) {
			t.Fatalf("it reaches to %d of %d", got.End(), len(after))
		}
	})
}

// What has no place is never where it was.
func TestPendingChanged(t *testing.T) {
	data := Map{Size: 100, Data: []Extent{{extent.Range{Off: 0, Len: 100}, 500}}}
	pending := Map{Size: 100, Data: []Extent{{extent.Range{Off: 0, Len: 40}, 500}}, Pending: extent.Of(extent.Range{Off: 60, Len: 40})}
	want := extent.Of(extent.Range{Off: 40, Len: 60})
	if got := Between(data, pending, extent.Set{}); !got.Equal(want) {
		t.Errorf("became pending: %v", got)
	}
	if got := Between(pending, pending, extent.Set{}); !got.Equal(pending.Pending) {
		t.Errorf("pending twice: %v", got)
	}
}

func TestMapAdd(t *testing.T) {
	e := func(logical, physical, length uint64, flags uint32) fiemapExtent {
		return fiemapExtent{logical: logical, physical: physical, length: length, flags: flags}
	}
	for name, c := range map[string]struct {
		extents []fiemapExtent
		want    []Extent
		bad     bool
	}{
		"ascending":            {[]fiemapExtent{e(0, 4096, 4096, 0), e(8192, 65536, 1808, extentLast)}, []Extent{{extent.Range{Off: 0, Len: 4096}, 4096}, {extent.Range{Off: 8192, Len: 1808}, 65536}}, false},
		"cut at the end":       {[]fiemapExtent{e(8192, 65536, 4096, 0)}, []Extent{{extent.Range{Off: 8192, Len: 1808}, 65536}}, false},
		"beyond the end":       {[]fiemapExtent{e(12288, 65536, 4096, 0x6)}, nil, false},
		"unwritten":            {[]fiemapExtent{e(0, 4096, 4096, extentUnwritten)}, nil, false},
		"shared, merged":       {[]fiemapExtent{e(0, 4096, 4096, extentShared|extentMerged)}, []Extent{{extent.Range{Off: 0, Len: 4096}, 4096}}, false},
		"grown meanwhile":      {[]fiemapExtent{e(0, 4096, 4096, 0), e(0, 4096, 8192, 0)}, []Extent{{extent.Range{Off: 0, Len: 8192}, 4096}}, false},
		"the same again":       {[]fiemapExtent{e(0, 4096, 4096, 0), e(0, 4096, 4096, 0)}, nil, true},
		"backwards":            {[]fiemapExtent{e(8192, 4096, 1024, 0), e(0, 8192, 4096, 0)}, nil, true},
		"empty":                {[]fiemapExtent{e(0, 4096, 0, 0)}, nil, true},
		"too large":            {[]fiemapExtent{e(0, 4096, 1<<63, 0)}, nil, true},
		"physical too large":   {[]fiemapExtent{e(0, 1<<63-1, 4096, 0)}, nil, true},
		"unknown":              {[]fiemapExtent{e(0, 0, 4096, 0x2)}, nil, true},
		"pending, beside data": {[]fiemapExtent{e(0, 4096, 4096, 0), e(4096, 0, 8192, 0x6)}, []Extent{{extent.Range{Off: 0, Len: 4096}, 4096}}, false},
		"encoded":              {[]fiemapExtent{e(0, 4096, 4096, 0x8)}, nil, true},
		"encrypted":            {[]fiemapExtent{e(0, 4096, 4096, 0x88)}, nil, true},
		"not aligned":          {[]fiemapExtent{e(0, 4096, 4096, 0x100)}, nil, true},
		"inline":               {[]fiemapExtent{e(0, 0, 100, 0x200)}, nil, true},
		"tail":                 {[]fiemapExtent{e(0, 4096, 4096, 0x400)}, nil, true},
		"a flag of the future": {[]fiemapExtent{e(0, 4096, 4096, 0x10000)}, nil, true},
	} {
		m, at := Map{Size: 10000}, int64(0)
		var err error
		for _, x := range c.extents {
			if at, err = m.add(x, at); err != nil {
				break
			}
		}
		if (err != nil) != c.bad || !c.bad && !slices.Equal(m.Data, c.want) {
			t.Errorf("%s: %v, %v; want %v", name, m.Data, err, c.want)
		}
		if want := extent.Of(extent.Range{Off: 4096, Len: 5904}); name == "pending, beside data" && !m.Pending.Equal(want) {
			t.Errorf("pending: %v; want %v", m.Pending, want)
		}
		if err != nil && !errors.Is(err, ErrNoMap) {
			t.Errorf("%s: not recognisable: %v", name, err)
		}
	}
}
