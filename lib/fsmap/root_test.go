package fsmap

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"xenlvm/lib/treesum/treetest"
)

// mounts are the filesystems that are written to while they are captured.
var mounts = []struct{ name, make, options string }{
	{"ext3", "mke2fs -q -t ext3 -b 1024", ""},
	{"ext3 ordered", "mke2fs -q -t ext3 -b 4096 -J size=4", ""},
	{"ext4", "mke2fs -q -t ext4", ""},
	{"ext4 data=journal", "mke2fs -q -t ext4 -J size=16", ",data=journal"},
	{"ext4 small journal", "mke2fs -q -t ext4 -b 1024 -J size=2", ""},
	{"ext4 ^metadata_csum", "mke2fs -q -t ext4 -b 4096 -O ^metadata_csum -J size=4", ""},
	{"ext4 bigalloc", "mke2fs -q -t ext4 -b 4096 -O bigalloc -J size=4", ""},
	{"ext4 meta_bg", "mke2fs -q -t ext4 -b 1024 -O meta_bg,^resize_inode -J size=4", ""},
	{"ext4 orphan_file", "mke2fs -q -t ext4 -O orphan_file,^64bit -J size=4", ""},
}

// churn makes, fills, cuts, renames and removes files in dir, n times.
func churn(t testing.TB, dir string, seed uint64, n int) {
	rng := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, 200<<10)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	for i := range n {
		name := filepath.Join(dir, fmt.Sprintf("%d", rng.IntN(150)))
		var err error
		switch rng.IntN(6) {
		case 0:
			err = os.RemoveAll(name)
		case 1:
			err = os.Truncate(name, rng.Int64N(100<<10))
		case 2:
			err = os.Rename(name, filepath.Join(dir, fmt.Sprintf("%d", rng.IntN(150))))
		default:
			err = os.WriteFile(name, b[:rng.IntN(len(b))], 0o644)
		}
		if err != nil && !os.IsNotExist(err) {
			t.Error(err)
			return
		}
		if i%40 == 0 {
			syncfs(t, dir)
		}
	}
}

func syncfs(t testing.TB, dir string) {
	d, err := os.Open(dir)
	if err != nil {
		t.Error(err)
		return
	}
	defer d.Close()
	if err := unix.Syncfs(int(d.Fd())); err != nil {
		t.Error(err)
	}
}

// capture is the image as a crash would leave it: copied while its filesystem is
// mounted, after many writes, of which what is not written out yet is lost.
func capture(t testing.TB, image, dir string, round uint64) string {
	t.Helper()
	var wg sync.WaitGroup
	for w := range uint64(2) {
		sub := filepath.Join(dir, fmt.Sprintf("writer %d", w))
		if err := os.MkdirAll(sub, 0o755); err != nil {
			t.Fatal(err)
		}
		wg.Go(func() { churn(t, sub, round*2+w, 200+100*int(round)) })
	}
	wg.Wait()
	// A commit that is not checkpointed: its blocks are in the journal alone.
	f, err := os.Create(filepath.Join(dir, fmt.Sprintf("committed %d", round)))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(make([]byte, 300<<10)); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	return duplicate(t, image)
}

// The images of filesystems in use: the used bytes alone, mounted, replay the
// journal and hold the same tree as a full copy. The map is what dumpe2fs counts
// after the replay, and every byte in use then was copied.
func TestRootInUse(t *testing.T) {
	treetest.Root(t)
	for _, m := range mounts {
		t.Run(m.name, func(t *testing.T) {
			image := treetest.Image(t, 96*mib)
			argv := append(strings.Fields(m.make), "-F", image)
			treetest.Run(t, argv[0], argv[1:]...)
			// No commit of its own accord may fall into the time of a copy.
			dir := treetest.Mount(t, image, "-o", "commit=300"+m.options)
			for i := range 30 {
				if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), make([]byte, i*1000), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			taken := 0
			for round := range uint64(3) {
				full := capture(t, image, dir, round)
				set, region := used(t, full)
				if !strings.Contains(region.Note, "transactions of its journal") {
					t.Fatalf("%v", region)
				}
				if !strings.HasPrefix(region.Note, "0 ") {
					taken++
				}
				part := sparseCopy(t, full, set)
				poison(t, part, set)
				// Mounting a copy replays its journal; unmounting makes it clean.
				t.Run(fmt.Sprint(round), func(t *testing.T) {
					same(t, treetest.Mount(t, full, "-o", "noatime"), treetest.Mount(t, part, "-o", "noatime"))
				})
				treetest.Run(t, "e2fsck", "-fn", part)
				after, now := used(t, full)
				if now.Free < region.Free || now.Free != freeBytes(t, full) {
					t.Errorf("%d bytes free before the replay, %d after, dumpe2fs %d", region.Free, now.Free, freeBytes(t, full))
				}
				if !after.Subtract(set).Empty() {
					t.Error("bytes in use after the replay were not before it")
				}
			}
			if taken == 0 {
				t.Error("no journal held anything")
			}
		})
	}
}

// An xfs that is mounted has a log that is not empty. Unmounted, it is read.
func TestRootXFS(t *testing.T) {
	treetest.Root(t)
	for _, options := range []string{"", "-m reflink=0,rmapbt=1 -b size=1024"} {
		t.Run(options, func(t *testing.T) {
			image := treetest.Image(t, 340*mib)
			treetest.Run(t, "mkfs.xfs", append(append([]string{"-q"}, strings.Fields(options)...), image)...)
			for round := range uint64(2) {
				t.Run(fmt.Sprint(round), func(t *testing.T) {
					dir := treetest.Mount(t, image)
					if round == 0 {
						treetest.Plant(t, dir)
						if reflinks := !strings.Contains(options, "reflink=0"); reflinks {
							if err := os.WriteFile(filepath.Join(dir, "shared"), make([]byte, 1<<20), 0o644); err != nil {
								t.Fatal(err)
							}
							treetest.Run(t, "cp", "--reflink=always", filepath.Join(dir, "shared"), filepath.Join(dir, "clone"))
						}
					}
					full := capture(t, image, dir, round)
					if _, region := mapped(t, full); region.Whole != "its log is not empty" {
						t.Errorf("%v", region)
					}
				})
				set, region := used(t, image)
				if region.Free != freeXFS(t, image) {
					t.Errorf("%d bytes free, xfs_db %d", region.Free, freeXFS(t, image))
				}
				part := sparseCopy(t, image, set)
				poison(t, part, set)
				treetest.Run(t, "xfs_repair", "-n", part)
				t.Run(fmt.Sprint(round, " copy"), func(t *testing.T) {
					same(t, treetest.Mount(t, image, "-o", "ro,norecovery,nouuid"), treetest.Mount(t, part, "-o", "ro,norecovery,nouuid"))
				})
			}
			// A new UUID: the one in the metadata stays. The log that xfs_admin
			// writes is none that a kernel leaves, until it is mounted.
			treetest.Run(t, "xfs_admin", "-U", "generate", image)
			if _, region := mapped(t, image); region.Whole != "its log is not empty" {
				t.Errorf("%v", region)
			}
			t.Run("new UUID", func(t *testing.T) { treetest.Mount(t, image) })
			if _, region := used(t, image); region.Free != freeXFS(t, image) {
				t.Errorf("%v", region)
			}
		})
	}
}
