// Package rsync copies a guest's file tree with rsync so that nothing of it is
// lost, and says in words what rsync's exit code and statistics mean.
//
// The options of a copy are fixed, because each of them was paid for by somebody:
//
//   - -aHAXX --numeric-ids: owners as numbers (dom0 has other users than the
//     guest), hard links, ACLs, all extended attributes. The second X also keeps
//     the attributes in which a backup server stores what rsync --fake-super gave
//     it; a single X drops them.
//   - -S: holes stay holes, a thin or smaller destination needs them.
//   - --modify-window=-1: modification times are compared to the nanosecond.
//     Without it a file rewritten at equal size in the second in which the first
//     pass read it is never copied again.
//   - --filter "-x trusted.SGI_ACL_*": XFS shows its ACLs a second time under that
//     name. From ext4 to XFS, rsync finds them to be superfluous in every second
//     pass and deletes the ACLs (github.com/RsyncProject/rsync/issues/301). Any
//     such filter ends rsync's own exclusion of system.*, hence the other one.
//   - --filter "P /lost+found": the destination's own is never deleted; what a
//     fsck put into the source's is copied like all the rest.
//   - --whole-file, not --inplace: rewriting in place reads no less, and where the
//     guest has broken a hard link between two passes, it writes the new bytes into
//     the file that kept the old ones. The delta algorithm without --inplace reads
//     twice as much and writes the same.
//
// What rsync cannot keep are inode flags (chattr +i, +a, …), birth times and
// shared extents; treesum counts the flags. And between two passes it does not see
// two kinds of change: other bytes under the same size and time, and one name of a
// hard-linked file replaced by an equal copy. Treesum sees both; what helps is a
// copy onto an empty filesystem.
package rsync

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"xenlvm/lib/run"
)

// Options of a copy; the zero value copies at full speed.
type Options struct {
	// BytesPerSecond limits the rate; 0: no limit.
	BytesPerSecond int64
	// WholeSeconds says that one of the filesystems stores no fractions of a
	// second (ext with inodes of 128 bytes). There every file would look changed.
	WholeSeconds bool
}

// Command makes the tree dst equal to the tree src: both are directories, of
// dst everything goes that src does not have. Neither is followed into another
// filesystem. Standard output is that of Copy.
func Command(src, dst string, o Options) run.Cmd {
	args := []string{"-aHAXXS", "--numeric-ids", "--delete", "--one-file-system", "--whole-file"}
	if !o.WholeSeconds {
		args = append(args, "--modify-window=-1")
	}
	args = append(args,
		"--filter=-x system.*", "--filter=-x trusted.SGI_ACL_*", "--filter=P /lost+found",
		"--info=progress2", "--outbuf=L", "--stats", "--no-human-readable")
	if o.BytesPerSecond > 0 {
		// rsync counts in KiB and takes 0 as no limit.
		args = append(args, "--bwlimit="+strconv.FormatInt(max(1, o.BytesPerSecond/1024), 10))
	}
	args = append(args, "--", tree(src), tree(dst))
	return run.Cmd{Name: "rsync", Args: args, Effect: run.Change, Interruptible: true}
}

// tree is path with a slash at its end: the directory's contents and its own
// attributes. A relative path gets a slash in front of the first colon, without
// which rsync would look for another host.
func tree(path string) string {
	if !filepath.IsAbs(path) {
		path = "./" + path
	}
	return strings.TrimRight(path, "/") + "/"
}

// What a copy may end with, for callers that go on differently.
var (
	// ErrPartial: some files or attributes were not copied. Nothing may have been
	// deleted either: rsync does not delete after a read error.
	ErrPartial = errors.New("some files or attributes were not copied")
	// ErrVanished: files disappeared while they were copied. A mounted snapshot
	// cannot lose files, so the source is something else, or damaged.
	ErrVanished = errors.New("files disappeared from the source during the copy")
)

// meanings are rsync's exit codes of a local copy, from its manual page.
var meanings = map[int]error{
	1:  errors.New("this rsync does not know an option that is needed"),
	3:  errors.New("a directory cannot be used"),
	4:  errors.New("this rsync was built without ACLs, extended attributes or hard links"),
	11: errors.New("a file cannot be read or written, or the destination is full"),
	12: errors.New("the rsync processes lost each other"),
	13: errors.New("rsync cannot report what it does"),
	14: errors.New("the rsync processes cannot talk to each other"),
	19: errors.New("rsync was told to stop by SIGUSR1"),
	20: errors.New("rsync was told to stop by a signal"),
	22: errors.New("rsync got no memory"),
	23: ErrPartial,
	24: ErrVanished,
	25: errors.New("rsync stopped deleting at a limit"),
}

// Explain puts the meaning of rsync's exit code in front of an error that a
// Runner returned for Command. Other errors are returned as they are.
func Explain(err error) error {
	var failed *run.Error
	if !errors.As(err, &failed) {
		return err
	}
	if meaning, ok := meanings[failed.Code]; ok {
		return fmt.Errorf("%w: %w", meaning, err)
	}
	return err
}

// Copy runs Command and tells progress, which may be nil, how it goes.
func Copy(ctx context.Context, r run.Runner, src, dst string, o Options, progress func(Progress)) (Stats, error) {
	out := output{progress: progress}
	c := Command(src, dst, o)
	c.Stdout = &out
	if _, err := r.Run(ctx, c); err != nil {
		return Stats{}, fmt.Errorf("cannot copy %s to %s: %w", src, dst, Explain(err))
	}
	stats, err := ParseStats(out.rest())
	if err != nil {
		return Stats{}, fmt.Errorf("copied %s to %s, but %w", src, dst, err)
	}
	return stats, nil
}
