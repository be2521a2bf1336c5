package treesum

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

const defaultLimit = 20

// Report is the outcome of a comparison.
type Report struct {
	Source, Destination Summary

	Different   int64        // entries that differ or that only one tree has
	Differences []Difference // the first of them, in the order of the walk
	limit       int
}

// Equal says that the trees are the same.
func (r *Report) Equal() bool { return r.Different == 0 }

func (r *Report) note(d Difference) {
	if len(r.Differences) < r.limit {
		r.Differences = append(r.Differences, d)
	}
}

// Compare walks two trees in step. An error means that one could not be read
// to its end; differences are in the Report. Where the trees are equal, so are
// the digests of their summaries.
func Compare(ctx context.Context, src, dst string, o Options) (*Report, error) {
	s, err := open(src)
	if err != nil {
		return nil, err
	}
	defer s.close()
	d, err := open(dst)
	if err != nil {
		return nil, err
	}
	defer d.close()
	r := &Report{limit: o.Limit}
	if r.limit == 0 {
		r.limit = defaultLimit
	}
	a, err := advance(s)
	if err != nil {
		return nil, err
	}
	b, err := advance(d)
	if err != nil {
		return nil, err
	}
	for a != nil || b != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		inSource := a != nil && (b == nil || !before(b.path, a.path))
		inDestination := b != nil && (a == nil || !before(a.path, b.path))
		switch {
		case inSource && inDestination:
			if err := r.pair(ctx, s, d, a, b, o); err != nil {
				return nil, err
			}
		case inSource:
			r.Different++
			r.note(Difference{Path: a.path, Field: "entry", Source: kindName(a)})
		default:
			r.Different++
			r.note(Difference{Path: b.path, Field: "entry", Destination: kindName(b)})
		}
		if inSource {
			s.add(a, o)
			if a, err = advance(s); err != nil {
				return nil, err
			}
		}
		if inDestination {
			d.add(b, o)
			if b, err = advance(d); err != nil {
				return nil, err
			}
		}
		if o.Progress != nil {
			o.Progress(s.sum.Entries(), s.reader.read)
		}
	}
	r.Source, r.Destination = s.summary(), d.summary()
	if same := r.Source.Digest == r.Destination.Digest; same != r.Equal() {
		return nil, errors.New("cannot compare the trees: their digests and their differences contradict each other")
	}
	return r, nil
}

// advance is the next entry of a tree, nil after the last one.
func advance(t *tree) (*entry, error) {
	e, err := t.next()
	if errors.Is(err, io.EOF) {
		return nil, nil
	}
	return e, err
}

// pair compares two entries of the same path.
func (r *Report) pair(ctx context.Context, s, d *tree, a, b *entry, o Options) error {
	recent := !a.changed.Before(o.ContentsSince) || !b.changed.Before(o.ContentsSince)
	files := a.kind() == 0 && b.kind() == 0 && a.size == b.size
	// A further name of a file that was compared already needs no second look.
	if files && recent && (a.link == "" || b.link == "") {
		if err := readBoth(ctx, s, d, a, b); err != nil {
			return err
		}
	}
	found := differences(a, b, o)
	if len(found) > 0 {
		r.Different++
	}
	for _, one := range found {
		r.note(one)
	}
	return nil
}

// readBoth reads the two files at the same time: they are on different disks.
func readBoth(ctx context.Context, s, d *tree, a, b *entry) error {
	done := make(chan error, 1)
	go func() {
		var err error
		b.contents, err = d.readContents(ctx, b)
		done <- err
	}()
	var err error
	a.contents, err = s.readContents(ctx, a)
	return errors.Join(err, <-done)
}

// differences is everything in which a and b differ.
func differences(a, b *entry, o Options) []Difference {
	var found []Difference
	check := func(field, source, destination string) {
		if source != destination {
			found = append(found, Difference{a.path, field, source, destination})
		}
	}
	check("type", kindName(a), kindName(b))
	check("mode", fmt.Sprintf("%04o", a.mode&^unix.S_IFMT), fmt.Sprintf("%04o", b.mode&^unix.S_IFMT))
	check("uid", number(a.uid), number(b.uid))
	check("gid", number(a.gid), number(b.gid))
	if a.mode&unix.S_IFMT == b.mode&unix.S_IFMT {
		check("device", device(a), device(b))
		check("target", quoted(a.target), quoted(b.target))
		if a.kind() == 0 {
			check("size", strconv.FormatInt(a.size, 10), strconv.FormatInt(b.size, 10))
		}
	}
	check("mtime", stamp(a.mtime(o)), stamp(b.mtime(o)))
	check("hard link", quoted(a.link), quoted(b.link))
	checkXattrs(a.xattrs, b.xattrs, check)
	check("contents", hex.EncodeToString([]byte(a.contents)), hex.EncodeToString([]byte(b.contents)))
	return found
}

func checkXattrs(a, b []xattr, check func(field, source, destination string)) {
	for len(a) > 0 || len(b) > 0 {
		switch {
		case len(b) == 0 || len(a) > 0 && a[0].name < b[0].name:
			check(xattrField(a[0].name), brief(a[0].value), "")
			a = a[1:]
		case len(a) == 0 || b[0].name < a[0].name:
			check(xattrField(b[0].name), "", brief(b[0].value))
			b = b[1:]
		default:
			if a[0].value != b[0].value {
				x, y := brief(a[0].value), brief(b[0].value)
				if x == y {
					y += " with another end"
				}
				check(xattrField(a[0].name), x, y)
			}
			a, b = a[1:], b[1:]
		}
	}
}

// xattrField names an attribute; guests choose the names, so odd ones are quoted.
func xattrField(name string) string {
	if q := strconv.QuoteToASCII(name); q != `"`+name+`"` {
		return "xattr " + q
	}
	return "xattr " + name
}

// brief is the start of a value, for people.
func brief(value string) string {
	const shown = 32
	if len(value) > shown {
		return fmt.Sprintf("%q… (%d bytes)", value[:shown], len(value))
	}
	return strconv.Quote(value)
}

func number(n uint32) string { return strconv.FormatUint(uint64(n), 10) }

func quoted(s string) string {
	if s == "" {
		return ""
	}
	return strconv.Quote(s)
}

func device(e *entry) string {
	if e.kind() != fs.ModeDevice {
		return ""
	}
	return fmt.Sprintf("%d:%d", unix.Major(e.rdev), unix.Minor(e.rdev))
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

func kindName(e *entry) string {
	switch e.kind() {
	case 0:
		return "file"
	case fs.ModeDir:
		return "directory"
	case fs.ModeSymlink:
		return "symlink"
	case fs.ModeNamedPipe:
		return "FIFO"
	case fs.ModeSocket:
		return "socket"
	}
	if e.mode&unix.S_IFMT == unix.S_IFCHR {
		return "character device"
	}
	return "block device"
}
