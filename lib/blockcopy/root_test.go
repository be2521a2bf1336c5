package blockcopy

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"xenlvm/lib/directio"
	"xenlvm/lib/diskimg"
	"xenlvm/lib/extent"
)

// needRoot skips a test that makes block devices or mounts.
func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 || os.Getenv("XENLVM_ROOT_TESTS") != "1" {
		t.Skip("needs root and XENLVM_ROOT_TESTS=1: it attaches loop devices")
	}
}

// loopDevice attaches a file of its own holding b to a free loop device of
// the given sector size, and detaches that device afterwards if it still has
// that file.
func loopDevice(t testing.TB, b []byte, sector string) *os.File {
	t.Helper()
	needRoot(t)
	backing := scratch(t, b).Name()
	out, err := exec.Command("losetup", "-f", "--show", "-b", sector, backing).CombinedOutput()
	if err != nil {
		t.Fatalf("losetup: %v: %s", err, out)
	}
	dev := strings.TrimSpace(string(out))
	t.Cleanup(func() {
		sys := filepath.Join("/sys/block", filepath.Base(dev), "loop/backing_file")
		if now, err := os.ReadFile(sys); err != nil || strings.TrimSpace(string(now)) != backing {
			t.Errorf("%s does not have %s any more, left alone: %s %v", dev, backing, now, err)
			return
		}
		if out, err := exec.Command("losetup", "-d", dev).CombinedOutput(); err != nil {
			t.Errorf("losetup -d %s: %v: %s", dev, err, out)
		}
	})
	f, err := os.OpenFile(dev, os.O_RDWR|os.O_EXCL, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// behind opens the file behind a loop device, which changes it without the device's
// page cache seeing that.
func behind(t *testing.T, dev *os.File) *os.File {
	t.Helper()
	path, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(dev.Name()), "loop/backing_file"))
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(strings.TrimSpace(string(path)), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// A dirty device larger than the image: copy, delta, verify, on both sector
// sizes, with and without BLKZEROOUT.
func TestDevice(t *testing.T) {
	ctx := context.Background()
	for _, c := range []struct {
		name, sector string
		slow         bool
	}{{"512", "512", false}, {"4096", "4096", false}, {"written zeros", "512", true}} {
		t.Run(c.name, func(t *testing.T) {
			dst := loopDevice(t, noise(12<<20, 1), c.sector)
			src := all(noise(9<<20+512, 2))
			clear(src.b[3<<20 : 5<<20])
			clear(src.b[7<<20 : 8<<20])
			src.data = extent.Whole(src.Size()).Subtract(extent.Of(extent.Range{Off: 3 << 20, Len: 2 << 20}))
			cp, err := newCopier(dst, src, Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer cp.dst.close()
			cp.dst.slowZero.Store(c.slow)
			if err := cp.run(ctx); err != nil {
				t.Fatal(err)
			}
			if cp.dst.direct == nil || cp.dst.buffered.Load() || cp.dst.slowZero.Load() != c.slow {
				t.Errorf("direct %v, buffered %v, slow zeros %v", cp.dst.direct != nil, cp.dst.buffered.Load(), cp.dst.slowZero.Load())
			}
			sums := cp.sums
			expect(t, dst, src.b)
			if err := Verify(ctx, dst, sums, nil, Options{}); err != nil {
				t.Fatal(err)
			}

			clear(src.b[9<<20:]) // the last sector becomes zero
			src.b[100] ^= 1
			src.data = src.data.Subtract(extent.Of(extent.Range{Off: 1 << 20, Len: 1 << 20}))
			clear(src.b[1<<20 : 2<<20])
			st, sums, err := Copy(ctx, dst, src, Options{Before: sums})
			if err != nil {
				t.Fatal(err)
			}
			if st.BytesWritten != 4096 || st.BytesZeroed != 1<<20+512 {
				t.Errorf("%+v", st)
			}
			expect(t, dst, src.b)
			flip(t, dst, 12<<20-1)
			var m *MismatchError
			if err := Verify(ctx, dst, sums, nil, Options{}); !errors.As(err, &m) || m.Offset+m.Length != 12<<20 {
				t.Errorf("a byte of the tail flipped: %v", err)
			}
		})
	}
}

func TestDeviceTooSmall(t *testing.T) {
	old := noise(1<<20, 1)
	dst := loopDevice(t, old, "512")
	_, _, err := Copy(context.Background(), dst, all(make([]byte, 1<<20+512)), Options{})
	if err == nil || !strings.Contains(err.Error(), "its 1048576 bytes are less than the 1049088 of the source") {
		t.Error(err)
	}
	expect(t, dst, old)
}

// Verify must see what the device holds, not what the kernel remembers.
func TestVerifyPastPageCache(t *testing.T) {
	dst := loopDevice(t, make([]byte, 4<<20), "512")
	sums := copyAll(t, dst, noise(4<<20, 1), nil)
	b := make([]byte, 4096)
	if _, err := dst.ReadAt(b, 1<<20); err != nil { // now it is cached
		t.Fatal(err)
	}
	flip(t, behind(t, dst), 1<<20)
	var m *MismatchError
	if err := Verify(context.Background(), dst, sums, nil, Options{}); !errors.As(err, &m) || m.Offset != 1<<20 {
		t.Errorf("%v", err)
	}
}

// A device's own page cache does not see what is written by way of the device below:
// a source is not read from it.
func TestSourceDevicePastPageCache(t *testing.T) {
	dev := loopDevice(t, make([]byte, 4<<20), "512")
	b := make([]byte, 4<<20)
	if _, err := dev.ReadAt(b, 0); err != nil { // now it is cached
		t.Fatal(err)
	}
	f := behind(t, dev)
	flip(t, f, 1<<20)
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	src, err := diskimg.OpenSource(dev.Name(), "raw")
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	page := directio.Buffer(4096)
	if _, err := src.ReadAt(page, 1<<20); err != nil || page[0] == 0 {
		t.Errorf("read %d from the page cache, %v", page[0], err)
	}
}

// Many small changes are collected in the page cache, and none of it stays there: whoever
// writes to the device by another way would not be seen in it.
func TestSmallWrites(t *testing.T) {
	for _, mode := range []directio.Mode{directio.Auto, directio.On} {
		b := noise(8<<20, 1)
		dst := loopDevice(t, noise(8<<20, 2), "512")
		_, before, err := Copy(t.Context(), dst, all(b), Options{Direct: mode})
		if err != nil {
			t.Fatal(err)
		}
		for off := 4096; off < len(b); off += 16384 {
			b[off] ^= 1
		}
		cp, err := newCopier(dst, all(b), Options{Before: before, Direct: mode})
		if err != nil {
			t.Fatal(err)
		}
		defer cp.dst.close()
		if err := cp.run(t.Context()); err != nil {
			t.Fatal(err)
		}
		if collected := cp.dst.small.Load(); collected != (mode == directio.Auto) || cp.dst.buffered.Load() {
			t.Errorf("direct %v: collected %v, buffered %v", mode, collected, cp.dst.buffered.Load())
		}
		f := behind(t, dst)
		flip(t, f, 4096)
		if err := f.Sync(); err != nil {
			t.Fatal(err)
		}
		b[4096] ^= 1
		expect(t, dst, b)
	}
}

// A full filesystem: the error is reported, whichever call it comes from.
func TestNoSpace(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	f, err := os.Create(filepath.Join(dir, "dst"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	_, sums, err := Copy(context.Background(), f, all(noise(4<<20, 1)), Options{})
	if !errors.Is(err, unix.ENOSPC) || !strings.HasPrefix(err.Error(), "cannot write destination at ") || !strings.Contains(err.Error(), f.Name()) || sums != nil {
		t.Error(err)
	}
}
