package convert

import (
	"bytes"
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"xenlvm/lib/blkdev"
	"xenlvm/lib/diskimg"
	"xenlvm/lib/fault"
	"xenlvm/lib/journal"
	"xenlvm/lib/lvm"
	"xenlvm/lib/run"
	"xenlvm/lib/snap"
	"xenlvm/lib/step"
	"xenlvm/lib/units"
)

// cloning is a conversion of one image on a new file system that can clone.
type cloning struct {
	t       *testing.T
	c       *Conversion
	d       *Disk
	dir     string // with the image
	backing string // of the destination
	told    []string
}

func newCloning(t *testing.T, fsType string, mkfs ...string) *cloning {
	t.Helper()
	needRoot(t)
	x := &cloning{t: t, dir: t.TempDir(), backing: filepath.Join(t.TempDir(), "volume")}
	device := filepath.Join(t.TempDir(), "device")
	must(t, os.WriteFile(device, nil, 0o600), os.Truncate(device, 400<<20))
	program(t, "mkfs."+fsType, append(mkfs, "-q", device)...)
	under := loop(t, device)
	t.Cleanup(func() { _ = under.DetachLater() })
	must(t, unix.Mount(under.Path, x.dir, fsType, 0, ""))
	t.Cleanup(func() { must(t, unix.Unmount(x.dir, 0)) })
	must(t, os.WriteFile(x.backing, bytes.Repeat([]byte{0xa5}, imageSize), 0o600))
	dest := loop(t, x.backing)
	t.Cleanup(func() { _ = dest.DetachLater() })
	node, err := blkdev.Stat(dest.Path)
	must(t, err)
	x.c = conversion(t, &x.told)
	x.c.journal.Domain = "vm3"
	x.c.o = Options{Domain: "vm3", Whole: true, KeepBase: true, SnapshotSize: units.Share{Percent: 10}}
	x.d = &Disk{VDev: "xvda", Image: filepath.Join(x.dir, "vm3.img"), Inside: "vm3.img", cloned: true, Format: "raw", Method: Blocks,
		Info: diskimg.Info{Size: imageSize, FileSize: imageSize}, Dest: Destination{Path: dest.Path, Node: node, LV: lvm.LV{VG: "vg0", Name: "a", UUID: "u"}}}
	x.c.Disks = []*Disk{x.d}
	must(t, os.WriteFile(x.d.Image, nil, 0o600), os.Truncate(x.d.Image, imageSize))
	var st unix.Stat_t
	must(t, unix.Stat(x.d.Image, &st))
	x.d.inode = st.Ino
	return x
}

// clones is those beside the image.
func (x *cloning) clones() []string {
	x.t.Helper()
	found, err := filepath.Glob(filepath.Join(x.dir, ".xenlvm-*"))
	must(x.t, err)
	for i := range found {
		found[i] = filepath.Base(found[i])
	}
	return found
}

// write has the guest write somewhere.
func (x *cloning) write(rnd *rand.Rand, times int) {
	x.t.Helper()
	f, err := os.OpenFile(x.d.Image, os.O_WRONLY, 0)
	must(x.t, err)
	defer f.Close()
	for range times {
		b := bytes.Repeat([]byte{byte(1 + rnd.IntN(255))}, 1+rnd.IntN(100<<10))
		_, err := f.WriteAt(b, rnd.Int64N(imageSize-int64(len(b))))
		must(x.t, err)
		must(x.t, unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, rnd.Int64N(imageSize), 1+rnd.Int64N(50<<10)))
	}
}

// look is what the next run knows.
func (x *cloning) look() {
	x.t.Helper()
	x.told = nil
	records, err := x.c.journal.Read()
	must(x.t, err)
	x.c.bases = nil
	for _, k := range clonesIn(records) {
		x.c.bases = append(x.c.bases, k)
	}
	x.d.Result, x.d.changed = Result{}, nil
	x.d.last = remember(records, "xvda", x.d.Image).copied
	x.d.trusted = x.d.last != nil
}

// pass makes one, during which the guest goes on; the image as it was is returned.
func (x *cloning) pass(rnd *rand.Rand) (was []byte) {
	t := x.t
	t.Helper()
	x.look()
	var plan, commit step.Plan
	sources, err := x.c.planSources(t.Context(), &plan)
	must(t, err, x.c.checkDirs(sources))
	s := sources[0]
	was = read(t, x.d.Image)
	var p blocksPass
	plan = append(plan, step.Step{What: "copy", Do: func(ctx context.Context) error {
		x.write(rnd, 3)
		must(t, s.look(x.d))
		return x.c.watched(ctx, s, func(ctx context.Context) (err error) {
			p, err = x.c.copyBlocks(ctx, s, x.d)
			return err
		})
	}}, step.Step{What: "verify", Do: func(ctx context.Context) error { return x.c.verify(ctx, s, x.d, p) }})
	commit = append(planKeep(s), step.Step{What: "record", Do: func(context.Context) error { return x.c.record(s, x.d) }})
	must(t, plan.Run(t.Context(), nil), commit.Run(t.Context(), nil))
	return was
}

