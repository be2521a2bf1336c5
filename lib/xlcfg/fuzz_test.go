package xlcfg

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// FuzzParse holds three promises on any input: what is parsed is given back
// byte for byte; an error names a place in the file, in one line; and an edit
// changes one literal and ends where it was to, or is refused for a reason.
func FuzzParse(f *testing.F) {
	for _, c := range readCases() {
		f.Add([]byte(c.src), lv)
	}
	for _, c := range rewriteCases {
		f.Add([]byte("disk = [ "+c.before+" ]\n"), lv)
		f.Add([]byte("disk = [ 'phy:/x,xvdb,w', "+c.before+" ]"), c.target)
	}
	f.Fuzz(func(t *testing.T, src []byte, target string) {
		file, err := Parse("vm\n.cfg", src)
		if err != nil {
			checkError(t, src, err)
			return
		}
		if !bytes.Equal(file.Bytes(), src) {
			t.Fatalf("Bytes() = %q, want %q", file.Bytes(), src)
		}
		disks, err := file.Disks()
		if err != nil {
			checkError(t, src, err)
			return
		}
		for _, d := range disks {
			checkEdit(t, file, d, target)
		}
	})
}

func checkError(t *testing.T, src []byte, err error) {
	t.Helper()
	var syntax *SyntaxError
	if !errors.As(err, &syntax) {
		t.Fatalf("error %v is no SyntaxError", err)
	}
	lines := bytes.Split(src, []byte("\n"))
	if syntax.Line < 1 || syntax.Line > len(lines) || syntax.Col < 1 || syntax.Col > len(lines[syntax.Line-1])+1 {
		t.Errorf("%v is not in the file of %d lines", err, len(lines))
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("%q is more than one line", err)
	}
}

// fataler is what testing and rapid have in common.
type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}

func checkEdit(t fataler, file *File, d Disk, target string) {
	t.Helper()
	src := file.Bytes()
	edited, err := file.SetDisk(d.VDev, target)
	if !bytes.Equal(file.Bytes(), src) {
		t.Fatalf("SetDisk changed its receiver")
	}
	if err != nil {
		if strings.Contains(err.Error(), "internal") || strings.Contains(err.Error(), "\n") {
			t.Fatalf("%q in %q: %v", d.Spec, src, err)
		}
		return
	}
	got := edited.Bytes()
	literal := stringLen(src[d.pos:])
	tail := len(src) - d.pos - literal
	if len(got) < d.pos+tail+2 || !bytes.Equal(got[:d.pos], src[:d.pos]) || !bytes.Equal(got[len(got)-tail:], src[len(src)-tail:]) {
		t.Fatalf("bytes outside the literal changed:\n%q\n%q", src, got)
	}
	if rewritten := got[d.pos : len(got)-tail]; stringLen(rewritten) != len(rewritten) || rewritten[0] != src[d.pos] {
		t.Fatalf("the literal became %q", rewritten)
	}
	now, err := edited.Disk(d.VDev)
	if err != nil {
		t.Fatalf("%v", err)
	}
	if now.Target != target || now.Format != Raw || now.DirectIOSafe || now.Backend != Auto && now.Backend != Phy {
		t.Fatalf("%q became %q: %s", d.Spec, now.Spec, show(now))
	}
	if now.ReadOnly != d.ReadOnly || now.VDev != d.VDev || now.CDROM || now.Script != d.Script || now.options != d.options {
		t.Fatalf("%q lost something in %q", d.Spec, now.Spec)
	}
	again, err := edited.SetDisk(d.VDev, target)
	if err != nil || !bytes.Equal(again.Bytes(), got) {
		t.Fatalf("a second SetDisk gives %q and %v after %q", again.Bytes(), err, got)
	}
}

// TestSetDiskProperty makes disk strings of pieces that fit together, which a
// fuzzer seldom does, and edits each of them.
func TestSetDiskProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		one := func(label string, from ...string) string { return rapid.SampledFrom(from).Draw(t, label) }
		blank := func() string { return one("blank", "", "", " ", "\t", "  ") }
		head, format := one("prefix", "", "phy:", "file:", "tap:aio:", "tap2:qcow2:", "tap2:tapdisk:vhd:", "raw:", "ioemu:"), ""
		if head == "" {
			format = "," + blank() + one("format", "", "raw", "qcow2", "vhd")
		}
		places := blank() + head + blank() + "/srv/a.img" + format + "," + blank() + "xvda" + one("devtype", "", ":disk") + "," + blank() + one("access", "", "r", "w")
		extra := []string{"discard", "no-discard", "backendtype=qdisk", "backendtype=phy", "direct-io-safe", "devtype=disk", "backend=0", "untrusted", "script=block", "colo-host=h"}
		spec := places
		for _, e := range rapid.SliceOfNDistinct(rapid.SampledFrom(extra), 0, 4, func(s string) string { s, _, _ = strings.Cut(s, "="); return s }).Draw(t, "extra") {
			if rapid.Bool().Draw(t, "in front") {
				spec = blank() + e + "," + spec
			} else {
				spec += "," + blank() + e
			}
		}
		spec += one("end", "", ",", ", ")
		target := "/" + rapid.StringMatching(`[a-z0-9/:,=#'" \\_.+-]{0,12}`).Draw(t, "target")
		quote := one("quote", "'", `"`)
		src := fmt.Sprintf("disk = [ %s%s%s, 'phy:/b,xvdb,w' ] # end\n", quote, spec, quote)
		file, disks, err := read(src)
		if err != nil {
			t.Fatalf("%q: %v", src, err)
		}
		if _, err := file.SetDisk("xvda", target); err != nil {
			t.Fatalf("%q: %v", src, err)
		}
		checkEdit(t, file, disks[0], target)
	})
}
