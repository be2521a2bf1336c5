package changed

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"xenlvm/lib/blkdev"
	"xenlvm/lib/extent"
	"xenlvm/lib/loopdev"
	"xenlvm/lib/mnt"
)

const (
	mib      = 1 << 20
	block    = 4096
	fiFreeze = 0xc0045877 // FIFREEZE of linux/fs.h
	fiThaw   = 0xc0045878 // FITHAW
)

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 || os.Getenv("XENLVM_ROOT_TESTS") != "1" {
		t.Skip("mounts: needs root and XENLVM_ROOT_TESTS=1")
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// mounted attaches an image to a loop device and mounts it on dir.
func mounted(t *testing.T, image, dir, fsType, data string, rw bool) (device blkdev.Number, unmount func()) {
	t.Helper()
	loop, err := loopdev.Attach(t.Context(), image, loopdev.Options{ReadOnly: !rw})
	must(t, err)
	m := mnt.Mount{Device: loop.Path, Point: dir, Type: fsType, RW: rw, Data: data}
	done := false
	unmount = func() {
		if done {
			return
		}
		done = true
		if err := errors.Join(m.Undo(), loop.Detach(t.Context())); err != nil && t.Context().Err() == nil {
			t.Error(err)
		}
	}
	t.Cleanup(func() {
		if !done {
			done = true
			_ = m.Undo()
			_ = loop.DetachLater()
		}
	})
	must(t, m.Do())
	d, err := blkdev.Stat(loop.Path)
	must(t, err)
	return d.Number, unmount
}

// volume is a mounted file system whose device can be copied at one instant, as an
// LVM snapshot does.
type volume struct {
	t             *testing.T
	dir, live     string // files of the test, the mount point
	fsType        string
	device        blkdev.Number
	before, after string // two copies of the device
}

func newVolume(t *testing.T, fsType, data string, size string, mkfs ...string) *volume {
	needRoot(t)
	// Each history is written back several times: in memory, where there is some.
	dir, err := os.MkdirTemp("/dev/shm", "changed-test-")
	if err == nil {
		t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	} else {
		dir = t.TempDir()
	}
	v := &volume{t: t, dir: dir, live: filepath.Join(dir, "live"), fsType: fsType, before: filepath.Join(dir, "before"), after: filepath.Join(dir, "after")}
	image := filepath.Join(dir, "device")
	command(t, "truncate", "-s", size, image)
	command(t, "mkfs."+fsType, append(mkfs, "-q", image)...)
	v.device, _ = mounted(t, image, v.live, fsType, data, true)
	return v
}

func command(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
}

// snapshot makes the last copy the one before, and a new one of this moment.
func (v *volume) snapshot() {
	v.t.Helper()
	if _, err := os.Stat(v.after); err == nil {
		must(v.t, os.Rename(v.after, v.before))
	}
	f, err := os.Open(v.live)
	must(v.t, err)
	defer f.Close()
	must(v.t, unix.IoctlSetInt(int(f.Fd()), fiFreeze, 0))
	defer func() { must(v.t, unix.IoctlSetInt(int(f.Fd()), fiThaw, 0)) }()
	command(v.t, "cp", "--sparse=auto", filepath.Join(v.dir, "device"), v.after)
}

// written is what a snapshot taken at the copy before would have as exceptions: the
// blocks of the device that differ.
func (v *volume) written() extent.Set {
	v.t.Helper()
	a, err := os.Open(v.before)
	must(v.t, err)
	defer a.Close()
	b, err := os.Open(v.after)
	must(v.t, err)
	defer b.Close()
	return differ(v.t, a, b, block)
}

// differ is the pieces in which two files of equal size differ.
func differ(t *testing.T, a, b io.ReaderAt, piece int) extent.Set {
	t.Helper()
	var set extent.Set
	ba, bb := make([]byte, mib), make([]byte, mib)
	for at := int64(0); ; at += mib {
		n, err := a.ReadAt(ba, at)
		if n == 0 && errors.Is(err, io.EOF) {
			return set
		}
		if m, _ := b.ReadAt(bb, at); m != n {
			t.Fatalf("read %d and %d bytes at %d", n, m, at)
		}
		if bytes.Equal(ba[:n], bb[:n]) {
			continue
		}
		for i := 0; i < n; i += piece {
			if end := min(i+piece, n); !bytes.Equal(ba[i:end], bb[i:end]) {
				set.Add(at+int64(i), int64(end-i))
			}
		}
	}
}

// view maps and reads a file in a copy of the device.
func (v *volume) view(copy, file string) (Map, []byte) {
	v.t.Helper()
	device, unmount := mounted(v.t, copy, filepath.Join(v.dir, "view"), v.fsType, mnt.ReadOnly(v.fsType), false)
	defer unmount()
	f, err := os.Open(filepath.Join(v.dir, "view", file))
	must(v.t, err)
	defer f.Close()
	must(v.t, OnVolume(f, device))
	m, err := ReadMap(f)
	must(v.t, err)
	content, err := io.ReadAll(f)
	must(v.t, err)
	return m, content
}

// score counts blocks over many histories.
type score struct{ histories, predicted, different, missed int64 }

// judge compares a prediction with the contents at both moments.
func (s *score) judge(t *testing.T, what string, got extent.Set, before, after []byte) {
	t.Helper()
	n := int64(min(len(before), len(after)))
	fine := differ(t, bytes.NewReader(before[:n]), bytes.NewReader(after[:n]), 64)
	if grown := int64(len(after)) - n; grown > 0 {
		fine.Add(n, grown)
	}
	if missed := fine.Subtract(got); !missed.Empty() {
		s.missed += missed.Align(block).Bytes() / block
		t.Errorf("%s: missed %d bytes, first %v", what, missed.Bytes(), slices.Collect(missed.All())[0])
	}
	if got.End() > int64(len(after)) {
		t.Errorf("%s: it reaches to %d of %d", what, got.End(), len(after))
	}
	s.histories++
	s.predicted += got.Align(block).Bytes() / block
	s.different += fine.Align(block).Bytes() / block
}

// report wants at most so many times what changed.
func (s *score) report(t *testing.T, what string, most float64) {
	ratio := float64(s.predicted) / float64(s.different)
	t.Logf("%s: %d histories: %d blocks predicted, %d different (%.3f), %d missed", what, s.histories, s.predicted, s.different, ratio, s.missed)
	if ratio > most {
		t.Errorf("%.3f times what changed was predicted; want at most %.2f", ratio, most)
	}
}

const fileSize = 6 * mib

// history does random things to a file, and to others beside it: what a guest can do
// to its image or, if wild, what its host can, too.
func (v *volume) history(rnd *rand.Rand, name string, wild bool) {
	v.t.Helper()
	path := filepath.Join(v.live, name)
	open := func() *os.File {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		must(v.t, err)
		return f
	}
	f := open()
	defer func() { f.Close() }()
	write := func(f *os.File, off, n int64) {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(rnd.Uint32())
		}
		_, err := f.WriteAt(b, off)
		must(v.t, err)
	}
	place := func() (off, n int64) {
		off, n = rnd.Int64N(fileSize), 1+rnd.Int64N(200<<10)
		if rnd.IntN(2) == 0 {
			off, n = off/block*block, max(n/block, 1)*block
		}
		return off, n
	}
	fallocate := func(mode uint32) {
		off, n := place()
		if err := unix.Fallocate(int(f.Fd()), mode, off, n); err != nil && !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EINVAL) {
			v.t.Fatal(err)
		}
	}
	kinds := 9
	if wild {
		kinds = 16
	}
	for range 1 + rnd.IntN(10) {
		switch rnd.IntN(kinds) {
		case 0, 1, 2, 3:
			write(f, rnd.Int64N(fileSize), 1+rnd.Int64N(100<<10))
		case 4:
			fallocate(unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE)
		case 5:
			fallocate(unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE)
		case 6: // others take what it gave back
			other, err := os.OpenFile(filepath.Join(v.live, fmt.Sprintf("other%d", rnd.IntN(3))), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
			must(v.t, err)
			write(other, 0, 1+rnd.Int64N(mib))
			must(v.t, errors.Join(other.Sync(), other.Close()))
		case 7:
			must(v.t, f.Sync())
		case 8:
			fallocate(unix.FALLOC_FL_KEEP_SIZE)
		case 9: // in place, what is already there
			b := make([]byte, 64<<10)
			off := rnd.Int64N(fileSize)
			n, _ := f.ReadAt(b, off)
			_, err := f.WriteAt(b[:n], off)
			must(v.t, err)
		case 10: // zeros, which are data
			off, n := place()
			_, err := f.WriteAt(make([]byte, n), off)
			must(v.t, err)
		case 11:
			fallocate([]uint32{unix.FALLOC_FL_COLLAPSE_RANGE, unix.FALLOC_FL_INSERT_RANGE, unix.FALLOC_FL_ZERO_RANGE, 0}[rnd.IntN(4)])
		case 12:
			must(v.t, f.Truncate(rnd.Int64N(fileSize)))
		case 13:
			info, err := f.Stat()
			must(v.t, err)
			write(f, info.Size(), 1+rnd.Int64N(50<<10))
		case 14: // made again, with some of what it held
			b, err := os.ReadFile(path)
			must(v.t, err)
			f.Close()
			must(v.t, os.Remove(path))
			f = open()
			_, err = f.Write(b[:rnd.IntN(len(b)+1)])
			must(v.t, err)
		case 15: // shares blocks, where the file system can
			off, _ := place()
			r := unix.FileCloneRange{Src_fd: int64(f.Fd()), Src_offset: uint64(off / block * block), Src_length: 10 * block, Dest_offset: uint64(rnd.Int64N(fileSize) / block * block)}
			_ = unix.IoctlFileCloneRange(int(f.Fd()), &r)
		}
		info, err := f.Stat()
		must(v.t, err)
		if info.Size() > 2*fileSize {
			must(v.t, f.Truncate(fileSize))
		}
	}
}