// A pass from a clone has the image of one instant, whatever the guest does meanwhile;
// the next one reads what changed, and nothing is left but what is kept.
func TestRootPassesFromClones(t *testing.T) {
	for _, fsType := range []string{"xfs", "btrfs"} {
		t.Run(fsType, func(t *testing.T) {
			x := newCloning(t, fsType)
			rnd := rand.New(rand.NewPCG(7, 7))
			x.write(rnd, 200)
			before := x.pass(rnd)
			if x.d.Result.Delta != "" || !bytes.Equal(read(t, x.backing), before) {
				t.Errorf("the first copy is not equal, or by %q", x.d.Result.Delta)
			}
			for i, kept := range []string{".xenlvm-vm3-xvda-base2", ".xenlvm-vm3-xvda-base", ".xenlvm-vm3-xvda-base2"} {
				x.write(rnd, 5)
				was := x.pass(rnd)
				if x.d.Result.Delta != byClones || !bytes.Equal(read(t, x.backing), was) {
					t.Errorf("pass %d is not equal, or by %q; said %q", i, x.d.Result.Delta, x.told)
				}
				changed := differ(t, before, was)
				if read, most := x.d.Result.BytesRead, changed.Align(64<<10).Bytes()+4<<20; read > most {
					t.Errorf("pass %d read %d bytes where %d changed", i, read, changed.Bytes())
				}
				if got := x.clones(); !slices.Equal(got, []string{kept}) {
					t.Errorf("pass %d left %q", i, got)
				}
				before = was
			}
			x.c.o.KeepBase = false
			if was := x.pass(rnd); x.d.Result.Delta != byClones || !bytes.Equal(read(t, x.backing), was) || len(x.clones()) != 0 {
				t.Errorf("the last pass is not equal, or by %q, or left %q", x.d.Result.Delta, x.clones())
			}
		})
	}
}

// A base that is not what was kept is never used, and only what is ours is removed.
func TestRootClonesOfNoUse(t *testing.T) {
	x := newCloning(t, "xfs")
	rnd := rand.New(rand.NewPCG(8, 8))
	x.write(rnd, 50)
	base := filepath.Join(x.dir, ".xenlvm-vm3-xvda-base")
	for _, tt := range []struct {
		name, says string
		spoil      func()
	}{
		{"somebody wrote to it", "somebody changed it", func() {
			f, err := os.OpenFile(base, os.O_WRONLY, 0)
			must(t, err)
			_, err = f.WriteAt([]byte("x"), 1<<20)
			must(t, err, f.Close())
		}},
		{"it is gone", "the base of its last copy is gone", func() { must(t, os.Remove(base)) }},
		{"it lies elsewhere", "the base of its last copy is gone", func() { must(t, os.Rename(base, filepath.Join(x.dir, "mine"))) }},
	} {
		x.c.o.KeepBase = true
		x.pass(rnd)
		tt.spoil()
		x.write(rnd, 5)
		x.c.o.KeepBase = false
		was := x.pass(rnd)
		if x.d.Result.Delta != byDigests || !strings.Contains(strings.Join(x.told, "\n"), tt.says) || !bytes.Equal(read(t, x.backing), was) {
			t.Errorf("%s: by %q, said %q", tt.name, x.d.Result.Delta, x.told)
		}
		if got := x.clones(); len(got) != 0 {
			t.Errorf("%s: left %q", tt.name, got)
		}
	}
	if _, err := os.Stat(filepath.Join(x.dir, "mine")); err != nil {
		t.Error(err)
	}
}

// What a killed run left is cleared by the next one, and nothing else.
func TestRootClonesAreReclaimed(t *testing.T) {
	x := newCloning(t, "xfs")
	rnd := rand.New(rand.NewPCG(9, 9))
	x.pass(rnd)
	x.look()
	var plan step.Plan
	sources, err := x.c.planSources(t.Context(), &plan)
	must(t, err)
	made := sources[0].made
	must(t, made.Do(t.Context())) // and then it is killed
	if got := x.clones(); !slices.Equal(got, []string{".xenlvm-vm3-xvda-base", ".xenlvm-vm3-xvda-base2"}) {
		t.Fatalf("there are %q", got)
	}
	records, err := x.c.journal.Read()
	must(t, err)
	// As it is when it was killed before it was written down that it is done.
	if last := records[len(records)-1]; last.Kind != journal.KindClone {
		t.Fatalf("the last record is %s", last.Kind)
	}
	leftovers, err := Reclaim(t.Context(), snapshots{}, "vm3", records[:len(records)-1])
	must(t, err)
	leftovers = slices.DeleteFunc(leftovers, func(s step.Step) bool { return strings.HasPrefix(s.Line, "lvremove") })
	must(t, leftovers.Run(t.Context(), nil))
	if got := x.clones(); !slices.Equal(got, []string{".xenlvm-vm3-xvda-base"}) {
		t.Errorf("left %q", got)
	}
	// Another file of that name is nobody's leftover, and in the way of the next run.
	other := filepath.Join(x.dir, ".xenlvm-vm3-xvda-base2")
	must(t, os.WriteFile(other, nil, 0o600))
	x.look()
	if _, err := x.c.planSources(t.Context(), &plan); fault.StatusOf(err) != fault.Refused || !strings.Contains(err.Error(), "there is such a file") {
		t.Errorf("a file in the way: %v", err)
	}
	all, err := DropBases(t.Context(), snapshots{}, "vm3", records)
	must(t, err)
	all = slices.DeleteFunc(all, func(s step.Step) bool { return strings.HasPrefix(s.Line, "lvremove") })
	must(t, all.Run(t.Context(), nil))
	if got := x.clones(); !slices.Equal(got, []string{filepath.Base(other)}) {
		t.Errorf("left %q", got)
	}
}

