package main

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"

	"xenlvm/lib/diskimg"
	"xenlvm/lib/run"
	"xenlvm/lib/units"
)

const (
	mib = int64(1) << 20
	gib = int64(1) << 30
)

// defaultSizes are the sizes of the images, by workload. B6 is the smallest of
// three, each four times the one before.
var defaultSizes = map[string]int64{
	"B1": 4 * gib, "B2": 2 * gib, "B3": 4 * gib, "B4": 2 * gib, "B5": 4 * gib,
	"B6": 2 * gib, "B7": 4 * gib, "B13": 4 * gib, "B14": 2 * gib, "qcow2": 4 * gib,
}

// quickShare is by what --quick divides the sizes.
const quickShare = 64

// scene is what every tool is run on: one row group of the table.
type scene struct {
	name    string
	about   string
	image   string // the source, or what it holds
	source  string // an image of another format; "": image
	format  string // of the source
	base    string // what the destination holds at first; "": 0xA5 everywhere
	fs      bool   // the image is a bare ext4
	strict  bool   // tools that know the file system must not leave old data, too
	cold    bool   // nothing in the page cache
	memory  int64  // limit of the tool's memory and page cache; 0: none
	killed  bool   // measured is the run after one that was killed half-way
	sparse  bool   // the destination is a new sparse file: its size costs nothing
	ordered int64  // image size for the chart; 0: not in it
}

const raw = string(diskimg.Raw)

// workload makes the images of its scenes in dir.
type workload struct {
	name  string
	title string
	make  func(ctx context.Context, dir string, size int64, r *rand.Rand) ([]scene, error)
}

func workloads() []workload {
	return []workload{
		{"B1", "20 % allocated", single(scene{}, func(size int64, r *rand.Rand) layout { return scattered(size, size/5, r) })},
		{"B2", "full of random bytes", single(scene{}, full)},
		{"B3", "ext4, filled, 60 % deleted inside without trim", inFS(scene{fs: true})},
		{"B4", "half of it written zeros", single(scene{}, halfZeros)},
		{"B5", "delta", deltas},
		{"B6", "delta of an image that grows, with the same data and changes", growing},
		{"B7", "ext4 onto old data: none of it may be left", inFS(scene{fs: true, strict: true})},
		{"B13", "as B1, memory limited to 1 GiB", single(scene{memory: gib}, func(size int64, r *rand.Rand) layout { return scattered(size, size/5, r) })},
		{"B14", "as B2, killed half-way and run again", single(scene{killed: true}, full)},
		{"qcow2", "as B1, the image is qcow2", inQcow2},
	}
}

// single is a workload of one image with that layout.
func single(s scene, lay func(int64, *rand.Rand) layout) func(context.Context, string, int64, *rand.Rand) ([]scene, error) {
	return func(ctx context.Context, dir string, size int64, r *rand.Rand) ([]scene, error) {
		s.image = filepath.Join(dir, "image")
		return []scene{s}, writeImage(ctx, s.image, size, lay(size, r), r)
	}
}

func inFS(s scene) func(context.Context, string, int64, *rand.Rand) ([]scene, error) {
	return func(ctx context.Context, dir string, size int64, r *rand.Rand) ([]scene, error) {
		s.image = filepath.Join(dir, "image")
		return []scene{s}, writeFS(ctx, dir, s.image, size, r)
	}
}

// inQcow2 are an image of the usual clusters, and a wide one: of the smallest that are
// in use, whose tables are the most.
func inQcow2(ctx context.Context, dir string, size int64, r *rand.Rand) ([]scene, error) {
	image := filepath.Join(dir, "image")
	if err := writeImage(ctx, image, size, scattered(size, size/5, r), r); err != nil {
		return nil, err
	}
	var scenes []scene
	for _, cluster := range []string{"64k", "4k"} {
		s := scene{name: " " + cluster, about: "as B1, the image is qcow2 of clusters of " + cluster, image: image, format: string(diskimg.Qcow2)}
		s.source = filepath.Join(dir, cluster+".qcow2")
		_, err := (run.Host{}).Run(ctx, run.Cmd{Name: "qemu-img", Args: []string{"convert", "-f", raw, "-O", s.format, "-o", "cluster_size=" + cluster, image, s.source}, Effect: run.Change})
		if err != nil {
			return nil, err
		}
		scenes = append(scenes, s)
	}
	return scenes, nil
}

// deltas are a first image and five that came from it.
func deltas(ctx context.Context, dir string, size int64, r *rand.Rand) ([]scene, error) {
	base := filepath.Join(dir, "base")
	if err := writeImage(ctx, base, size, scattered(size, size/5, r), r); err != nil {
		return nil, err
	}
	var scenes []scene
	for _, percent := range []float64{0.01, 0.1, 1, 10} {
		s := scene{name: fmt.Sprintf(" %g %%", percent), about: "4 KiB blocks changed at random", base: base}
		s.image = filepath.Join(dir, fmt.Sprintf("changed-%g", percent))
		if err := changeImage(ctx, base, s.image, int64(float64(size)*percent/100/block), r); err != nil {
			return nil, err
		}
		scenes = append(scenes, s)
	}
	s := scene{name: " append", about: "1 % appended", base: base, image: filepath.Join(dir, "appended")}
	return append(scenes, s), appendImage(ctx, base, s.image, (size/100)/mib*mib+mib, r)
}

// growing are deltas of the same bytes in images of three sizes.
func growing(ctx context.Context, dir string, size int64, r *rand.Rand) ([]scene, error) {
	var scenes []scene
	allocated := size / 5
	for range 3 {
		name := units.Bytes(size).String()
		s := scene{name: " " + name, about: "1 % of the data changed", sparse: true, ordered: size}
		s.base = filepath.Join(dir, fmt.Sprintf("base-%d", size))
		s.image = filepath.Join(dir, fmt.Sprintf("changed-%d", size))
		if err := writeImage(ctx, s.base, size, scattered(size, allocated, r), r); err != nil {
			return nil, err
		}
		if err := changeImage(ctx, s.base, s.image, allocated/100/block, r); err != nil {
			return nil, err
		}
		scenes = append(scenes, s)
		size *= 4
	}
	return scenes, nil
}

// scenesOf makes a workload's scenes for what the options ask.
func (w workload) scenesOf(ctx context.Context, o options, dir string) ([]scene, error) {
	size := o.sizes[w.name]
	if size == 0 {
		size = defaultSizes[w.name]
		if o.quick {
			size /= quickShare
		}
	}
	made, err := w.make(ctx, dir, size, rand.New(rand.NewPCG(o.seed, uint64(len(w.title)))))
	if err != nil {
		return nil, fmt.Errorf("cannot make the images of %s: %w", w.name, err)
	}
	var scenes []scene
	for _, s := range made {
		s.name = w.name + s.name
		s.source, s.format = cmp.Or(s.source, s.image), cmp.Or(s.format, raw)
		if o.target.ram && !s.sparse {
			s.name += " ram"
		}
		if s.about == "" {
			s.about = w.title
		}
		// Deltas, the memory limit and the kill are measured warm only.
		both := slices.Contains([]string{"B1", "B2", "B3", "B4", "qcow2"}, w.name)
		if o.warm || !both {
			scenes = append(scenes, s)
		}
		if o.cold && both {
			s.name, s.cold = s.name+" cold", true
			scenes = append(scenes, s)
		}
	}
	return scenes, nil
}

// imageSize is the length of the scene's source.
func (s scene) imageSize() (int64, error) {
	info, err := os.Stat(s.image)
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}
