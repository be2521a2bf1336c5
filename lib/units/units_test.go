package units

import (
	"math"
	"testing"
)

func TestParse(t *testing.T) {
	for in, want := range map[string]Bytes{
		"0": 0, "512": 512, "1b": 1, "8s": 4096, "64k": 65536, "64K": 65536, "4m": 4 << 20, "1.5G": 3 << 29,
		"2GiB": 2 << 30, "1t": 1 << 40, " 5G ": 5 << 30, "1E": 1 << 60,
	} {
		if got, err := Parse(in); err != nil || got != want {
			t.Errorf("Parse(%q) = %d, %v; want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"", "G", "-1", "1x", "0x10", "nan", "inf", "9e30", "1 2", "1_000", "10%"} {
		if got, err := Parse(in); err == nil {
			t.Errorf("Parse(%q) = %d; want an error", in, got)
		}
	}
}

func TestShare(t *testing.T) {
	for in, want := range map[string]Bytes{"10%": 100, "10%ORIGIN": 100, "12.5%origin": 125, "64": 64} {
		s, err := ParseShare(in)
		if got := s.Of(1000); err != nil || got != want {
			t.Errorf("ParseShare(%q).Of(1000) = %d, %v; want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"%", "0%", "101%", "-1%", "10%VG", "x%"} {
		if s, err := ParseShare(in); err == nil {
			t.Errorf("ParseShare(%q) = %v; want an error", in, s)
		}
	}
}

func TestCount(t *testing.T) {
	for in, want := range map[string]Bytes{"0": 0, "8": 4096, "18014398509481983": 1<<63 - 512} {
		if got, err := Count(in, Sector); err != nil || got != want {
			t.Errorf("Count(%q) = %d, %v; want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"", "-1", "x", "1.5", " 1", "18014398509481984", "9223372036854775808"} {
		if got, err := Count(in, Sector); err == nil || got != 0 {
			t.Errorf("Count(%q) = %d, %v; want an error", in, got, err)
		}
	}
}

func TestString(t *testing.T) {
	for in, want := range map[Bytes]string{
		0: "0 B", 1023: "1023 B", 1024: "1.00 KiB", 1536: "1.50 KiB", 1 << 20: "1.00 MiB", 1023 << 10: "1.00 MiB",
		825 << 20: "825 MiB", 3 << 29: "1.50 GiB", 20 << 30: "20.0 GiB", 1<<63 - 1: "8.00 EiB",
	} {
		if got := in.String(); got != want {
			t.Errorf("Bytes(%d).String() = %q; want %q", int64(in), got, want)
		}
	}
}

func TestRoundUp(t *testing.T) {
	for _, tt := range []struct{ b, unit, want Bytes }{{0, 4, 0}, {1, 4, 4}, {4, 4, 4}, {5, 4, 8}, {math.MaxInt64 - 1, 4 << 20, math.MaxInt64 / (4 << 20) * (4 << 20)}} {
		if got := tt.b.RoundUp(tt.unit); got != tt.want {
			t.Errorf("%d.RoundUp(%d) = %d; want %d", tt.b, tt.unit, got, tt.want)
		}
	}
}
