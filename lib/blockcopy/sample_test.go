package blockcopy

import (
	"errors"
	"testing"
)

// sampled is an image of data, zeros and a hole, and a larger destination.
func sampled() *image {
	b := noise(20<<20, 1)
	clear(b[5<<20 : 15<<20])
	return all(b)
}

// A destination that is as described passes; one in which a kind of block differs
// does not: of data, of zeros, an end of the source, the end of the destination.
func TestSample(t *testing.T) {
	src := sampled()
	for _, c := range []struct {
		name   string
		off, n int64
		found  bool
	}{
		{"nothing", 0, 0, false},
		{"data", 1 << 20, 4 << 20, true},
		{"zeros", 5 << 20, 10 << 20, true},
		{"first byte", 0, 1, true},
		{"last byte of the source", 20<<20 - 1, 1, true},
		{"behind the source", 20 << 20, 1, true},
		{"last byte of the destination", 30<<20 - 1, 1, true},
	} {
		dst := scratch(t, noise(30<<20, 2))
		sums := copyAll(t, dst, src.b, nil)
		if _, err := dst.WriteAt(noise(int(c.n), 3), c.off); err != nil {
			t.Fatal(err)
		}
		err := Sample(t.Context(), dst, sums, 2000, Options{})
		var m *MismatchError
		if errors.As(err, &m) != c.found || err != nil && m == nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// A sample is small, and another one each time.
func TestSampleIsRandom(t *testing.T) {
	dst := scratch(t, nil)
	sums := copyAll(t, dst, noise(40<<20, 1), nil)
	a, b := sums.random(8), sums.random(8)
	if a.Equal(b) || a.Bytes() > 8*2*sampleSize || a.Empty() {
		t.Errorf("%v, then %v", a, b)
	}
	read := int64(0)
	if err := Sample(t.Context(), dst, sums, 8, Options{Progress: func(p Progress) { read = p.Read }}); err != nil || read == 0 || read > 4*edgeSize+8*2*sampleSize {
		t.Errorf("%d bytes read, %v", read, err)
	}
}

// What is not known is not looked at.
func TestSampleOfPartialDigests(t *testing.T) {
	src := sampled()
	part := stopped(t, scratch(t, noise(30<<20, 2)), src, serial, 8<<20)
	dst := scratch(t, noise(30<<20, 2))
	if _, err := dst.WriteAt(src.b[:part.Unknown().Complement(src.Size()).End()], 0); err != nil {
		t.Fatal(err)
	}
	if err := Sample(t.Context(), dst, part, 2000, Options{}); err != nil {
		t.Error(err)
	}
}
