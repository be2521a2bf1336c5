package changed

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"xenlvm/lib/loopdev"
)

// cloned makes a clone of the file at path.
func (v *volume) cloned(path, clone string) *os.File {
	v.t.Helper()
	command(v.t, "cp", "--reflink=always", path, clone)
	f, err := os.Open(clone)
	must(v.t, err)
	return f
}

// around does what the file system, or its administrator, may do meanwhile.
func (v *volume) around(rnd *rand.Rand, base, live string) {
	v.t.Helper()
	switch rnd.IntN(6) {
	case 0:
		v.trim()
	case 1: // shares what is equal again
		b, err := os.Open(base)
		must(v.t, err)
		defer b.Close()
		l, err := os.OpenFile(live, os.O_RDWR, 0)
		must(v.t, err)
		defer l.Close()
		for off := uint64(0); off < fileSize; off += 16 * block {
			_ = unix.IoctlFileDedupeRange(int(b.Fd()), &unix.FileDedupeRange{Src_offset: off, Src_length: 16 * block,
				Info: []unix.FileDedupeRangeInfo{{Dest_fd: int64(l.Fd()), Dest_offset: off}}})
		}
	case 2:
		if v.fsType == "btrfs" {
			command(v.t, "btrfs", "--quiet", "balance", "start", "--full-balance", v.live)
		} else {
			command(v.t, "xfs_fsr", live)
		}
	}
}

// trim discards what is free.
func (v *volume) trim() {
	dir, err := os.Open(v.live)
	must(v.t, err)
	defer dir.Close()
	trim := struct{ start, len, minlen uint64 }{len: 1 << 60}
	const fitrim = 0xc0185879
	must(v.t, ioctl(dir, fitrim, unsafe.Pointer(&trim)))
}

// TestRootClones compares two clones of a file: what is predicted for random histories
// between them with all bytes of both.
func TestRootClones(t *testing.T) {
	for _, c := range []struct {
		name, fsType, size string
		second             bool // the file system gets another device
		data               string
		n                  int
	}{
		{"xfs", "xfs", "300M", false, "", 80},
		{"btrfs", "btrfs", "300M", false, "", 80},
		{"btrfs on two devices", "btrfs", "300M", true, "", 40},
		{"btrfs with autodefrag", "btrfs", "300M", false, "autodefrag", 20},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := newVolume(t, c.fsType, c.data, c.size)
			if c.second {
				v.grow(c.size)
			}
			rnd := rand.New(rand.NewPCG(2, uint64(c.n)))
			live := filepath.Join(v.live, "disk.img")
			v.history(rnd, "disk.img", true)
			base := v.cloned(live, filepath.Join(v.live, "clone0"))
			var s score
			for i := range c.n {
				v.history(rnd, "disk.img", i%2 == 1)
				v.around(rnd, base.Name(), live)
				now := v.cloned(live, filepath.Join(v.live, fmt.Sprintf("clone%d", i+1)))
				v.history(rnd, "disk.img", true) // the guest does not wait for us
				got, err := Cloned(base, now)
				if c.fsType == "btrfs" && errors.Is(err, ErrNoMap) {
					t.Logf("history %d: %v", i, err) // a file of a few bytes lies among the metadata
				} else {
					must(t, err)
					old, err := os.ReadFile(base.Name())
					must(t, err)
					content, err := os.ReadFile(now.Name())
					must(t, err)
					s.judge(t, fmt.Sprintf("history %d", i), got, old, content)
				}
				must(t, errors.Join(base.Close(), os.Remove(base.Name())))
				base = now
			}
			must(t, base.Close())
			s.report(t, "all", 10)
		})
	}
}

// grow gives a btrfs another device, and spreads over both what it has.
func (v *volume) grow(size string) {
	v.t.Helper()
	image := filepath.Join(v.dir, "second")
	command(v.t, "truncate", "-s", size, image)
	loop, err := loopdev.Attach(v.t.Context(), image, loopdev.Options{})
	must(v.t, err)
	v.t.Cleanup(func() { _ = loop.DetachLater() })
	command(v.t, "btrfs", "--quiet", "device", "add", loop.Path, v.live)
	command(v.t, "btrfs", "--quiet", "balance", "start", "-dconvert=raid0", "-mconvert=raid1", v.live)
}

