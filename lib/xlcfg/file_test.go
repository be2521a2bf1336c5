package xlcfg

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func TestString(t *testing.T) {
	f, err := Parse("vm.cfg", []byte("name = 'old'\nname = \"vm\"\nuuid='a'; uuid += 'b'\nmemory = 0x200\nmaxmem = '1024'\n"+
		"vcpus = 1\nvcpus += 2\nvif = [ 'x' ]\nshift = '-5'\nbad = '12k'\nempty = ''\nbig = 99999999999999999999\nnum = 12ab\noct = 010\n"))
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{"name": "vm", "uuid": "ab", "memory": "0x200", "vcpus": "12", "empty": ""} {
		if got, ok := f.String(key); !ok || got != want {
			t.Errorf("String(%s) = %q, %v, want %q", key, got, ok, want)
		}
	}
	for _, key := range []string{"vif", "kernel", "Name"} {
		if got, ok := f.String(key); ok {
			t.Errorf("String(%s) = %q, want none", key, got)
		}
	}
}

func TestSyntaxErrorPlace(t *testing.T) {
	for _, c := range []struct {
		src, want string
	}{
		{"memory = 1\n\n  Name = 'x'\n", "cannot parse vm.cfg:3:3: capital letter in a key"},
		{"memory = 1\n# end", "cannot parse vm.cfg:2:1: comment on the last line without a newline after it"},
		{"a = 1\r\n", "cannot parse vm.cfg:1:6: Windows line end (CR LF)"},
		{"disk = [\n 'phy:/x,xvda,w',\n '/y,xvdb,w' ]\n", `cannot parse vm.cfg:3:6: disk "/y,xvdb,w": unknown format "xvdb"`},
		{"disk = [ 'phy:/x,xvda,\\0012w!' ]\n", `cannot parse vm.cfg:1:23: disk "phy:/x,xvda,w!": unknown access "w!"`},
		{"disk = [\n 'phy:/x,xvda,w',\n 'phy:/y,0xca00,w' ]\n", "cannot parse vm.cfg:3:2: disks xvda (line 2) and 0xca00 are one device"},
		{"disk = [ 'phy:/x,xvda,w',\n\n", "cannot parse vm.cfg:1:8: this list is never closed"},
	} {
		_, _, err := read(c.src)
		if err == nil || err.Error() != c.want {
			t.Errorf("%q:\n got %v\nwant %s", c.src, err, c.want)
			continue
		}
		var syntax *SyntaxError
		if !errors.As(err, &syntax) || syntax.Hint == "" && !strings.Contains(c.want, "xvdb") && !strings.Contains(c.want, "w!") {
			t.Errorf("%v has no hint", err)
		}
	}
	_, err := Parse("a\nb.cfg", []byte("--"))
	if err == nil || !strings.HasPrefix(err.Error(), `cannot parse "a\nb.cfg":1:1: `) {
		t.Errorf("got %v, want a message in one line", err)
	}
}

// TestFormatHint: the most frequent mistake comes with the string to write.
func TestFormatHint(t *testing.T) {
	_, _, err := read(disk("/dev/vg0/x,xvda,w"))
	var syntax *SyntaxError
	if !errors.As(err, &syntax) || !strings.Contains(syntax.Hint, "/dev/vg0/x,,xvda") {
		t.Errorf("got %#v, want a hint with the empty format", err)
	}
}

func TestDiskLookup(t *testing.T) {
	f, disks, err := read("disk = [\n'phy:/x,xvda,w',\n'phy:/y,51728,w'\n]\n")
	if err != nil {
		t.Fatal(err)
	}
	for _, vdev := range []string{"xvdb", "51728", "0xca10", "d1p0"} {
		d, err := f.Disk(vdev)
		if err != nil || d != disks[1] || d.Line != 3 {
			t.Errorf("Disk(%s) = %+v, %v", vdev, d, err)
		}
	}
	if _, err := f.Disk("xvdc"); err == nil || err.Error() != "cannot find disk xvdc in vm.cfg: it has xvda, 51728" {
		t.Errorf("got %v", err)
	}
}

// TestSetDiskChain edits every disk of a file in turn: each edit starts from
// the last and must leave the earlier ones alone.
func TestSetDiskChain(t *testing.T) {
	f, _, err := read("disk = [ 'file:/a,xvda,w', 'tap:qcow2:/b,xvdb,w' ]\ndisk += [ '/c,qcow2,xvdc,r' ]\n")
	if err != nil {
		t.Fatal(err)
	}
	for _, vdev := range []string{"xvdc", "xvda", "xvdb"} {
		if f, err = f.SetDisk(vdev, "/dev/vg0/"+vdev); err != nil {
			t.Fatal(err)
		}
	}
	want := "disk = [ 'phy:/dev/vg0/xvda,xvda,w', 'phy:/dev/vg0/xvdb,xvdb,w' ]\ndisk += [ '/dev/vg0/xvdc,raw,xvdc,r' ]\n"
	if got := string(f.Bytes()); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestBytesAreTheCallersOwn(t *testing.T) {
	src := []byte(disk("phy:/x,xvda,w"))
	f, err := Parse("vm.cfg", src)
	if err != nil {
		t.Fatal(err)
	}
	want := string(src)
	src[0] = 'X'
	f.Bytes()[1] = 'X'
	if string(f.Bytes()) != want {
		t.Errorf("the file changed under its owner: %s", f.Bytes())
	}
}

func TestDepth(t *testing.T) {
	nested := func(n int) []byte { return []byte("a = " + strings.Repeat("[", n) + strings.Repeat("]", n) + "\n") }
	if _, err := Parse("vm.cfg", nested(maxDepth)); err != nil {
		t.Error(err)
	}
	var syntax *SyntaxError
	if _, err := Parse("vm.cfg", nested(1<<20)); !errors.As(err, &syntax) || !syntax.Ours {
		t.Errorf("got %v, want a refusal of ours", err)
	}
}

// BenchmarkParse shows that the time per byte does not grow with the size,
// whatever the file is full of.
func BenchmarkParse(b *testing.B) {
	for name, line := range map[string]string{
		"comments": "# a comment of some length, as people write them\n",
		"lists":    "disk = [ 'phy:/dev/vg0/x,xvda,w', 'file:/x,xvdb,r' ]\n",
		"appends":  "extra += 'a'; disk += [ 'x' ]\n",
		"strings":  `extra = "` + strings.Repeat(`\\`, 200) + "\"\n",
	} {
		for _, size := range []int{64 << 10, 1 << 20} {
			b.Run(name+"/"+map[bool]string{true: "64K", false: "1M"}[size < 1<<20], func(b *testing.B) {
				src := bytes.Repeat([]byte(line), size/len(line))
				b.SetBytes(int64(len(src)))
				for b.Loop() {
					if _, err := Parse("vm.cfg", src); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
