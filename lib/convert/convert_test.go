package convert

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"xenlvm/lib/blockcopy"
	"xenlvm/lib/diskimg"
	"xenlvm/lib/fault"
	"xenlvm/lib/journal"
	"xenlvm/lib/lvm"
	"xenlvm/lib/mapping"
	"xenlvm/lib/step"
	"xenlvm/lib/units"
)

func TestParseTo(t *testing.T) {
	group, named, err := parseTo([]string{"vg0", "xvdb=vg1/data", "xvdc=vg2", "xvdd=/dev/vg3/d"})
	want := map[string]string{"xvdb": "vg1/data", "xvdc": "vg2/", "xvdd": "vg3/d"}
	if err != nil || group != "vg0" || cmp.Diff(want, named) != "" {
		t.Errorf("parseTo = %q, %v, %v", group, named, err)
	}
	for _, to := range [][]string{{"vg0", "vg1"}, {"-x"}, {"a b"}, {"=vg0/x"}, {"xvda=vg0/x", "xvda=vg0/y"}, {"xvda=vg0/a/b"}, {"xvda=-x"}, {""}} {
		if group, named, err := parseTo(to); fault.StatusOf(err) != fault.Usage {
			t.Errorf("parseTo(%q) = %q, %v, %v; want a usage error", to, group, named, err)
		}
	}
}

// ext4 and table are what images and volumes hold.
func ext4(label string) diskimg.Info {
	return diskimg.Info{Kind: diskimg.Filesystem, Signature: &diskimg.Signature{Type: "ext4", Label: label}, Format: diskimg.Raw, Size: 1 << 30, FileSize: 1 << 30}
}

func table() diskimg.Info {
	return diskimg.Info{Kind: diskimg.Table, Table: &diskimg.PartitionTable{Type: "gpt"}, Format: diskimg.Raw, Size: 1 << 30}
}

var blank = diskimg.Info{Kind: diskimg.Blank, Format: diskimg.Raw}

func TestChooseMethod(t *testing.T) {
	volume := func(size int64, i diskimg.Info, ours bool) Destination {
		d := Destination{Exists: true, Path: "/dev/vg0/a", LV: lvm.LV{VG: "vg0", Name: "a", Size: units.Bytes(size)}, Info: i, Ours: ours}
		if !ours {
			d.Foreign = foreign(i)
		}
		return d
	}
	qcow2 := diskimg.Info{Kind: diskimg.Unknown, Format: diskimg.Qcow2, Size: 1 << 30}
	for _, tt := range []struct {
		name   string
		o      Options
		image  diskimg.Info
		format string
		dest   Destination
		want   Method
		err    string
	}{
		{"a volume to be made", Options{Method: Auto}, ext4(""), "raw", Destination{}, Blocks, ""},
		{"an empty volume", Options{Method: Auto}, ext4(""), "raw", volume(1<<30, blank, false), Blocks, ""},
		{"a partition table", Options{Method: Auto}, table(), "raw", Destination{}, Blocks, ""},
		{"qcow2", Options{Method: Auto}, qcow2, "qcow2", Destination{}, Blocks, ""},
		{"files asked for", Options{Method: Files}, ext4(""), "raw", Destination{}, Files, ""},
		{"files of a partition table", Options{Method: Files}, table(), "raw", Destination{}, "", "cannot copy /i file by file: it is a raw image that holds a gpt partition table"},
		{"files of qcow2", Options{Method: Files}, qcow2, "qcow2", Destination{}, "", "file by file"},
		{"files onto our own", Options{Method: Auto}, ext4(""), "raw", volume(1<<20, ext4("x"), true), Files, ""},
		{"too small by a sector", Options{Method: Blocks}, ext4(""), "raw", volume(1<<30-512, blank, false), "", "the volume only 1073741312"},
		{"foreign data", Options{Method: Blocks}, ext4(""), "raw", volume(1<<30, ext4("precious"), false), "", "it holds ext4 labelled precious"},
		{"a foreign partition table", Options{Method: Auto}, table(), "raw", volume(1<<30, table(), false), "", "it holds a gpt partition table"},
		{"foreign data, overwritten", Options{Method: Blocks, Overwrite: true}, ext4(""), "raw", volume(1<<30, ext4("precious"), false), Blocks, ""},
	} {
		c := &Conversion{o: tt.o}
		d := &Disk{VDev: "xvda", Image: "/i", Format: tt.format, Info: tt.image, Dest: tt.dest}
		err := c.chooseMethod(d)
		switch {
		case tt.err == "" && (err != nil || d.Method != tt.want || d.Why == ""):
			t.Errorf("%s: %s (%s), %v; want %s", tt.name, d.Method, d.Why, err, tt.want)
		case tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err) || fault.StatusOf(err) != fault.Refused || len(fault.Hints(err)) == 0):
			t.Errorf("%s: %v (hints %q); want %q, refused, with a hint", tt.name, err, fault.Hints(err), tt.err)
		}
	}
}

