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
	"strings"

	"golang.org/x/sys/unix"

	"xenlvm/lib/atomicfile"
	"xenlvm/lib/blkdev"
	"xenlvm/lib/blockcopy"
	"xenlvm/lib/cli"
	"xenlvm/lib/directio"
	"xenlvm/lib/journal"
	"xenlvm/lib/units"
)

// progress is the file that says how far a copy onto one destination is: a line of
// JSON about both ends, and the digests of what was copied. It is written about once
// a second and removed with the last word on the copy, so that only an interrupted
// one leaves it.
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
	seq, err := os.ReadFile("/sys/dev/block/" + n.String() + "/diskseq")
	if err != nil {
		return ""
	}
	return fmt.Sprintf("device %v, disk %s of boot %s", n, strings.TrimSpace(string(seq)), journal.BootID())
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

// save writes how far the copy is.
func (p *progress) save(d *blockcopy.Digests) error {
	if err := os.MkdirAll(filepath.Dir(p.path), 0o700); err != nil {
		return err
	}
	return atomicfile.Write(p.path, func(w io.Writer) error {
		err := json.NewEncoder(w).Encode(p.ends)
		if err == nil {
			_, err = d.WriteTo(w)
		}
		return err
	})
}

// checkpoint is a blockcopy.Options.Checkpoint. A copy that cannot be continued is
// still a copy.
func (p *progress) checkpoint(e *cli.Env) func(*blockcopy.Digests) error {
	if p == nil {
		return nil
	}
	hopeless := false
	return func(d *blockcopy.Digests) error {
		if hopeless {
			return nil
		}
		if err := p.save(d); err != nil {
			hopeless = true
			e.Infof("if this copy is interrupted it cannot be continued: %v", err)
		}
		return nil
	}
}

// load is what save wrote last: what the destination holds, and if the source is still
// as it was. It is nil if there is nothing of use.
func (p *progress) load(e *cli.Env) (d *blockcopy.Digests, same bool) {
	f, err := os.Open(p.path)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
			e.Infof("cannot continue an earlier copy: %v", err)
		}
		return nil, false
	}
	defer f.Close()
	r := bufio.NewReader(f)
	line, err := r.ReadSlice('\n')
	var of ends
	if err == nil {
		err = json.Unmarshal(line, &of)
	}
	if err == nil && of.Source != "" && of.Source == p.ends.Source && of.Destination == p.ends.Destination {
		d, err = blockcopy.ReadDigests(r)
	}
	if err != nil {
		e.Infof("cannot continue an earlier copy: %s: %v", p.path, err)
		return nil, false
	}
	return d, of.State != "" && of.State == p.ends.State
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
	d, same := p.load(e)
	if d == nil {
		return content{}, nil
	}
	err := blockcopy.Sample(ctx, t.f, d, compareData, o)
	switch {
	case ctx.Err() != nil:
		return content{}, context.Cause(ctx)
	case err != nil:
		e.Infof("cannot continue an earlier copy: %v", err)
		return content{}, nil
	}
	if !overwrite && !t.made { // what is not known may be somebody else's by now
		l, err := t.liken(ctx, src, parts{data: d.Unknown().Align(directio.Align).Clip(src.size).Sample(src.chunks(), chunk)}, o.Direct)
		if err != nil {
			return content{}, err
		}
		if l.other > 0 {
			e.Infof("not continuing an earlier copy: %s holds other data where that had not come to", t.path)
			return content{}, nil
		}
	}
	switch {
	case same:
		e.Infof("continuing an interrupted copy: %s are left", units.Bytes(d.Unknown().Bytes()))
	default:
		e.Infof("continuing an interrupted copy: %s are left, and the rest is compared, as the source may have changed", units.Bytes(d.Unknown().Bytes()))
	}
	return content{before: d, resumed: true, same: same}, nil
}
