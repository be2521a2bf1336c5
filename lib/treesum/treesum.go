// Package treesum counts, digests and compares file trees: the proof that a
// copy lost nothing.
//
// Everything that a copy must keep belongs to an entry: its path, type, mode,
// owner, device number, link target, size and contents, modification time, hard
// links, and extended attributes with the ACLs and capabilities in them. Names
// are bytes, symlinks are never followed, and devices and FIFOs never opened: a
// tree may come from a guest that means harm.
//
// Not an entry's own, and left out: access, change and birth times; inode
// numbers; sizes of directories; trusted.SGI_ACL_*, under which XFS shows its
// ACLs a second time; and an empty lost+found at the root, which belongs to the
// filesystem. Inode flags (chattr) cannot be kept by rsync: they are counted.
//
// A comparison reads through the page cache. To compare with what the disk
// holds, mount the copy anew first.
package treesum

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"io/fs"
	"time"

	"github.com/zeebo/xxh3"
)

// Options of Compare; the zero value reads the contents of all files.
type Options struct {
	// ContentsSince limits the files whose contents are read to those that were
	// changed (ctime) at or after that moment, in either tree: after a delta
	// pass, the moment before the first pass. The change time of the source is
	// by the guest's clock, so leave a margin. Everything else of an entry is
	// compared always. Zero: all contents.
	ContentsSince time.Time
	// WholeSeconds compares modification times without their fractions: one of
	// the filesystems stores none.
	WholeSeconds bool
	// Limit is how many differences a Report names; 0 means 20. All are counted.
	Limit int
	// Progress is told the entries and bytes of contents read so far.
	Progress func(entries, bytes int64)
}

// Digest is XXH3, 128 bits. It tells trees apart by accident, it does not sign
// them.
type Digest [16]byte

// String is the digest in hexadecimal.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// Summary is a tree in numbers.
type Summary struct {
	Directories, Files, Symlinks, Devices, FIFOs, Sockets int64

	Bytes     int64 // of regular files, hard-linked ones counted once
	Linked    int64 // entries that are a further name of an earlier one
	Xattrs    int64 // extended attributes, ACLs among them
	Flagged   int64 // entries with inode flags that rsync cannot keep
	Mounts    int64 // directories on which something else is mounted: not entered
	BytesRead int64 // contents read, holes not
	Digest    Digest
}

// Entries is the count of all entries, the root among them.
func (s *Summary) Entries() int64 {
	return s.Directories + s.Files + s.Symlinks + s.Devices + s.FIFOs + s.Sockets
}

// tree is one side: a walk and what it added up to.
type tree struct {
	*walker
	sum    Summary
	digest *xxh3.Hasher
	reader reader
}

func open(root string) (*tree, error) {
	w, err := newWalker(root)
	if err != nil {
		return nil, err
	}
	return &tree{walker: w, digest: xxh3.New()}, nil
}

// add takes an entry with its contents, if they were read, into the summary.
func (t *tree) add(e *entry, o Options) {
	s := &t.sum
	switch e.kind() {
	case fs.ModeDir:
		s.Directories++
	case 0:
		s.Files++
		if e.link == "" {
			s.Bytes += e.size
		}
	case fs.ModeSymlink:
		s.Symlinks++
	case fs.ModeNamedPipe:
		s.FIFOs++
	case fs.ModeSocket:
		s.Sockets++
	default:
		s.Devices++
	}
	if e.link != "" {
		s.Linked++
	}
	if e.flagged {
		s.Flagged++
	}
	if e.mount {
		s.Mounts++
	}
	s.Xattrs += int64(len(e.xattrs))
	e.writeTo(t.digest, o)
}

func (t *tree) summary() Summary {
	s := t.sum
	s.BytesRead = t.reader.read
	s.Digest = t.digest.Sum128().Bytes()
	return s
}

// writeTo writes e so that no two different entries give the same bytes.
func (e *entry) writeTo(h hash.Hash, o Options) {
	var b []byte
	text := func(s string) { b = append(binary.LittleEndian.AppendUint64(b, uint64(len(s))), s...) }
	number := func(n uint64) { b = binary.LittleEndian.AppendUint64(b, n) }
	text(e.path)
	number(uint64(e.mode))
	number(uint64(e.uid))
	number(uint64(e.gid))
	number(e.rdev)
	number(uint64(e.size))
	modified := e.mtime(o)
	number(uint64(modified.Unix()))
	number(uint64(modified.Nanosecond()))
	text(e.target)
	text(e.link)
	number(uint64(len(e.xattrs)))
	for _, x := range e.xattrs {
		text(x.name)
		text(x.value)
	}
	text(e.contents)
	_, _ = h.Write(b) // a hash takes all
}

func (e *entry) mtime(o Options) time.Time {
	if o.WholeSeconds {
		return e.modified.Truncate(time.Second)
	}
	return e.modified
}

// Difference is one thing in which two trees differ.
type Difference struct {
	Path        string // relative to the roots, "." for themselves; any bytes
	Field       string // "mode", "xattr user.a", "contents", …
	Source      string // for people; "" when the source does not have it
	Destination string
}

// String quotes the path, so that it cannot disturb a terminal or a line.
func (d Difference) String() string {
	say := func(s string) string {
		if s == "" {
			return "none"
		}
		return s
	}
	return fmt.Sprintf("%q: %s: %s in the source, %s in the destination", d.Path, d.Field, say(d.Source), say(d.Destination))
}
