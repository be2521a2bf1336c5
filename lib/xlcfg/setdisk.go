package xlcfg

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// maxPath is the longest path Linux takes, in bytes.
const maxPath = 4095

// SetDisk points the disk vdev (in any spelling) to the block device target and
// returns the edited file; f stays as it is. Exactly one string literal
// changes, and in it only what belongs to the old target: the path, a format
// other than raw, prefixes such as file: or tap:qcow2: (which become phy:),
// backendtype=qdisk or tap, and direct-io-safe, which is meant for QEMU alone.
// Access, vdev, discard, the other parameters, their order and spacing, and
// the quotes stay.
//
// It refuses a CD-ROM, a disk with a hotplug script other than block, one that
// another domain serves and a virtio one: their target is not a path that dom0
// opens as a block device. It refuses a target that is not absolute (libxl
// does not search /dev) or holds control characters or invalid UTF-8.
//
// The result has been parsed again and compared with f.
func (f *File) SetDisk(vdev, target string) (*File, error) {
	fail := func(cause string) (*File, error) {
		return nil, fmt.Errorf("cannot point disk %s in %s to %s: %s", spell(vdev), spell(f.name), spell(target), cause)
	}
	disks, err := f.Disks()
	if err != nil {
		return nil, err
	}
	i := indexVDev(disks, vdev)
	if i < 0 {
		return fail(inventory(disks))
	}
	if cause := unwritable(target); cause != "" {
		return fail(cause)
	}
	if cause := unmovable(disks[i]); cause != "" {
		return fail(cause)
	}
	lit := f.settings["disk"].list[i].lit
	e := specEdit{src: f.src, lit: lit, target: target}
	literal := e.rewrite(disks[i].Spec)

	edited, err := Parse(f.name, slices.Concat(f.src[:lit.start], literal, f.src[lit.end:]))
	if err == nil {
		err = edited.differsOnlyIn(f, disks, i, target)
	}
	if err != nil {
		return fail("internal error: the rewritten string " + string(literal) + " does not read back: " + err.Error())
	}
	return edited, nil
}

// unwritable says why target cannot be a disk's target, "" if it can.
func unwritable(target string) string {
	switch {
	case !strings.HasPrefix(target, "/"):
		return "the path is not absolute"
	case len(target) > maxPath:
		return "the path is too long"
	case unprintable(target):
		return "the path has a control character"
	case !utf8.ValidString(target):
		return "the path is not valid UTF-8, which libxl cannot store"
	}
	return ""
}

// unmovable says why the disk's target is no path that could be replaced.
func unmovable(d Disk) string {
	switch script := strings.TrimPrefix(d.Script, "/etc/xen/scripts/"); {
	case d.VDev == "":
		return "its vdev is empty"
	case d.CDROM:
		return "it is a CD-ROM"
	case d.Format == Empty:
		return "it has no medium"
	case script != "" && script != "block":
		return "it is attached by the script " + spell(d.Script) + ", which gives the target a meaning of its own"
	case d.BackendDomain != "" && d.BackendDomain != "0" && d.BackendDomain != "Domain-0":
		return "it is served by the domain " + spell(d.BackendDomain)
	case d.options.specification == "virtio" || d.Backend == Standalone:
		return "it is a virtio disk or has a standalone backend, and cannot be served as a block device"
	}
	return ""
}

// differsOnlyIn checks an edit against the file before it: the same disks, but
// for the target of number i, which is now a raw one for the phy backend.
func (f *File) differsOnlyIn(old *File, oldDisks []Disk, i int, target string) error {
	disks, err := f.Disks()
	if err != nil {
		return err
	}
	if len(disks) != len(oldDisks) {
		return fmt.Errorf("%d disks became %d", len(oldDisks), len(disks))
	}
	shift := len(f.src) - len(old.src)
	for j, want := range oldDisks {
		got := disks[j]
		if j == i {
			want.Target, want.Format, want.DirectIOSafe, want.Spec = target, Raw, false, got.Spec
			if want.Backend != Phy {
				want.Backend = Auto
			}
		} else if want.pos > oldDisks[i].pos {
			want.pos += shift
		}
		if got != want {
			return fmt.Errorf("disk %s became %+v, not %+v", want.VDev, got, want)
		}
	}
	start := oldDisks[i].pos
	end := old.settings["disk"].list[i].lit.end
	if !bytes.Equal(f.src[:start], old.src[:start]) || !bytes.Equal(f.src[end+shift:], old.src[end:]) {
		return fmt.Errorf("bytes outside the string changed")
	}
	return nil
}