// What could fill the file system of a running guest is not kept, not begun, and ended.
func TestRootClonesLeaveRoom(t *testing.T) {
	x := newCloning(t, "xfs")
	must(t, os.WriteFile(x.d.Image, bytes.Repeat([]byte("x"), imageSize), 0o600))
	filler, err := os.Create(filepath.Join(x.dir, "filler"))
	must(t, err)
	defer filler.Close()
	leave := func(size units.Bytes) {
		t.Helper()
		must(t, filler.Truncate(0), filler.Sync())
		room, err := snap.Room(x.dir)
		must(t, err, unix.Fallocate(int(filler.Fd()), 0, 0, int64(room-size)))
	}
	leave(imageSize * 3 / 4)
	rnd := rand.New(rand.NewPCG(10, 10))
	was := x.pass(rnd)
	if got := x.clones(); len(got) != 0 || !strings.Contains(strings.Join(x.told, "\n"), "is not kept as a base") || !bytes.Equal(read(t, x.backing), was) {
		t.Errorf("left %q, said %q", got, x.told)
	}
	leave(imageSize / 20)
	x.look()
	var plan step.Plan
	sources, err := x.c.planSources(t.Context(), &plan)
	must(t, err)
	if err := x.c.checkDirs(sources); fault.StatusOf(err) != fault.Refused || !strings.Contains(err.Error(), "has room for") {
		t.Errorf("nearly full: %v", err)
	}
	leave(0)
	err = x.c.watched(t.Context(), sources[0], func(ctx context.Context) error {
		<-ctx.Done()
		return context.Cause(ctx)
	})
	if err == nil || !strings.Contains(err.Error(), snap.ErrNearlyFull.Error()) {
		t.Errorf("full while it is copied: %v", err)
	}
}

// Two pieces of one image are refused to be two moments: it was replaced.
func TestRootCloneOfAnother(t *testing.T) {
	x := newCloning(t, "xfs")
	x.d.inode++
	x.look()
	var plan step.Plan
	_, err := x.c.planSources(t.Context(), &plan)
	must(t, err)
	if err := plan.Run(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "replaced by another file") || len(x.clones()) != 0 {
		t.Errorf("%v; left %q", err, x.clones())
	}
}

// onVolume answers lvs with a volume that everything lies on, or with none.
type onVolume bool

func (v onVolume) Run(context.Context, run.Cmd) (run.Result, error) {
	rows := ""
	if v {
		rows = `{"vg_name":"vg0","lv_name":"images","lv_uuid":"o"}`
	}
	return run.Result{Stdout: []byte(`{"report":[{"lv":[` + rows + `]}]}`)}, nil
}

// A snapshot is taken where one can be, and a clone is made where not, or asked for.
func TestRootSnapshotOrClone(t *testing.T) {
	xfs, ext4 := newCloning(t, "xfs"), newCloning(t, "ext4")
	for _, tt := range []struct {
		name   string
		x      *cloning
		volume onVolume
		asked  bool
		cloned bool
		err    string
	}{
		{"xfs on a volume", xfs, true, false, false, ""},
		{"a clone asked for", xfs, true, true, true, ""},
		{"xfs on none", xfs, false, false, true, ""},
		{"ext4 on a volume", ext4, true, false, false, ""},
		{"a clone on ext4 asked for", ext4, true, true, false, "cannot clone"},
		{"ext4 on none", ext4, false, false, false, "it is not on a logical volume but on device"},
	} {
		d := &Disk{VDev: "xvda", Image: tt.x.d.Image, Method: Blocks}
		c := &Conversion{o: Options{Domain: "vm3", Clone: tt.asked}, r: tt.volume, Disks: []*Disk{d}}
		err := c.findOrigin(t.Context(), d)
		if tt.err != "" {
			if fault.StatusOf(err) != fault.Refused || !strings.Contains(err.Error(), tt.err) || !strings.Contains(err.Error(), "neither xfs nor btrfs") || len(fault.Hints(err)) == 0 {
				t.Errorf("%s: %v, hints %q", tt.name, err, fault.Hints(err))
			}
			continue
		}
		must(t, err)
		if _, cloned := c.sources()[0].frozen.(*clone); cloned != tt.cloned || (d.OriginSpec() == "") != tt.cloned {
			t.Errorf("%s: cloned %v, from volume %q", tt.name, cloned, d.OriginSpec())
		}
	}
}
