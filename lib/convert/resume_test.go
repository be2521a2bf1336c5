package convert

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"xenlvm/lib/blockcopy"
	"xenlvm/lib/extent"
	"xenlvm/lib/fault"
	"xenlvm/lib/journal"
	"xenlvm/lib/lvm"
)

// stuck is a source whose second half can be read only after a checkpoint, and then
// ends the copy, as a kill would.
type stuck struct {
	data    []byte
	written chan struct{}
}

var errKilled = errors.New("killed")

func (s stuck) Size() int64               { return int64(len(s.data)) }
func (s stuck) Data() (extent.Set, error) { return extent.Whole(s.Size()), nil }
func (s stuck) ReadAt(b []byte, off int64) (int, error) {
	if off >= s.Size()/2 {
		<-s.written
		return 0, errKilled
	}
	return copy(b, s.data[off:]), nil
}

// A copy that was killed goes on where it was, unless anything else may have happened
// to its volume.
func TestGoesOnAfterAKill(t *testing.T) {
	data := bytes.Repeat([]byte("data"), 16<<20/4)
	var told []string
	c := conversion(t, &told)
	fresh := func() *Disk {
		return &Disk{VDev: "xvda", Method: Blocks, past: past{method: Blocks, destination: "vg0/a"},
			Dest: Destination{Exists: true, Ours: true, LV: lvm.LV{VG: "vg0", Name: "a", UUID: "u", Tags: []string{lvm.TagIncomplete}}}}
	}
	dst, err := os.Create(filepath.Join(t.TempDir(), "dst"))
	if err != nil {
		t.Fatal(err)
	}
	defer dst.Close()
	src := stuck{data, make(chan struct{})}
	checkpoint := c.checkpoint(fresh())
	done := false
	o := blockcopy.Options{Checkpoint: func(sums *blockcopy.Digests) error {
		err := checkpoint(sums)
		if !done {
			close(src.written)
			done = true
		}
		return err
	}}
	if _, _, err := blockcopy.Copy(t.Context(), dst, src, o); !errors.Is(err, errKilled) {
		t.Fatal(err)
	}
	kept, err := os.ReadFile(c.journal.Path(checkpointName(fresh())))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		change func(*Disk)
		goesOn bool
	}{
		{"as it was left", func(*Disk) {}, true},
		{"the volume was finished", func(d *Disk) { d.Dest.LV.Tags = nil }, false},
		{"by files since", func(d *Disk) { d.past.method = Files }, false},
		{"mirrored since", func(d *Disk) { d.past.method = Mirror }, false},
		{"to another volume since", func(d *Disk) { d.past.destination = "vg0/b" }, false},
		{"the volume was extended", func(d *Disk) { d.Dest.LV.Size = 1 << 30 }, false},
		{"another volume of that name", func(d *Disk) { d.Dest.LV.UUID = "v" }, false},
		{"somebody wrote to it", func(*Disk) {
			if _, err := dst.WriteAt(make([]byte, 1<<20), 0); err != nil {
				t.Fatal(err)
			}
		}, false},
	} {
		d := fresh()
		if err := os.WriteFile(c.journal.Path(checkpointName(d)), kept, 0o600); err != nil {
			t.Fatal(err)
		}
		tt.change(d)
		told = nil
		sums, err := c.before(t.Context(), d, dst, src.Size())
		if err != nil {
			t.Fatal(err)
		}
		if (sums != nil) != tt.goesOn || (d.Result.Delta == byCheckpoint) != tt.goesOn || strings.Contains(strings.Join(told, ""), "going on") != tt.goesOn {
			t.Errorf("%s: goes on: %v, by %q, said %q", tt.name, sums != nil, d.Result.Delta, told)
		}
		if sums != nil && sums.Unknown().Bytes() != src.Size()/2 {
			t.Errorf("%s: %d bytes are unknown", tt.name, sums.Unknown().Bytes())
		}
		// Nor may it outlast the first write of a copy that goes on.
		if _, err := os.Stat(c.journal.Path(checkpointName(d))); err == nil {
			t.Errorf("%s: what is not used any more is kept", tt.name)
		}
	}
}

// What was found wrong is not taken for done by the next pass.
func TestMismatchForgetsTheCheckpoint(t *testing.T) {
	needRoot(t)
	d, image, backing, _ := passes(t, true)
	var told []string
	c := conversion(t, &told)
	c.o.Whole = true
	s := &source{frozen: &snapshot{point: filepath.Dir(image), lv: lvm.LV{UUID: "b"}}}
	pass, err := c.copyBlocks(t.Context(), s, d)
	must(t, err, c.keepDigests(checkpointName(d), pass.sums))
	f, err := os.OpenFile(backing, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	_, err = f.WriteAt([]byte("wrong"), 8<<20)
	must(t, err)
	if err := c.verify(t.Context(), s, d, pass); fault.StatusOf(err) != fault.Mismatch {
		t.Fatalf("a wrong block: %v", err)
	}
	if _, err := os.Stat(c.journal.Path(checkpointName(d))); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the checkpoint is still there: %v", err)
	}
}

// A delta relies on what earlier passes read back, and on no others.
func TestDeltaOnWhatWasNotVerified(t *testing.T) {
	for how, want := range map[Verified]bool{"": true, VerifiedFull: true, VerifiedWritten: true, VerifiedSample: false, VerifiedNone: false} {
		d := &Disk{last: &journal.Copied{Verified: string(how)}}
		if d.verified() != want {
			t.Errorf("after %q: %v", string(how), d.verified())
		}
	}
}

// A copy that cannot write down how far it is goes on.
func TestHopelessCheckpoint(t *testing.T) {
	var told []string
	c := conversion(t, &told)
	d := &Disk{VDev: "xvda", Dest: Destination{LV: lvm.LV{UUID: "u"}}}
	must(t, os.RemoveAll(c.journal.Dir))
	write := c.checkpoint(d)
	for range 2 {
		must(t, write(nil))
	}
	if len(told) != 1 || !strings.Contains(told[0], "begins anew") {
		t.Errorf("said %q", told)
	}
}
