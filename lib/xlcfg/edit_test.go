package xlcfg

import (
	"strings"
	"testing"
)

func TestEdit(t *testing.T) {
	drop := func(keys string) func(*File) (*File, error) {
		return func(f *File) (*File, error) {
			return f.Without(func(k string) bool { return strings.Contains(" "+keys+" ", " "+k+" ") })
		}
	}
	with := func(key, value string) func(*File) (*File, error) {
		return func(f *File) (*File, error) { return f.With(key, value) }
	}
	disk := func(vdev string) func(*File) (*File, error) {
		return func(f *File) (*File, error) { return f.WithoutDisk(vdev) }
	}
	for _, tt := range []struct {
		name, before string
		edit         func(*File) (*File, error)
		after        string // or a part of the error
	}{
		{"a key goes", "name='a'\nvif=['x']\nmemory=1\n", drop("vif"), "name='a'\n\nmemory=1\n"},
		{"with all of its statements", "vif=['x'];name='a'; vif += [ 'y',\n # z\n 'w' ] # kept\n", drop("vif"), ";name='a';  # kept\n"},
		{"several", "a=1\nb=2\nc=3", drop("a c"), "\nb=2\n"},
		{"none", "a=1 # x\n", drop("b"), "a=1 # x\n"},
		{"another key of that beginning", "vif=['x']\nvif.x=1\nvifs=2\n", drop("vif"), "\nvif.x=1\nvifs=2\n"},
		{"a stray byte at the end", "a=1\nb=2#", drop("b"), "a=1\n#"},

		{"a new key", "a=1\n", with("name", "x"), "name = \"x\"\na=1\n"},
		{"in place of others", "name='a'\nb=1\nname += 'c'", with("name", "x"), "name = \"x\"\n\nb=1\n"},
		{"of another type", "vif=['a']\n", with("vif", ""), "vif = \"\"\n\n"},
		{"quotes and backslashes", "", with("name", `a"b\c`), "name = \"a\\\"b\\\\c\"\n"},
		{"in front of a stray byte", "a=1\n\x1a", with("name", "x"), "name = \"x\"\na=1\n\x1a"},

		{"a disk goes", "disk=['phy:/a,xvda,w', \"file:/b \\\\,xvdb,w\",]\nname='a'\n", disk("xvda"), "disk = [ \"file:/b \\\\,xvdb,w\" ]\n\nname='a'\n"},
		{"appended later", "disk=['phy:/a,xvda,w']\ndisk += ['phy:/b,xvdb,w']\n", disk("51728"), "disk = [ \"phy:/a,xvda,w\" ]\n\n\n"},
		{"the only one", "disk=['phy:/a,xvda,w']\n", disk("xvda"), "disk = [  ]\n\n"},
		{"none of them", "disk=['phy:/a,xvda,w']\n", disk("xvdc"), "cannot leave out disk xvdc of f: it has xvda"},
		{"beside a tab", "disk=['phy:/a,xvda,w', 'phy:/b,\\txvdb,w']\n", disk("xvda"), "control character in a disk string"},
	} {
		f, err := Parse("f", []byte(tt.before))
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		edited, err := tt.edit(f)
		if err != nil {
			if !strings.Contains(err.Error(), tt.after) {
				t.Errorf("%s: %v; want %q", tt.name, err, tt.after)
			}
			continue
		}
		// A last statement may have had no newline.
		if got := string(edited.Bytes()); got != tt.after && got+"\n" != tt.after {
			t.Errorf("%s: %q; want %q", tt.name, got, tt.after)
		}
		if string(f.Bytes()) != tt.before {
			t.Errorf("%s: the file itself changed", tt.name)
		}
	}
}
