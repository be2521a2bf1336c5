package main

import (
	"cmp"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"xenlvm/lib/run"
)

// tool is a way to make a destination equal to an image.
type tool struct {
	name   string
	needs  string // the program, looked for in PATH; "": ours
	ours   bool
	bound  bool // no tool: what the machine can do
	fs     bool // copies an ext4, not bytes
	aware  bool // leaves out what an ext4 does not use, and no old data in its place
	qcow2  bool // reads qcow2
	later  bool // only brings an earlier copy up to date
	first  func(place) []string
	delta  func(place) []string // onto an earlier copy; nil: first, copying all again
	before func(place) []string // makes, untimed, what delta wants to know of the earlier copy
}

// place is where a run of a tool happens.
type place struct {
	self, imgconv string // the programs of ours
	src, dst      string
	format        string // of src
	base          string // before a delta: the image whose copy dst is
	scratch       string // an empty directory of this run
}

func (p place) file(name string) string { return filepath.Join(p.scratch, name) }

// tools are all that the benchmark knows. What they are told is what their
// manuals advise for a block device, or the default, and says so in the name.
func tools() []tool {
	plain := func(argv ...string) func(place) []string {
		return func(p place) []string { return append(argv[:len(argv):len(argv)], p.src, p.dst) }
	}
	shell := func(script string) func(place) []string {
		return func(p place) []string { return []string{"sh", "-ec", script, "sh", p.src, p.dst, p.base} }
	}
	qemu := func(more ...string) tool {
		return tool{name: strings.Join(append([]string{"qemu-img"}, more...), " "), needs: "qemu-img", qcow2: true, first: func(p place) []string {
			return slices.Concat([]string{"qemu-img", "convert", "-n", "-f", p.format, "-O", "raw"}, more, []string{p.src, p.dst})
		}}
	}
	imgconv := func(more ...string) tool {
		return tool{name: strings.Join(append([]string{"imgconv"}, more...), " "), ours: true, aware: true, qcow2: true, first: func(p place) []string {
			argv := []string{p.imgconv, "--quiet", "--overwrite", "--state-dir", p.file("state"), "--format", p.format}
			return slices.Concat(argv, more, []string{p.src, p.dst})
		}}
	}
	rsync := func(whole string) func(place) []string {
		return plain("rsync", "--ignore-times", "--inplace", "--write-devices", whole) // or it trusts size and mtime
	}
	return []tool{
		imgconv(),
		imgconv("--verify", "sample"),
		imgconv("--verify", "none"),
		imgconv("--whole"),
		{name: "engine", ours: true, first: engine("copy"), delta: engine("delta"), before: engine("sums")},
		{name: "engine verified", ours: true, first: engine("verified")},

		{name: "bound: read the data", bound: true, first: func(p place) []string { return []string{p.self, "bound", "read", p.src, p.dst} }},
		{name: "bound: write every block", bound: true, first: func(p place) []string { return []string{p.self, "bound", "write", p.src, p.dst} }},

		qemu(),
		qemu("-W", "-m16"),
		qemu("-W", "-m16", "-t", "none"),
		qemu("-W", "-m16", "-T", "none"),
		qemu("-t", "none", "-T", "none"),
		{name: "nbdcopy", needs: "nbdcopy", first: plain("nbdcopy", "--flush")},
		{name: "dd", needs: "dd", first: func(p place) []string { return []string{"dd", "if=" + p.src, "of=" + p.dst, "bs=4M", "conv=fsync"} }},
		{name: "dd direct", needs: "dd", first: func(p place) []string { return []string{"dd", "if=" + p.src, "of=" + p.dst, "bs=4M", "oflag=direct"} }},
		{name: "cp --sparse", needs: "cp", first: plain("cp", "--sparse=always")},
		{name: "e2image -ra", needs: "e2image", fs: true, first: plain("e2image", "-ra")},
		{name: "partclone -b", needs: "partclone.ext4", fs: true, first: func(p place) []string {
			return []string{"partclone.ext4", "-b", "-q", "-F", "-L", p.file("partclone"), "-s", p.src, "-o", p.dst}
		}},
		{name: "bmaptool --nobmap", needs: "bmaptool", first: plain("bmaptool", "copy", "--nobmap")},
		{name: "ddrescue", needs: "ddrescue", first: func(p place) []string { return []string{"ddrescue", "--force", "--quiet", p.src, p.dst, p.file("map")} }},
		{name: "rsync --inplace", needs: "rsync", first: rsync("--whole-file"), delta: rsync("--no-whole-file")},
		// It is in no Debian: who wants to see it beside the others has it in PATH.
		{name: "blocksync-fast", needs: "blocksync-fast", first: blocksync()},
		{
			name: "blocksync-fast digests", needs: "blocksync-fast", later: true,
			first: blocksync("-f", "digests"),
			before: func(p place) []string {
				return []string{"blocksync-fast", "--silent", "--make-digest", "-s", p.base, "-f", p.file("digests")}
			},
		},
		{
			name: "casync", needs: "casync",
			first:  shell(`casync make --store=store new.caibx "$1"; casync extract --store=store new.caibx "$2"`),
			before: shell(`casync make --store=store old.caibx "$3"`),
		},
	}
}

// blocksync compares both from end to end, or the source with the digests of the last time.
func blocksync(more ...string) func(place) []string {
	return func(p place) []string {
		return append([]string{"blocksync-fast", "--silent", "--force", "-s", p.src, "-d", p.dst}, more...)
	}
}

// engine is our own program as the child that calls lib/blockcopy.
func engine(what string) func(place) []string {
	return func(p place) []string {
		return []string{p.self, "engine", what, cmp.Or(p.base, p.src), p.src, p.dst, p.file("digests")}
	}
}

// chosen are the installed tools that match one of the patterns.
func chosen(all []tool, patterns []string) (use []tool, missing []string) {
	for _, t := range all {
		wanted := len(patterns) == 0
		for _, p := range patterns {
			if ok, _ := path.Match(p, strings.ReplaceAll(t.name, "/", "")); ok { // parse checked the pattern
				wanted = true
			}
		}
		switch {
		case !wanted:
		case t.needs != "" && run.Missing(t.needs) != nil:
			missing = append(missing, t.name)
		default:
			use = append(use, t)
		}
	}
	return use, missing
}

// suits says whether the tool has anything to do in a scene.
func (t tool) suits(s scene) bool {
	switch {
	case t.fs:
		return s.fs
	case t.later && s.base == "":
		return false
	case s.format != raw:
		return t.qcow2 && t.name != "imgconv --whole"
	case t.name == "imgconv --whole": // which is imgconv elsewhere
		return s.fs
	case t.name == "bound: write every block":
		return s.base == "" && !s.killed
	case t.bound:
		return !s.killed
	case t.name == "engine verified":
		return s.base == ""
	}
	return true
}

// argv is what to run in a scene.
func (t tool) argv(s scene, p place) []string {
	if s.base != "" && t.delta != nil {
		return t.delta(p)
	}
	return t.first(p)
}

// empty makes the scratch directory of a run anew.
func (p place) empty() error {
	if err := os.RemoveAll(p.scratch); err != nil {
		return err
	}
	return os.Mkdir(p.scratch, 0o700)
}