// TestRootClonesRefused are files of which the places do not tell what changed.
func TestRootClonesRefused(t *testing.T) {
	xfs, other := newVolume(t, "xfs", "", "300M"), newVolume(t, "xfs", "", "300M")
	btrfs, zipped, ext4 := newVolume(t, "btrfs", "", "300M"), newVolume(t, "btrfs", "compress-force=zstd", "300M"), newVolume(t, "ext4", "", "64M")
	command(t, "btrfs", "--quiet", "subvolume", "create", filepath.Join(btrfs.live, "sub"))
	file := func(dir, name string, size int) *os.File {
		f, err := os.Create(filepath.Join(dir, name))
		must(t, err)
		t.Cleanup(func() { f.Close() })
		_, err = f.Write(make([]byte, size))
		must(t, err)
		return f
	}
	same := file(xfs.live, "a", mib)
	for _, tt := range []struct {
		name      string
		base, now *os.File
		noMap     bool
		want      string
	}{
		{"itself", same, same, false, "with itself"},
		{"two file systems", same, file(other.live, "a", mib), false, "not on one file system"},
		{"two subvolumes", file(btrfs.live, "a", mib), file(btrfs.live, "sub/a", mib), false, "in two subvolumes"},
		{"compressed", file(zipped.live, "a", mib), file(zipped.live, "b", mib), true, "compressed"},
		{"among the metadata", file(btrfs.live, "b", 100), file(btrfs.live, "c", 100), true, "among the metadata"},
		{"one that overwrites in place", file(ext4.live, "a", mib), file(ext4.live, "b", mib), true, "neither xfs nor btrfs"},
	} {
		if _, err := Cloned(tt.base, tt.now); err == nil || errors.Is(err, ErrNoMap) != tt.noMap || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v; want %q", tt.name, err, tt.want)
		}
	}
}

// TestRootClonesWhileMoved compares clones while the file system moves what they have:
// it is an error, or right.
func TestRootClonesWhileMoved(t *testing.T) {
	v := newVolume(t, "btrfs", "", "300M")
	rnd := rand.New(rand.NewPCG(3, 3))
	live := filepath.Join(v.live, "disk.img")
	v.history(rnd, "disk.img", true)
	base := v.cloned(live, filepath.Join(v.live, "base"))
	v.history(rnd, "disk.img", true)
	now := v.cloned(live, filepath.Join(v.live, "now"))
	old, err := os.ReadFile(base.Name())
	must(t, err)
	content, err := os.ReadFile(now.Name())
	must(t, err)
	stopped := make(chan error)
	go func() {
		var err error
		for range 10 {
			err = errors.Join(err, exec.Command("btrfs", "--quiet", "balance", "start", "--full-balance", v.live).Run())
		}
		stopped <- err
	}()
	where, err := ReadMap(base)
	must(t, err)
	var s score
	compared, refused, moves := 0, 0, 0
	for ended := false; !ended; compared++ {
		select {
		case err := <-stopped:
			must(t, err)
			ended = true
		default:
		}
		got, err := Cloned(base, now)
		if err != nil && !strings.Contains(err.Error(), "is moving its blocks") {
			t.Fatal(err)
		}
		if err != nil {
			refused++
		} else {
			s.judge(t, fmt.Sprintf("comparison %d", compared), got, old, content)
		}
		m, err := ReadMap(base)
		must(t, err)
		if !slices.Equal(m.Data, where.Data) {
			where, moves = m, moves+1
		}
	}
	must(t, errors.Join(base.Close(), now.Close()))
	t.Logf("%d comparisons, %d refused, %d moves, %d blocks missed", compared, refused, moves, s.missed)
	if moves == 0 {
		t.Error("nothing was moved meanwhile")
	}
}
