// Package units reads and prints byte sizes the way LVM users write them:
// letters are powers of 1024 whatever their case, s is a 512-byte sector.
package units

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Bytes is a size in bytes. It is never negative.
type Bytes int64

// Sector is the unit in which Linux counts block devices.
const Sector Bytes = 512

const letters = "bskmgtpe"

// Parse reads "4194304", "64k", "1.5G", "2GiB", "8192s".
func Parse(s string) (Bytes, error) {
	number := strings.ToLower(strings.TrimSpace(s))
	number = strings.TrimSuffix(number, "ib")
	factor := 1.0
	if n := len(number); n > 0 {
		switch i := strings.IndexByte(letters, number[n-1]); {
		case i < 0:
		case i == 0:
			number = number[:n-1]
		case i == 1:
			number, factor = number[:n-1], float64(Sector)
		default:
			number, factor = number[:n-1], math.Pow(1024, float64(i-1))
		}
	}
	v, err := strconv.ParseFloat(number, 64)
	if err != nil || v < 0 || math.IsNaN(v) || math.IsInf(v, 0) || strings.ContainsAny(number, "xp_") {
		return 0, fmt.Errorf("cannot read size %q: want a number with b, s, k, M, G or T", s)
	}
	if v*factor >= math.MaxInt64 {
		return 0, fmt.Errorf("cannot read size %q: too large", s)
	}
	return Bytes(v * factor), nil
}

// Count reads a number of units, as the kernel and LVM print sizes: so many bytes
// they are together. What is negative, or too large for Bytes, is an error.
func Count(s string, unit Bytes) (Bytes, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64/int64(unit) {
		return 0, fmt.Errorf("%q is no number of units of %s", s, unit)
	}
	return Bytes(n) * unit, nil
}

// Share is a size, or a percentage of something else's size.
type Share struct {
	Size    Bytes
	Percent float64 // of the whole; 0 when Size is meant
}

// ParseShare reads a size, or a percentage such as "10%" or "10%ORIGIN".
func ParseShare(s string) (Share, error) {
	number, of, found := strings.Cut(s, "%")
	if !found {
		size, err := Parse(s)
		return Share{Size: size}, err
	}
	v, err := strconv.ParseFloat(number, 64)
	if err != nil || !(v > 0 && v <= 100) || of != "" && !strings.EqualFold(of, "ORIGIN") {
		return Share{}, fmt.Errorf("cannot read share %q: want a percentage of the origin such as 10%%ORIGIN", s)
	}
	return Share{Percent: v}, nil
}

// Of is the share in bytes of a whole.
func (s Share) Of(whole Bytes) Bytes {
	if s.Percent > 0 {
		return Bytes(float64(whole) * s.Percent / 100)
	}
	return s.Size
}

// String prints three significant digits with a binary unit: "1.46 GiB".
func (b Bytes) String() string {
	if b < 1024 {
		return fmt.Sprintf("%d B", int64(b))
	}
	v, i := float64(b), 0
	for v >= 999.5 && i < 6 {
		v /= 1024
		i++
	}
	switch unit := "KMGTPE"[i-1 : i]; {
	case v < 9.995:
		return fmt.Sprintf("%.2f %siB", v, unit)
	case v < 99.95:
		return fmt.Sprintf("%.1f %siB", v, unit)
	default:
		return fmt.Sprintf("%.0f %siB", v, unit)
	}
}

// RoundUp is the smallest multiple of unit that holds b, or the largest there is.
func (b Bytes) RoundUp(unit Bytes) Bytes {
	down := b / unit * unit
	if down == b || down > math.MaxInt64-unit {
		return down
	}
	return down + unit
}
