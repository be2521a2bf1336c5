package convert

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"xenlvm/lib/blkdev"
	"xenlvm/lib/blockcopy"
	"xenlvm/lib/diskimg"
	"xenlvm/lib/fault"
	"xenlvm/lib/journal"
	"xenlvm/lib/lvm"
	"xenlvm/lib/mapping"
	"xenlvm/lib/run"
	"xenlvm/lib/step"
	"xenlvm/lib/units"
	"xenlvm/lib/xl"
	"xenlvm/lib/xlcfg"
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

func signed(kind string) diskimg.Info {
	i := ext4("")
	i.Signature.Type = kind
	return i
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
		{"files of a partition table", Options{Method: Files}, table(), "raw", Destination{}, Blocks, ""},
		{"files of a partition table, too small", Options{Method: Files}, table(), "raw", volume(1<<20, blank, false), "", "block by block"},
		{"files of swap", Options{Method: Files}, signed("swap"), "raw", Destination{}, Blocks, ""},
		{"files of zeros", Options{Method: Files}, blank, "raw", Destination{}, Blocks, ""},
		{"files of a kind that we do not copy", Options{Method: Files}, signed("btrfs"), "raw", Destination{}, "", "cannot copy /i file by file: it is a raw image that holds btrfs"},
		{"files of unknown data", Options{Method: Files}, diskimg.Info{Kind: diskimg.Unknown, Format: diskimg.Raw}, "raw", Destination{}, "", "file by file"},
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

func TestOnlyMethodsOfASnapshotAreKept(t *testing.T) {
	for recorded, want := range map[Method]Method{Files: Files, Blocks: Blocks, Mirror: Blocks, QEMU: Blocks} {
		info := diskimg.Info{Kind: diskimg.Filesystem, Format: diskimg.Raw, Size: 1 << 30, Signature: &diskimg.Signature{Type: "ext4"}}
		d := &Disk{VDev: "xvda", Image: "/i", Format: "raw", Info: info, past: past{destination: "vg0/a", method: recorded},
			Dest: Destination{Exists: true, Ours: true, LV: lvm.LV{VG: "vg0", Name: "a", Size: 1 << 30}, Info: diskimg.Info{Kind: diskimg.Blank}}}
		if err := (&Conversion{o: Options{Method: Auto}}).chooseMethod(d); err != nil || d.Method != want {
			t.Errorf("after a run by %s: %s, %v; want %s", recorded, d.Method, err, want)
		}
	}
}

// One disk that goes by files is what --method files asks for; none is not.
func TestFilesForNone(t *testing.T) {
	for _, tt := range []struct {
		asked   Method
		chosen  []Method
		refused bool
	}{{Files, []Method{Blocks, Files}, false}, {Files, []Method{Blocks, Blocks}, true}, {Auto, []Method{Blocks}, false}, {Blocks, []Method{Blocks}, false}} {
		c := &Conversion{o: Options{Domain: "vm3", Method: tt.asked}}
		for _, m := range tt.chosen {
			c.Disks = append(c.Disks, &Disk{Method: m})
		}
		if err := c.checkMethod(); (fault.StatusOf(err) == fault.Refused) != tt.refused {
			t.Errorf("--method %s, chosen %v: %v; refused: want %v", tt.asked, tt.chosen, err, tt.refused)
		}
	}
}

// Snapshots and thin destinations may meet in one pool.
func TestFromPools(t *testing.T) {
	thin := func(name string, used float64) lvm.LV {
		return lvm.LV{VG: "vg0", Name: name, Type: "thin", Pool: "pool", Size: 1000, Used: used}
	}
	a, b := &Disk{Origin: thin("images", 50), Dest: Destination{LV: thin("a", 25)}}, &Disk{Origin: lvm.LV{VG: "vg0", Name: "thick"}, Dest: Destination{LV: lvm.LV{VG: "vg0", Name: "b"}}}
	c := &Conversion{o: Options{SnapshotSize: units.Share{Percent: 10}}, Disks: []*Disk{a, b}}
	got := c.fromPools([]*source{{frozen: &snapshot{origin: a.Origin, lv: thin("s", 50)}}, {frozen: &snapshot{lv: lvm.LV{VG: "vg0", Name: "t"}}}})
	if want := map[string]units.Bytes{"vg0/pool": 100 + 750}; cmp.Diff(want, got) != "" {
		t.Error(cmp.Diff(want, got))
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

// Nothing is copied from an image into which a volume is being brought back.
func TestHalfWritten(t *testing.T) {
	image := filepath.Join(t.TempDir(), "vm3.img")
	if err := os.WriteFile(image, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	door := journal.BackDoor{VDev: "xvda", Image: journal.Image{Path: image}, LV: "vg0/a"}
	c := &Conversion{o: Options{Domain: "vm3"}, records: records(t, journal.KindReplaying, door)}
	disk := xlcfg.Disk{VDev: "xvda", Target: image, Format: xlcfg.Raw}
	if _, err := c.addDisk(t.Context(), disk); fault.StatusOf(err) != fault.Refused || !strings.Contains(err.Error(), "half-written, as /dev/vg0/a was being brought back") {
		t.Errorf("half-written: %v", err)
	}
	c.records = append(c.records, records(t, journal.KindReplayed, door)...)
	if _, err := c.addDisk(t.Context(), disk); err != nil || len(c.Disks) != 1 {
		t.Errorf("whole again: %v", err)
	}
}

func TestRemember(t *testing.T) {
	chosen := journal.Destination{VDev: "xvda", Source: "/i", Destination: "/dev/vg0/a", Method: "files", LVUUID: "u"}
	other := journal.Destination{VDev: "xvda", Source: "/old", Destination: "/dev/vg0/old", Method: "blocks"}
	all := records(t, journal.KindDestination, chosen, journal.KindMade, chosen, journal.KindCopied, journal.Copied{Destination: chosen, Written: 7},
		journal.KindDestination, other, journal.KindApplied, struct{}{})
	p := remember(all, "xvda", "/i")
	if p.destination != "vg0/a" || p.method != Files || p.made != "u" || p.copied == nil || p.copied.Written != 7 {
		t.Errorf("remember = %+v", p)
	}
	if !p.switched {
		t.Error("the switch behind the copy is not seen")
	}
	if p := remember(append(all, records(t, journal.KindCopied, journal.Copied{Destination: chosen})...), "xvda", "/i"); p.switched {
		t.Error("a switch before the last copy counts")
	}
	// What came back through a back door is in the image, unless the volume was written to after.
	replayed, elsewhere := journal.BackDoor{VDev: "xvda", Image: journal.Image{Path: "/i"}}, journal.BackDoor{VDev: "xvda", Image: journal.Image{Path: "/old"}}
	for _, c := range []struct {
		since    []any
		switched bool
	}{
		{[]any{journal.KindReverted, struct{}{}}, true},
		{[]any{journal.KindReplayed, replayed}, true},
		{[]any{journal.KindReplayed, replayed, journal.KindReverted, struct{}{}}, false},
		{[]any{journal.KindReplayed, elsewhere, journal.KindReverted, struct{}{}}, true},
		{[]any{journal.KindReplayed, replayed, journal.KindStarting, struct{}{}, journal.KindReverted, struct{}{}}, true},
		{[]any{journal.KindReplayed, replayed, journal.KindReverted, struct{}{}, journal.KindApplied, struct{}{}}, true},
	} {
		if p := remember(slices.Concat(all, records(t, c.since...)), "xvda", "/i"); p.switched != c.switched {
			t.Errorf("after %v: switched = %t", c.since, p.switched)
		}
	}
	if p := remember(all, "xvdb", "/i"); p.destination != "" || p.copied != nil {
		t.Errorf("another disk: %+v", p)
	}
}

// Between QEMU's switch and its record nobody knows which of the two is newer.
func TestHandedOver(t *testing.T) {
	told := journal.Handover{LV: "vg0/a"}
	ended := journal.Handover{LV: "vg0/a", End: "switched"}
	if all := records(t, journal.KindHandover, told, journal.KindStarting, struct{}{}); !handedOver(all, "vg0/a") || handedOver(all, "vg0/b") {
		t.Error("a switch that may have been made is not seen, or seen elsewhere")
	}
	if handedOver(records(t, journal.KindHandover, told, journal.KindHandover, ended), "vg0/a") {
		t.Error("a switch of which the end is known counts")
	}
}

// A delta is built on digests only when nobody can have written to the
// destination since they were taken.
func TestTrust(t *testing.T) {
	j, err := journal.Open(t.TempDir(), "vm3", "test")
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Append("x", nil); err != nil {
		t.Fatal(err)
	}
	disk, last := anyDisk(t)
	dst := scratch(t, "data")
	sums, err := blockcopy.Scan(t.Context(), dst, 4, blockcopy.Options{})
	if err != nil {
		t.Fatal(err)
	}
	c := &Conversion{journal: j, rep: quiet{}}
	fresh := func() (*Disk, *journal.Copied) {
		l := last
		d := &Disk{VDev: "xvda", Info: diskimg.Info{Size: 4}, Method: Blocks, Dest: Destination{Exists: true, Ours: true, Node: disk, LV: lvm.LV{VG: "vg0", Name: "a", UUID: "u"}}}
		d.past = past{copied: &l, boot: journal.BootID()}
		return d, &l
	}
	d, _ := fresh()
	if err := c.saveDigests(d, sums); err != nil {
		t.Fatal(err)
	}
	last.Digests = digestsName(d)
	for _, tt := range []struct {
		name           string
		change         func(*Disk, *journal.Copied)
		delta, trusted bool
	}{
		{"nothing changed", func(*Disk, *journal.Copied) {}, true, true},
		{"somebody wrote to it", func(_ *Disk, l *journal.Copied) { l.Written-- }, true, false},
		{"of the same activation", func(d *Disk, l *journal.Copied) { l.DiskSeq = d.Dest.Node.DiskSeq() }, true, true},
		{"activated again, and as much was written", func(d *Disk, l *journal.Copied) { l.DiskSeq = d.Dest.Node.DiskSeq() + 1 }, true, false},
		{"another boot", func(d *Disk, _ *journal.Copied) { d.past.boot = "other" }, true, false},
		{"the last pass did not end", func(d *Disk, _ *journal.Copied) { d.Dest.LV.Tags = []string{lvm.TagIncomplete} }, true, false},
		{"a partial pass, its tag on", func(d *Disk, l *journal.Copied) { l.Partial, d.Dest.LV.Tags = true, []string{lvm.TagIncomplete} }, true, true},
		{"another size", func(d *Disk, _ *journal.Copied) { d.Info.Size = 5 }, true, false},
		{"the volume was extended", func(d *Disk, _ *journal.Copied) { d.Dest.LV.Size = 4096 }, true, false},
		{"another volume of that name", func(d *Disk, _ *journal.Copied) { d.Dest.LV.UUID = "v" }, false, false},
		{"the other method", func(_ *Disk, l *journal.Copied) { l.Method = "files" }, false, false},
		{"not ours any more", func(d *Disk, _ *journal.Copied) { d.Dest.Ours = false }, false, false},
		{"digests of another volume", func(_ *Disk, l *journal.Copied) { l.Digests = "xvda-v.digests" }, true, false},
	} {
		d, l := fresh()
		tt.change(d, l)
		c.judgePast(d)
		if (d.last != nil) != tt.delta || (c.loadDigests(d) != nil) != tt.trusted {
			t.Errorf("%s: delta %v, digests used %v; want %v, %v", tt.name, d.last != nil, c.loadDigests(d) != nil, tt.delta, tt.trusted)
		}
	}
}

// A volume on which the domain may have run is newer than the image.
func TestNewerVolumeIsNotOverwritten(t *testing.T) {
	for _, tt := range []struct {
		name    string
		change  func(*Disk, *Options)
		refused bool
	}{
		{"switched and written to", func(*Disk, *Options) {}, true},
		{"switched, never written to", func(d *Disk, _ *Options) { d.trusted = true }, false},
		{"never switched", func(d *Disk, _ *Options) { d.past.switched = false }, false},
		{"half overwritten already", func(d *Disk, _ *Options) { d.Dest.LV.Tags = []string{lvm.TagIncomplete} }, false},
		{"asked for", func(_ *Disk, o *Options) { o.Overwrite = true }, false},
	} {
		c := &Conversion{o: Options{Domain: "vm3"}}
		d := &Disk{VDev: "xvda", last: &journal.Copied{}, past: past{switched: true}}
		tt.change(d, &c.o)
		if err := c.checkNewer(d); (fault.StatusOf(err) == fault.Refused) != tt.refused {
			t.Errorf("%s: %v; refused: want %v", tt.name, err, tt.refused)
		}
	}
}

// anyDisk is some block device of this machine that is not written to, and a
// record of a copy onto it.
func anyDisk(t *testing.T) (blkdev.Device, journal.Copied) {
	t.Helper()
	stats, err := filepath.Glob("/sys/dev/block/7:*/stat") // loop devices that nobody attached
	if err != nil || len(stats) == 0 {
		t.Skip("there is no loop device to read the counters of")
	}
	var d blkdev.Device
	if _, err := fmt.Sscanf(stats[len(stats)-1], "/sys/dev/block/%d:%d/stat", &d.Number.Major, &d.Number.Minor); err != nil {
		t.Fatal(err)
	}
	written, err := d.Written()
	if err != nil {
		t.Fatal(err)
	}
	return d, journal.Copied{Destination: journal.Destination{VDev: "xvda", LVUUID: "u", Method: "blocks"}, DiskSize: 4, Written: written}
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

// When nobody can look at a pool that is written to, the work ends at once.
func TestPoolsAreWatched(t *testing.T) {
	c := &Conversion{rep: quiet{}, pools: []string{"xenlvm-no-such-vg/pool"}}
	s := &source{frozen: &snapshot{lv: lvm.LV{VG: "xenlvm-no-such-vg", Name: "s", DMPath: "/dev/mapper/xenlvm-no-such-snapshot"}}}
	const want = "cannot go on writing to xenlvm-no-such-vg/pool"
	for _, notices := range []bool{true, false} { // or has ended before it notices
		err := c.watched(t.Context(), s, func(ctx context.Context) error {
			select {
			case <-ctx.Done():
			case <-time.After(time.Minute):
				return errors.New("nobody ended the work")
			}
			if notices {
				return context.Cause(ctx)
			}
			return nil
		})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want %q", err, want)
		}
	}
}

// A pool that is written to is watched, whatever the snapshot lies on.
func TestWatchesThePoolsOfDestinations(t *testing.T) {
	thin := lvm.LV{VG: "vg0", Name: "a", Type: "thin", Pool: "pool", Size: 1 << 20}
	d := &Disk{Dest: Destination{Exists: true, LV: thin}}
	c := &Conversion{o: Options{StateDir: t.TempDir()}, r: onePool{}, Disks: []*Disk{d}}
	if err := c.checkSpace(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if cmp.Diff([]string{"vg0/pool"}, c.pools) != "" {
		t.Errorf("watched: %q", c.pools)
	}
}

// What does not fit is refused for want of room, and nothing else is.
func TestNoRoom(t *testing.T) {
	d := &Disk{Dest: Destination{LV: lvm.LV{VG: "vg0", Name: "a"}}}
	d.Info.Size = 1 << 30
	c := &Conversion{o: Options{StateDir: t.TempDir()}, r: changes{new([]string)}, Disks: []*Disk{d}}
	if err := c.checkSpace(t.Context(), nil); err != nil {
		t.Errorf("as much as is free: %v", err)
	}
	d.Info.Size++
	if err := c.checkSpace(t.Context(), nil); !errors.Is(err, lvm.ErrNoRoom) || fault.StatusOf(err) != fault.Refused {
		t.Errorf("more than is free: %v", err)
	}
	d.Info.Size, c.o.StateDir = 1, "/proc"
	if err := c.checkSpace(t.Context(), nil); err == nil || errors.Is(err, lvm.ErrNoRoom) {
		t.Errorf("no room for digests: %v", err)
	}
}

// There is room for the digests of every size of a disk.
func TestDigestsOf(t *testing.T) {
	for size := units.Bytes(1 << 20); size <= 1<<60; size *= 2 {
		for _, size := range []units.Bytes{size, size + 4096, size * 3 / 2} {
			blocks := size / 4096
			for block := units.Bytes(8192); blocks > 1<<20 && block <= 8<<20; block *= 2 {
				blocks = size / block
			}
			if need, got := 16*blocks+2*blocks/8, digestsOf(size)+1<<20; got < need || got > 2*need+19<<20 {
				t.Errorf("%s: %s for %s of digests", size, got, need)
			}
		}
	}
}

// onePool answers lvs with a thin pool that has room.
type onePool struct{}

func (onePool) Run(context.Context, run.Cmd) (run.Result, error) {
	return run.Result{Stdout: []byte(`{"report":[{"lv":[{"lv_size":"1073741824","data_percent":"1","lv_metadata_size":"16777216","metadata_percent":"1"}]}]}`)}, nil
}

// Whose disk it is: by its path, its inode, or its device.
func TestHasDisk(t *testing.T) {
	dir := t.TempDir()
	image, other, link := filepath.Join(dir, "a"), filepath.Join(dir, "b"), filepath.Join(dir, "l")
	for _, path := range []string{image, other} {
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(image, link); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		disk xl.Disk
		want bool
	}{
		{xl.Disk{Path: image}, true},
		{xl.Disk{Path: link}, true},
		{xl.Disk{Path: other}, false},
		{xl.Disk{}, false},
		{xl.Disk{Path: image + ".gone"}, false},
		{xl.Disk{Path: other, HasDevice: true, Major: 7, Minor: 1 << 19}, false},
	} {
		if got := HasDisk(tt.disk, image); got != tt.want {
			t.Errorf("%+v: %v", tt.disk, got)
		}
	}
	d, _ := anyDisk(t)
	sys, err := os.Readlink("/sys/dev/block/" + d.Number.String())
	if err != nil {
		t.Fatal(err)
	}
	node := "/dev/" + filepath.Base(sys)
	if !HasDisk(xl.Disk{HasDevice: true, Major: d.Number.Major, Minor: d.Number.Minor}, node) || !HasDisk(xl.Disk{Path: node}, node) {
		t.Errorf("%s is not found by its number, or by its path", node)
	}
}

func TestTooSmallSaysHowMuch(t *testing.T) {
	v := &snapshot{lv: lvm.LV{VG: "vg0", Name: "s", Size: 100 << 30, COW: 1 << 30}}
	err := v.tooSmall(&source{work: 40 << 30, done: 10 << 30})
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
		{VDev: "xvdb", Image: "/b", Dest: Destination{Path: "/dev/vg0/b"}, Result: Result{Partial: true}},
	}}
	lines := c.Lines(mapping.Copied)
	if lines[0].State != mapping.Copied || lines[1].State != mapping.Planned {
		t.Errorf("states %s, %s; a partial copy must not be applied", lines[0].State, lines[1].State)
	}
}
