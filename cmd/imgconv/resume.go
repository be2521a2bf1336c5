package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"xenlvm/lib/atomicfile"
	"xenlvm/lib/blkdev"
	"xenlvm/lib/blockcopy"
	"xenlvm/lib/cli"
	"xenlvm/lib/convert"
	"xenlvm/lib/extent"
	"xenlvm/lib/journal"
	"xenlvm/lib/units"
)

// progress is the file that says how far a copy onto one destination is: a line of
// JSON about both ends, and the digests of what was copied. It is written about once
// a second and removed with the last word on the copy, so that only one that can go on
// leaves it.
type progress struct {
	path string
	ends ends
}

// ends are what was copied onto what, so that nothing else passes for it.
type ends struct {
	Source      string `json:"source"`
	State       string `json:"state"` // of the source when it was opened, "" if that cannot be told
	Destination string `json:"destination"`
}

// newProgress names the file, nil if the destination cannot be known again.
func (o *options) newProgress(src *source, t *target) (*progress, error) {
	if t.f == nil {
		return nil, nil
	}
	to, err := t.identity()
	if err != nil || to == "" {
		return nil, err
	}
	from, state := src.identity()
	hash := sha256.Sum256([]byte(to))
	return &progress{filepath.Join(o.stateDir, fmt.Sprintf("imgconv-%x.digests", hash[:8])), ends{from, state, to}}, nil
}

// identity tells a source from all others; and a file from itself after a write, and
// when other parts of it are copied.
func (s *source) identity() (which, state string) {
	if isBlock(&s.stat) {
		return diskOf(blkdev.NumberOf(s.stat.Rdev)), "" // no counter of a device outlives it
	}
	parts := sha256.New()
	for r := range s.used.All() {
		fmt.Fprintln(parts, r)
	}
	return fmt.Sprintf("file %d/%d", s.stat.Dev, s.stat.Ino),
		fmt.Sprintf("%d bytes, written %v, changed %v, parts %x", s.Size(), s.stat.Mtim, s.stat.Ctim, parts.Sum(nil))
}

// diskOf tells a device from what had its number before, "" if that cannot be: from
// Linux 5.15 on, the kernel gives each disk that is attached another number.
func diskOf(n blkdev.Number) string {
	seq := blkdev.Device{Number: n}.DiskSeq()
	if seq == 0 {
		return ""
	}
	return fmt.Sprintf("device %v, disk %d of boot %s", n, seq, journal.BootID())
}

// identity tells a destination from all others, whatever has its name or number
// later; "" if that cannot be.
func (t *target) identity() (string, error) {
	if t.lv != nil {
		return "volume " + t.lv.UUID, nil
	}
	var st unix.Statx_t
	if err := unix.Statx(int(t.f.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &st); err != nil {
		return "", err
	}
	if !t.device {
		if st.Mask&unix.STATX_BTIME == 0 {
			return "", nil
		}
		return fmt.Sprintf("file %d:%d/%d, made %v", st.Dev_major, st.Dev_minor, st.Ino, st.Btime), nil
	}
	return diskOf(blkdev.Number{Major: st.Rdev_major, Minor: st.Rdev_minor}), nil
}

// save writes how far the copy is; nil: it has begun.
func (p *progress) save(d *blockcopy.Digests) error {
	if err := os.MkdirAll(filepath.Dir(p.path), 0o700); err != nil {
		return err
	}
	return atomicfile.Write(p.path, func(w io.Writer) error {
		err := json.NewEncoder(w).Encode(p.ends)
		if err == nil && d != nil {
			_, err = d.WriteTo(w)
		}
		return err
	})
}

// begin takes back, before the first write, what is said of an earlier copy and will
// not be so. A destination that was there before is called ours from here on: a copy
// that is killed at once leaves what looks like other data. It returns a
// blockcopy.Options.Checkpoint.
func (p *progress) begin(e *cli.Env, t *target, has content) func(*blockcopy.Digests) error {
	if p == nil {
		return nil
	}
	save := convert.Checkpoint(p.save, func(err error) {
		p.remove()
		e.Infof("if this copy is interrupted it cannot be continued: %v", err)
	})
	switch {
	case has.same:
	case t.made:
		p.remove()
	default:
		_ = save(nil) // which tells of its errors
	}
	return save
}

// begun is what is known of an earlier copy.
type begun struct {
	done *blockcopy.Digests // nil: nothing is known
	same bool               // the source is still as it was
}

// load is what save wrote last, nil if there is nothing of use.
func (p *progress) load(e *cli.Env) *begun {
	f, err := os.Open(p.path)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
			e.Infof("cannot continue an earlier copy: %v", err)
		}
		return nil
	}
	defer f.Close()
	r := bufio.NewReader(f)
	line, err := r.ReadSlice('\n')
	var of ends
	if err == nil {
		err = json.Unmarshal(line, &of)
	}
	if err == nil && (of.Source == "" || of.Source != p.ends.Source || of.Destination != p.ends.Destination) {
		return nil
	}
	was := &begun{same: of.State != "" && of.State == p.ends.State}
	if _, more := r.Peek(1); err == nil && more == nil {
		was.done, err = blockcopy.ReadDigests(r)
	}
	if err != nil {
		e.Infof("cannot continue an earlier copy: %s: %v", p.path, err)
		return nil
	}
	return was
}

// files is the file, if it is there.
func (p *progress) files() []string {
	if p == nil {
		return nil
	}
	if _, err := os.Stat(p.path); err != nil {
		return nil
	}
	return []string{p.path}
}

// remove ends it.
func (p *progress) remove() {
	if p != nil {
		_ = os.Remove(p.path) // if it stays, it does no harm: what it says is checked
	}
}

// resume is what an interrupted copy left on the destination, as far as a sample
// confirms it.
func (p *progress) resume(ctx context.Context, e *cli.Env, t *target, src filled, overwrite bool, o blockcopy.Options) (content, error) {
	// Somebody said that it is complete, or cut it.
	if p == nil || t.lv != nil && !t.tagged() || t.short && !t.made {
		return content{}, nil
	}
	was := p.load(e)
	if was == nil || was.done == nil && t.made { // which begins anew in any case
		return content{}, nil
	}
	unknown := extent.Whole(src.size)
	if was.done != nil {
		unknown = was.done.Unknown()
		err := blockcopy.Sample(ctx, t.f, was.done, compareData, o)
		switch {
		case ctx.Err() != nil:
			return content{}, context.Cause(ctx)
		case err != nil:
			e.Infof("cannot continue an earlier copy: %v", err)
			return content{}, nil
		}
	}
	if !overwrite && !t.made { // what is not known may be somebody else's by now
		other, err := t.foreign(ctx, src, unknown, o)
		switch {
		case err != nil:
			return content{}, err
		case other && was.done == nil:
			return content{}, nil
		case other:
			e.Infof("not continuing an earlier copy: %s holds other data where that had not come to", t.path)
			return content{left: unknown.Bytes()}, nil
		}
	}
	switch {
	case was.done == nil:
		e.Infof("beginning an interrupted copy anew: it was not known yet what it had done")
		return content{ours: true}, nil
	case was.same:
		e.Infof("continuing an interrupted copy: %s are left", units.Bytes(unknown.Bytes()))
	default:
		e.Infof("continuing an interrupted copy: %s are left, and the rest is compared, as the source may have changed", units.Bytes(unknown.Bytes()))
	}
	return content{before: was.done, resumed: true, same: was.same}, nil
}