// TestRootHistories compares what is predicted for random histories with the bytes.
// What was written on the device is found by comparing all of it: no exception store
// could hold less.
func TestRootHistories(t *testing.T) {
	for _, c := range []struct {
		name, fsType, data, size string
		mkfs                     []string
		n                        int
		live                     bool
	}{
		{"ext4", "ext4", "", "64M", nil, 70, true},
		{"ext4 with blocks of 1 KiB", "ext4", "", "64M", []string{"-b", "1024"}, 30, true},
		{"ext4 with data=journal", "ext4", "data=journal", "64M", nil, 20, false},
		{"ext3", "ext3", "", "64M", nil, 20, true},
		{"xfs", "xfs", "", "300M", nil, 80, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := newVolume(t, c.fsType, c.data, c.size, c.mkfs...)
			rnd := rand.New(rand.NewPCG(1, uint64(c.n)))
			var guest, wild score
			v.history(rnd, "disk.img", true)
			v.snapshot()
			for i := range c.n {
				s := &guest
				if i%2 == 1 {
					s = &wild
				}
				v.history(rnd, "disk.img", s == &wild)
				var now Map
				if c.live {
					now = v.liveMap("disk.img")
				}
				v.snapshot()
				written := v.written()
				before, old := v.view(v.before, "disk.img")
				after, content := v.view(v.after, "disk.img")
				s.judge(t, fmt.Sprintf("history %d", i), Between(before, after, written), old, content)
				if c.live {
					new(score).judge(t, fmt.Sprintf("history %d, live", i), Between(before, now, written), old, content)
				}
			}
			guest.report(t, "guest", 1.1)
			wild.report(t, "wild", 10)
		})
	}
}

