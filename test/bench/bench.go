package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"xenlvm/lib/fault"
)

// bench is one call of the program.
type bench struct {
	options
	self string
	r    *rand.Rand // for the order
}

func newBench(o options) *bench {
	return &bench{options: o, r: rand.New(rand.NewPCG(o.seed, 0))}
}

func say(format string, args ...any) { fmt.Fprintf(os.Stderr, "bench: "+format+"\n", args...) }

// run goes through the workloads, one after the other: each has the disk for itself.
func (b *bench) run(ctx context.Context) ([]row, error) {
	var err error
	if b.self, err = os.Executable(); err != nil {
		return nil, err
	}
	use, missing := chosen(tools(), b.tools)
	if len(use) == 0 {
		return nil, fault.BadUsage("no tool is called %s", strings.Join(b.tools, ", "))
	}
	say("seed %d, %d rounds, in %s", b.seed, b.rounds, b.dir)
	if len(missing) > 0 {
		say("not installed: %s", strings.Join(missing, ", "))
	}
	var rows []row
	for _, w := range workloads() {
		if len(b.workloads) > 0 && !slices.Contains(b.workloads, w.name) {
			continue
		}
		more, err := b.workload(ctx, w, use)
		rows = append(rows, more...)
		if err != nil {
			return rows, fmt.Errorf("%s: %w", w.name, err)
		}
	}
	return rows, nil
}

// workload makes the images, runs the scenes and removes the images.
func (b *bench) workload(ctx context.Context, w workload, use []tool) (rows []row, err error) {
	dir := filepath.Join(b.dir, w.name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, removeTree(dir)) }()
	say("%s: making %s", w.name, w.title)
	images, unmount, err := mountImages(ctx, dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, unmount()) }()
	scenes, err := w.scenesOf(ctx, b.options, images)
	if err != nil {
		return nil, err
	}
	for _, s := range scenes {
		more, err := b.scene(ctx, dir, s, use)
		rows = append(rows, more...)
		if err != nil {
			return rows, err
		}
	}
	return rows, nil
}

// scene runs all tools, in an order that is new every round.
func (b *bench) scene(ctx context.Context, dir string, s scene, use []tool) (rows []row, err error) {
	size, err := s.imageSize()
	if err != nil {
		return nil, err
	}
	use = slices.DeleteFunc(slices.Clone(use), func(t tool) bool { return !t.suits(s) })
	st := &stage{bench: b, scene: s, size: size, dir: dir, targetDir: dir}
	if s.memory > 0 {
		procs, remove, err := limitMemory(s.memory)
		if err != nil {
			say("%s: left out: cannot limit memory: %v", s.name, err)
			return nil, nil
		}
		defer func() { err = errors.Join(err, remove()) }()
		st.memory = procs
	}
	if b.target.ram && !s.sparse {
		m, err := mountRAM(ctx, filepath.Join(dir, "ram"), size)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, m.Undo()) }()
		st.targetDir = m.Point
	}
	if !s.sparse {
		if st.dst, err = newTarget(ctx, st.targetDir, size, b.target); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, st.dst.remove(ctx)) }()
	}
	samples := make([][]sample, len(use))
	for round := range b.rounds {
		for _, i := range b.r.Perm(len(use)) {
			one, err := st.run(ctx, use[i])
			if err != nil {
				return nil, fmt.Errorf("%s: %w", use[i].name, err)
			}
			samples[i] = append(samples[i], one)
			say("%s, round %d of %d: %s: %.2f s, %s %s", s.name, round+1, b.rounds, use[i].name, one.seconds, one.verdict.state, one.verdict.why)
		}
	}
	for i, t := range use {
		rows = append(rows, summarize(s, t, size, samples[i]))
	}
	return rows, nil
}

// stage is where the tools of a scene run.
type stage struct {
	*bench
	scene     scene
	size      int64
	dir       string
	targetDir string
	dst       *target // nil: a new one for every run
	memory    string  // the group with the limit, "" for none
}

// run runs a tool once and judges what it made.
func (st *stage) run(ctx context.Context, t tool) (s sample, err error) {
	dst := st.dst
	if dst == nil {
		if dst, err = newTarget(ctx, st.targetDir, st.size, st.target); err != nil {
			return s, err
		}
		defer func() { err = errors.Join(err, dst.remove(ctx)) }()
	}
	p := place{self: st.self, imgconv: st.imgconv, src: st.scene.source, format: st.scene.format, base: st.scene.base, dst: dst.loop.Path, scratch: filepath.Join(st.dir, "scratch")}
	if err := st.prepare(ctx, dst, t, p); err != nil {
		return s, err
	}
	var whole, cut sample
	if st.scene.killed {
		whole, err = measure(ctx, t.argv(st.scene, p), dst, p.scratch, st.memory, 0)
		if err == nil {
			err = st.prepare(ctx, dst, t, p)
		}
		if err == nil {
			half := time.Duration(whole.seconds / 2 * float64(time.Second))
			cut, err = measure(ctx, t.argv(st.scene, p), dst, p.scratch, st.memory, half)
		}
		if err != nil {
			return s, err
		}
	}
	s, err = measure(ctx, t.argv(st.scene, p), dst, p.scratch, st.memory, 0)
	if err != nil || s.verdict.state == failed {
		return s, err
	}
	if st.scene.killed {
		s.again = repeated{cut.seconds + s.seconds - whole.seconds, cut.read + s.read - whole.read, cut.wrote + s.wrote - whole.wrote}
	}
	if t.bound {
		s.verdict.state = unmeasured
		return s, nil
	}
	s.verdict, err = judge(ctx, st.scene, t, dst.loop.Path, st.dir)
	return s, err
}

// prepare makes the destination what the scene wants it to be, and the page cache.
func (st *stage) prepare(ctx context.Context, dst *target, t tool, p place) error {
	if err := p.empty(); err != nil {
		return err
	}
	if err := dst.fill(ctx, st.scene.base, st.scene.sparse); err != nil {
		return err
	}
	if st.scene.base != "" && t.before != nil {
		s, err := measure(ctx, t.before(p), dst, p.scratch, "", 0)
		if err == nil && s.verdict.state == failed {
			err = errors.New(s.verdict.why)
		}
		if err != nil {
			return err
		}
	}
	if st.scene.cold {
		return dropCaches()
	}
	src, err := openImage(st.scene.source)
	if err != nil {
		return err
	}
	_, err = readThrough(ctx, src.File, src.data)
	return errors.Join(err, src.Close())
}