// specEdit rewrites one literal. What it keeps it copies from the file's own
// bytes, so that escapes survive as they were spelled.
type specEdit struct {
	src    []byte
	lit    literal
	target string
}

// rewrite returns the new literal, quotes included.
func (e *specEdit) rewrite(spec string) []byte {
	_, tokens, _ := parseSpec(spec)
	quote := e.src[e.lit.start]
	// A comma or an equals sign in the path leaves only target=, which must
	// come last and takes the rest as it is.
	plain := !strings.ContainsAny(e.target, ",=")
	atEnd := "target=" + e.target
	if strings.HasSuffix(e.target, ",") {
		atEnd += "," // xl takes one off
	}
	hasKey := slices.ContainsFunc(tokens, func(t specToken) bool { return t.kind == specTarget })
	hasSlot := slices.ContainsFunc(tokens, func(t specToken) bool { return t.slot == slotTarget })

	var out [][]byte
	open := true // whether a parameter may follow what is in out
	for n := 0; n < len(tokens); n++ {
		tok := tokens[n]
		keep, comma := e.raw(tok), ""
		if spec[tok.end-1] == ',' {
			comma = ","
		}
		glued := !open // only grant_usage=0 and =1 need no comma behind them
		switch {
		case tok.kind == specPrefix:
			run := prefixRun(tokens[n:])
			if run > 1 || !slices.Contains([]string{"phy", "raw", "ioemu"}, tok.name) {
				keep = []byte("phy:")
			}
			n += run - 1
		case tok.kind == specTarget:
			keep = encode(atEnd, quote)
		case tok.slot == slotTarget && hasKey:
			// An empty place holder in front of target=.
		case tok.slot == slotTarget && plain:
			keep = append(encode(e.target, quote), comma...)
		case tok.slot == slotTarget && glued:
			keep = []byte("," + comma)
		case tok.slot == slotTarget:
			keep = []byte(comma)
		case tok.slot == slotFormat && tok.value != "":
			keep = []byte("raw" + comma)
		case tok.kind == specKeyed && tok.name == "format" && tok.value != "":
			keep = []byte("format=raw" + comma)
		case tok.kind == specKeyed && tok.name == "backendtype" && tok.value != string(Phy),
			tok.kind == specFlag && tok.name == "direct-io-safe",
			tok.kind == specStray:
			var cut bool
			out, cut = dropLast(out, comma == "")
			open = open && !cut
			if len(out) == 0 && n+1 < len(tokens) && tokens[n+1].kind == specBlank {
				n++
			}
			continue
		}
		out = append(out, keep)
		if len(keep) > 0 {
			open = comma != "" || tok.kind == specPrefix || tok.kind == specBlank
		}
	}
	body := bytes.Join(out, nil)
	if !hasKey && !(hasSlot && plain) {
		if !open {
			body = append(body, ',')
		}
		body = append(body, encode(atEnd, quote)...)
	}
	return slices.Concat([]byte{quote}, body, []byte{quote})
}

// raw returns the file's bytes for tok.
func (e *specEdit) raw(tok specToken) []byte {
	return bytes.Clone(e.src[e.lit.offs[tok.start]:e.lit.offs[tok.end]])
}

// prefixRun counts the pieces from the first prefix to the last of a row of
// them, blanks between included.
func prefixRun(tokens []specToken) int {
	n := 1
	for i, tok := range tokens {
		switch tok.kind {
		case specPrefix:
			n = i + 1
		case specBlank:
		default:
			return n
		}
	}
	return n
}

// dropLast prepares out for leaving out the piece that would come next: the
// blanks in front of it go too, and if it was the last, so does the comma.
func dropLast(out [][]byte, last bool) (_ [][]byte, cut bool) {
	if n := len(out); n > 0 && len(bytes.Trim(out[n-1], " \t")) == 0 {
		out = out[:n-1]
	}
	if n := len(out); n > 0 && last {
		out[n-1], cut = bytes.CutSuffix(out[n-1], []byte(","))
	}
	return out, cut
}