func (v *volume) liveMap(name string) Map {
	v.t.Helper()
	f, err := os.Open(filepath.Join(v.live, name))
	must(v.t, err)
	defer f.Close()
	must(v.t, OnVolume(f, v.device))
	must(v.t, Settle(f, v.device))
	m, err := ReadMap(f)
	must(v.t, err)
	return m
}

// TestRootRefusals are files that must be read to know what changed.
func TestRootRefusals(t *testing.T) {
	journal := newVolume(t, "ext4", "data=journal", "64M")
	plain := newVolume(t, "ext4", "", "64M")
	// What only an unmounted file system can be told.
	other := func(name string, tell ...string) (string, blkdev.Number) {
		image, dir := filepath.Join(plain.dir, name), filepath.Join(plain.dir, name+"-mounted")
		tree := t.TempDir()
		must(t, os.WriteFile(filepath.Join(tree, "disk.img"), make([]byte, mib), 0o600))
		command(t, "truncate", "-s", "64M", image)
		command(t, "mkfs.ext4", "-q", "-d", tree, image)
		command(t, tell[0], append(tell[1:], image)...)
		device, _ := mounted(t, image, dir, "ext4", "", true)
		return dir, device
	}
	asked, askedDevice := other("asked", "tune2fs", "-o", "journal_data")
	flagged, flaggedDevice := other("flagged", "debugfs", "-w", "-R", "set_inode_field disk.img flags 0x84000")
	zipped := newVolume(t, "btrfs", "compress-force=zstd", "300M")

	file := func(dir string, size int) *os.File {
		f, err := os.Create(filepath.Join(dir, "disk.img"))
		must(t, err)
		t.Cleanup(func() { f.Close() })
		_, err = f.Write(bytes.Repeat([]byte("compressible "), size/13+1))
		must(t, err)
		return f
	}
	in := file(journal.live, mib)
	for name, err := range map[string]error{
		"data=journal":            Settle(in, journal.device),
		"data=journal by default": Settle(file(asked, mib), askedDevice),
		"chattr +j":               Settle(file(flagged, mib), flaggedDevice),
		"compressed":              mapError(file(zipped.live, mib)),
	} {
		if !errors.Is(err, ErrNoMap) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := OnVolume(in, plain.device); err == nil || !strings.Contains(err.Error(), "not directly on") {
		t.Errorf("a file on another volume: %v", err)
	}
	f := file(plain.live, mib)
	must(t, Settle(f, plain.device))
	if err := mapError(file(zipped.live, 100)); !errors.Is(err, ErrNoMap) {
		t.Errorf("inline: %v", err)
	}
}

func mapError(f *os.File) error {
	_, err := ReadMap(f)
	return err
}

// TestRootManyExtents needs more than one batch, and ends at the end of the file, not
// where space is reserved.
func TestRootManyExtents(t *testing.T) {
	for fsType, size := range map[string]string{"ext4": "64M", "xfs": "300M"} {
		t.Run(fsType, func(t *testing.T) {
			v := newVolume(t, fsType, "", size)
			f, err := os.Create(filepath.Join(v.live, "disk.img"))
			must(t, err)
			defer f.Close()
			const pieces = 3 * batch / 2
			for i := range int64(pieces) {
				_, err := f.WriteAt([]byte{1}, i*2*block)
				must(t, err)
			}
			must(t, unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, pieces*2*block, mib))
			m, err := ReadMap(f)
			must(t, err)
			if len(m.Data) != pieces || m.Size != (pieces-1)*2*block+1 || m.set().End() != m.Size {
				t.Errorf("%d extents of %d bytes, up to %d", len(m.Data), m.Size, m.set().End())
			}
			must(t, f.Truncate(0))
			if m, err := ReadMap(f); err != nil || len(m.Data) != 0 || m.Size != 0 {
				t.Errorf("empty: %v, %v", m, err)
			}
		})
	}
}

