package xlcfg

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Keys returns what the file sets, sorted.
func (f *File) Keys() []string { return slices.Sorted(maps.Keys(f.settings)) }

// Without returns the file without the statements of those keys that drop takes.
// Every other byte stays, the comments between statements too.
func (f *File) Without(drop func(key string) bool) (*File, error) {
	var kept []byte
	from := 0
	for _, s := range f.statements {
		if drop(s.key) {
			kept = append(kept, f.src[from:s.start]...)
			from = s.end
		}
	}
	edited, err := Parse(f.name, append(kept, f.src[from:]...))
	if err != nil {
		return nil, err
	}
	left := slices.DeleteFunc(f.Keys(), drop)
	if !slices.Equal(edited.Keys(), left) {
		return nil, fmt.Errorf("cannot edit %s: internal error: it sets %q then, not %q", spell(f.name), edited.Keys(), left)
	}
	return edited, nil
}

// With returns the file with KEY = "VALUE" in place of every statement of the key.
// It stands in front of the others: what follows the last one may be a byte that xl
// passes over only at the very end.
func (f *File) With(key, value string) (*File, error) { return f.with(key, quoted(value)) }

// WithoutDisk returns the file without the disk vdev (in any spelling). The list of
// disks is written anew, each as it was.
func (f *File) WithoutDisk(vdev string) (*File, error) {
	disks, err := f.Disks()
	if err != nil {
		return nil, err
	}
	i := indexVDev(disks, vdev)
	if i < 0 {
		return nil, fmt.Errorf("cannot leave out disk %s of %s: %s", spell(vdev), spell(f.name), inventory(disks))
	}
	var list []string
	for _, d := range slices.Delete(disks, i, i+1) {
		if unprintable(d.Spec) {
			return nil, f.refuse(d.pos, "control character in a disk string", "take it out")
		}
		list = append(list, quoted(d.Spec))
	}
	return f.with("disk", "[ "+strings.Join(list, ", ")+" ]")
}

func (f *File) with(key, literal string) (*File, error) {
	rest, err := f.Without(func(k string) bool { return k == key })
	if err != nil {
		return nil, err
	}
	return Parse(f.name, append([]byte(key+" = "+literal+"\n"), rest.src...))
}

// quoted is a string as a literal. It may hold no control character.
func quoted(s string) string { return `"` + string(encode(s, '"')) + `"` }

func unprintable(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}
