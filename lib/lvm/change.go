package lvm

import (
	"fmt"

	"xenlvm/lib/run"
	"xenlvm/lib/units"
)

// Create makes a linear volume of at least size bytes (LVM rounds up to whole
// extents). Signatures that a former volume left in that place are wiped.
func Create(vg, name string, size units.Bytes, tags ...string) run.Cmd {
	args := append([]string{"--yes", "--wipesignatures", "y", "--name", name, "--size", bytesArg(size)}, addTags(tags)...)
	return change("lvcreate", append(args, vg)...)
}

// Snapshot makes a snapshot of origin, read-only unless it is writable. A thin
// origin's snapshot takes its space from the pool and ignores cow; a thick one's has
// cow bytes of its own.
func Snapshot(origin LV, name string, writable bool, cow units.Bytes, tags ...string) run.Cmd {
	permission := "r"
	if writable {
		permission = "rw"
	}
	args := []string{"--yes", "--snapshot", "--permission", permission, "--name", name}
	if origin.Thin() {
		args = append(args, "--setactivationskip", "n")
	} else {
		args = append(args, "--size", bytesArg(cow))
	}
	return change("lvcreate", append(append(args, addTags(tags)...), origin.Spec())...)
}

// Remove removes the volume, which must be one of ours.
func Remove(spec string) run.Cmd { return change("lvremove", "--yes", spec) }

// Tag adds a tag.
func Tag(spec, tag string) run.Cmd { return change("lvchange", "--addtag", tag, spec) }

// Untag takes a tag away.
func Untag(spec, tag string) run.Cmd { return change("lvchange", "--deltag", tag, spec) }

// Extend makes the volume larger by at least size bytes: a thick snapshot's COW space.
func Extend(spec string, by units.Bytes) run.Cmd {
	return change("lvextend", "--size", "+"+bytesArg(by), spec)
}

func change(name string, args ...string) run.Cmd {
	return run.Cmd{Name: name, Args: args, Effect: run.Change}
}

func bytesArg(size units.Bytes) string { return fmt.Sprintf("%db", int64(size)) }

func addTags(tags []string) []string {
	var args []string
	for _, t := range tags {
		args = append(args, "--addtag", t)
	}
	return args
}