// TestRootLive maps a file in whose holes somebody writes all the time.
func TestRootLive(t *testing.T) {
	for fsType, size := range map[string]string{"ext4": "64M", "xfs": "300M"} {
		t.Run(fsType, func(t *testing.T) {
			v := newVolume(t, fsType, "", size)
			f, err := os.Create(filepath.Join(v.live, "disk.img"))
			must(t, err)
			defer f.Close()
			must(t, f.Truncate(16*mib))
			// Other writers wait while some kernels make a map.
			memory, err := unix.Mmap(int(f.Fd()), 0, 16*mib, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			must(t, err)
			defer func() { must(t, unix.Munmap(memory)) }()
			stop, stopped := make(chan struct{}), make(chan error)
			go func() {
				for i := int64(0); ; i++ {
					select {
					case <-stop:
						stopped <- nil
						return
					default:
					}
					memory[i*5*block%(16*mib)] = 1
					if i%1000 == 999 {
						err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 16*mib)
						if err != nil {
							stopped <- err
							return
						}
					}
				}
			}()
			pending := 0
			for range 50 {
				m, err := ReadMap(f)
				if err != nil {
					t.Error(err)
					break
				}
				pending += m.Pending.Len()
			}
			close(stop)
			must(t, <-stopped)
			t.Logf("%d times something was pending", pending)
		})
	}
}

// A file system that has no places.
func TestNoFiemap(t *testing.T) {
	fd, err := unix.MemfdCreate("disk.img", 0)
	must(t, err)
	f := os.NewFile(uintptr(fd), "disk.img")
	defer f.Close()
	must(t, f.Truncate(mib))
	if _, err := ReadMap(f); !errors.Is(err, ErrNoMap) {
		t.Errorf("memory: %v", err)
	}
	if _, err := ReadMap(os.Stdin); err == nil {
		t.Error("standard input was mapped")
	}
}
