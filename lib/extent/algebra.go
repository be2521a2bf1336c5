package extent

import "math"

// Whole is the set of all bytes below size.
func Whole(size int64) Set { return Of(Range{0, size}) }

// Union is the bytes in s or t.
func (s Set) Union(t Set) Set {
	out := Set{make([]Range, 0, len(s.r)+len(t.r))}
	for i, j := 0, 0; i < len(s.r) || j < len(t.r); {
		if j == len(t.r) || i < len(s.r) && s.r[i].Off <= t.r[j].Off {
			out.Add(s.r[i].Off, s.r[i].Len)
			i++
		} else {
			out.Add(t.r[j].Off, t.r[j].Len)
			j++
		}
	}
	return out
}

// Intersect is the bytes in both s and t.
func (s Set) Intersect(t Set) Set {
	var out Set
	for i, j := 0, 0; i < len(s.r) && j < len(t.r); {
		a, b := s.r[i], t.r[j]
		if off, end := max(a.Off, b.Off), min(a.End(), b.End()); off < end {
			out.Add(off, end-off)
		}
		if a.End() <= b.End() {
			i++
		} else {
			j++
		}
	}
	return out
}

// Subtract is the bytes in s that are not in t.
func (s Set) Subtract(t Set) Set {
	var out Set
	j := 0
	for _, a := range s.r {
		off := a.Off
		for ; j < len(t.r) && t.r[j].Off < a.End(); j++ {
			if t.r[j].Off > off {
				out.Add(off, t.r[j].Off-off)
			}
			off = max(off, t.r[j].End())
			if off >= a.End() {
				break // t.r[j] may reach into the next range of s
			}
		}
		if off < a.End() {
			out.Add(off, a.End()-off)
		}
	}
	return out
}

// Complement is the bytes below size that are not in s.
func (s Set) Complement(size int64) Set { return Whole(size).Subtract(s) }

// Align widens every range outwards to multiples of n. The result may end
// after the disk does: Clip it.
func (s Set) Align(n int64) Set {
	var out Set
	for _, r := range s.r {
		off, end := r.Off-r.Off%n, r.End()
		if m := end % n; m != 0 {
			end += min(n-m, math.MaxInt64-end)
		}
		out.Add(off, end-off)
	}
	return out
}

// Clip is the bytes of s below size.
func (s Set) Clip(size int64) Set { return s.Intersect(Whole(size)) }

// Close joins ranges that are less than gap bytes apart: a superset of s with
// fewer ranges, for callers to whom a short read costs more than a seek.
func (s Set) Close(gap int64) Set {
	var out Set
	for _, r := range s.r {
		if n := len(out.r); n > 0 && r.Off-out.r[n-1].End() < gap {
			out.Add(out.r[n-1].End(), r.End()-out.r[n-1].End())
			continue
		}
		out.Add(r.Off, r.Len)
	}
	return out
}
