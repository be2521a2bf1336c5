package blockcopy

import (
	"context"
	"testing"
)

const benchSize = 256 << 20

// report adds what a copy did to the line of the benchmark.
func report(b *testing.B, st Stats) {
	b.ReportMetric(float64(st.BytesRead), "read-bytes/op")
	b.ReportMetric(float64(st.BytesWritten), "written-bytes/op")
}

// BenchmarkCopy is a first copy of 256 MiB of random data from memory.
func BenchmarkCopy(b *testing.B) {
	src := all(noise(benchSize, 1))
	dst := scratch(b, nil)
	b.SetBytes(benchSize)
	var st Stats
	for b.Loop() {
		var err error
		if st, _, err = Copy(context.Background(), dst, src, Options{}); err != nil {
			b.Fatal(err)
		}
	}
	report(b, st)
}

// BenchmarkDelta is a second copy in which one block in 256 changed.
func BenchmarkDelta(b *testing.B) {
	src := all(noise(benchSize, 1))
	dst := scratch(b, nil)
	_, sums, err := Copy(context.Background(), dst, src, Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(benchSize)
	var st Stats
	for b.Loop() {
		b.StopTimer()
		for off := 0; off < benchSize; off += 256 * minBlock {
			src.b[off]++
		}
		b.StartTimer()
		if st, sums, err = Copy(context.Background(), dst, src, Options{Before: sums}); err != nil {
			b.Fatal(err)
		}
	}
	report(b, st)
}

// BenchmarkVerify reads the destination back.
func BenchmarkVerify(b *testing.B) {
	dst := scratch(b, nil)
	_, sums, err := Copy(context.Background(), dst, all(noise(benchSize, 1)), Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(benchSize)
	for b.Loop() {
		if err := Verify(context.Background(), dst, sums, nil, Options{}); err != nil {
			b.Fatal(err)
		}
	}
}