// records makes a journal's records.
func records(t *testing.T, pairs ...any) []journal.Record {
	t.Helper()
	var all []journal.Record
	for i := 0; i < len(pairs); i += 2 {
		raw, err := json.Marshal(pairs[i+1])
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, journal.Record{Kind: pairs[i].(string), Data: raw})
	}
	return all
}

func TestRecords(t *testing.T) {
	chosen := Chosen{VDev: "xvda", Source: "/i", Destination: "/dev/vg0/a", Method: Files}
	c := &Conversion{records: records(t, kindDestination, Chosen{VDev: "xvda", Source: "/old", Destination: "/dev/vg0/old"},
		kindDestination, chosen, kindCopied, Copied{Chosen: chosen, LVUUID: "u"})}
	if got := recordedDestination(c.records, "xvda", "/i"); got != "vg0/a" {
		t.Errorf("destination %q", got)
	}
	if got := recordedDestination(c.records, "xvdb", "/i"); got != "" {
		t.Errorf("destination of another disk: %q", got)
	}
	if got := lastCopied(c.records, "xvda", "/i"); got == nil || got.LVUUID != "u" {
		t.Errorf("last copy %+v", got)
	}
	if !c.untouched() {
		t.Error("a copy that nothing followed is not trusted")
	}
	c.records = append(c.records, records(t, kindApplied, struct{}{})...)
	if c.untouched() {
		t.Error("the domain may have run on the volume since its copy")
	}
}

// Digests of a destination that the domain may have written to would make a
// delta miss what it wrote.
func TestDigestsAreNotTrustedAfterASwitch(t *testing.T) {
	j, err := journal.Open(t.TempDir(), "vm3", "test")
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Append("x", nil); err != nil {
		t.Fatal(err)
	}
	last := Copied{SourceSize: 4, Digests: "xvda.digests"}
	c := &Conversion{journal: j, rep: quiet{}, records: records(t, kindCopied, last)}
	d := &Disk{VDev: "xvda", Info: diskimg.Info{Size: 4}, last: &last}
	dst := scratch(t, "data")
	sums, err := blockcopy.Scan(t.Context(), dst, 4, blockcopy.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.saveDigests(d, sums); err != nil {
		t.Fatal(err)
	}
	if c.loadDigests(d) == nil {
		t.Error("good digests are not used")
	}
	d.Info.Size = 5
	if c.loadDigests(d) != nil {
		t.Error("digests of another size are used")
	}
	d.Info.Size = 4
	c.records = append(c.records, records(t, kindApplied, struct{}{})...)
	if c.loadDigests(d) != nil {
		t.Error("digests are used after the domain was switched")
	}
}

// quiet is a Reporter that shows nothing.
type quiet struct{}

func (quiet) Infof(string, ...any) {}
func (quiet) Phase(string) Phase   { return quiet{} }
func (quiet) Update(int64, int64)  {}
func (quiet) Done()                {}

func scratch(t *testing.T, text string) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "scratch"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestTooSmallSaysHowMuch(t *testing.T) {
	c := &Conversion{}
	s := &snapshot{lv: lvm.LV{VG: "vg0", Name: "s", Size: 100 << 30, COW: 1 << 30}, work: 40 << 30, done: 10 << 30}
	err := c.tooSmall(s)
	if !strings.Contains(err.Error(), "overflowed") || len(fault.Hints(err)) != 1 || !strings.Contains(fault.Hints(err)[0], "--snapshot-size 5368709120b ") {
		t.Errorf("%v, hints %q; want 1 GiB x 4 x 1.25", err, fault.Hints(err))
	}
}

func TestUnique(t *testing.T) {
	got := unique(step.Plan{{What: "a"}, {What: "b"}, {What: "a"}})
	if len(got) != 2 || got[0].What != "a" || got[1].What != "b" {
		t.Errorf("unique = %v", got)
	}
}

func TestLinesOfAPartialCopy(t *testing.T) {
	c := &Conversion{o: Options{Domain: "vm3"}, Disks: []*Disk{
		{VDev: "xvda", Image: "/a", Dest: Destination{Path: "/dev/vg0/a"}},
		{VDev: "xvdb", Image: "/b", Dest: Destination{Path: "/dev/vg0/b"}, Result: Result{Partial: true, Elapsed: time.Second}},
	}}
	lines := c.Lines(mapping.Copied)
	if lines[0].State != mapping.Copied || lines[1].State != mapping.Planned {
		t.Errorf("states %s, %s; a partial copy must not be applied", lines[0].State, lines[1].State)
	}
}
