package xlcfg

import (
	"math"
	"strings"
)

// DevID returns the number by which Xen knows a virtual disk, the one in
// xenstore's device/vbd/ID. Spellings with the same number are one device:
// xvda, d0p0, 51712 and 0xca00. It is false for a name that Xen cannot number.
//
// The encoding is that of xen-vbd-interface(7); the reading follows
// libxl__device_disk_dev_number, which uses C's scanf and strtoul.
func DevID(vdev string) (int, bool) {
	disk, part, ok := scanDP(vdev)
	if !ok {
		disk, part, ok = letters(vdev, "xvd", 1<<20-1, 255)
	}
	if ok {
		if disk <= 15 && part <= 15 {
			return number(202<<8 | disk<<4 | part)
		}
		return number(1<<28 | disk<<8 | part)
	}
	if u, negative, n := strtoul(vdev, 0); n == len(vdev) && (!negative || u == 0) && u <= math.MaxInt32 {
		return int(u), true
	}
	if disk, part, ok := letters(vdev, "hd", 3, 63); ok {
		major := 3
		if disk >= 2 {
			major = 22
		}
		return number(major<<8 | disk&1<<6 | part)
	}
	if disk, part, ok := letters(vdev, "sd", 15, 15); ok {
		return number(8<<8 | disk<<4 | part)
	}
	return 0, false
}

// number refuses what a name without a letter comes out as, except "hd": that
// is hdb to libxl.
func number(id int) (int, bool) { return max(id, 0), id >= 0 }

// SameDevice tells whether two names stand for one virtual disk.
func SameDevice(a, b string) bool { return identity(a) == identity(b) }

// devKey is a vdev in a form that can be compared: its number, or its name
// where Xen has no number for it.
type devKey struct {
	id   int
	name string
}

func identity(vdev string) devKey {
	if id, ok := DevID(vdev); ok {
		return devKey{id: id}
	}
	return devKey{name: vdev}
}

// scanDP reads dNpM, as scanf's "d%ip%i".
func scanDP(s string) (disk, part int, ok bool) {
	if len(s) == 0 || s[0] != 'd' {
		return 0, 0, false
	}
	d, negative, n := strtoul(s[1:], 0)
	s = s[1+n:]
	if n == 0 || negative || len(s) == 0 || s[0] != 'p' {
		return 0, 0, false
	}
	p, negative, n := strtoul(s[1:], 0)
	if n == 0 || negative || n != len(s)-1 {
		return 0, 0, false
	}
	return int(d), int(p), d < 1<<20 && p < 256
}

// letters reads PREFIX, a disk in letters (a, b, … z, aa, …) and an optional
// partition number. No letters are disk -1, as in libxl.
func letters(s, prefix string, maxDisk, maxPart int) (disk, part int, ok bool) {
	s, ok = strings.CutPrefix(s, prefix)
	if !ok {
		return 0, 0, false
	}
	n := span(s, isLower)
	disk = -1
	for i := range n {
		disk = (disk+1)*26 + int(s[i]-'a')
		if disk > maxDisk {
			return 0, 0, false
		}
	}
	if s = s[n:]; s == "" {
		return disk, 0, true
	}
	if s[0] == '0' {
		return 0, 0, false
	}
	p, negative, used := strtoul(s, 10)
	if used != len(s) || negative || p > uint64(maxPart) {
		return 0, 0, false
	}
	return disk, int(p), true
}

// strtoul reads an integer at the start of s as C's strtoul does: blanks, a
// sign, and in base 0 a prefix (0x, 0). It returns the magnitude, which sticks
// at the largest value, the sign and the bytes used: 0 if there is no number.
func strtoul(s string, base uint64) (u uint64, negative bool, n int) {
	i := span(s, func(c byte) bool { return c == ' ' || '\t' <= c && c <= '\r' })
	if i < len(s) && (s[i] == '+' || s[i] == '-') {
		negative = s[i] == '-'
		i++
	}
	if base == 0 {
		base = 10
		if i < len(s) && s[i] == '0' {
			base = 8
			if i+2 < len(s) && s[i+1]|0x20 == 'x' && digit(s[i+2]) < 16 {
				base, i = 16, i+2
			}
		}
	}
	start := i
	for ; i < len(s) && digit(s[i]) < base; i++ {
		if d := digit(s[i]); u > (math.MaxUint64-d)/base {
			u = math.MaxUint64
		} else {
			u = u*base + d
		}
	}
	if i == start {
		return 0, false, 0
	}
	return u, negative, i
}

// digit returns the value of a digit in any base up to 16, or 255.
func digit(c byte) uint64 {
	switch lower := c | 0x20; {
	case isDigit(c):
		return uint64(c - '0')
	case 'a' <= lower && lower <= 'f':
		return uint64(lower-'a') + 10
	}
	return 255
}
