package changed

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"xenlvm/lib/dm"
	"xenlvm/lib/extent"
	"xenlvm/lib/fault"
	"xenlvm/lib/lvm"
	"xenlvm/lib/run"
	"xenlvm/lib/step"
)

// thinStep is the Finding of a thin snapshot: thin_delta compares what the pool's
// metadata say of both volumes, as they are at that moment.
func thinStep(r run.Runner, snapshot, origin lvm.LV, written *extent.Set) (step.Step, error) {
	d, err := deltaOf(snapshot, origin)
	if err != nil {
		return step.Step{}, err
	}
	return step.Step{
		What: "find what changed on " + origin.Spec() + " since " + snapshot.Spec(),
		Line: d.reserve().Line() + " && " + d.compare().Line() + "; " + d.release().Line(),
		Do: func(ctx context.Context) (err error) {
			*written, err = d.run(ctx, r)
			return err
		},
	}, nil
}

// delta compares two volumes of one thin pool.
type delta struct {
	pool, metadata string // devices
	left, right    int64  // the numbers that the pool knows the volumes by
	size           int64  // of both, in bytes
}

// deltaOf asks device-mapper which volumes these are.
func deltaOf(snapshot, origin lvm.LV) (delta, error) {
	if err := run.Missing("thin_delta"); err != nil {
		return delta{}, err
	}
	d := delta{pool: lvm.PoolDMPath(origin.VG, origin.Pool), size: int64(origin.Size)}
	pool, fields, err := table(d.pool, "thin-pool", 5)
	if err != nil {
		return delta{}, err
	}
	if d.metadata, err = node(fields[3]); err != nil {
		return delta{}, err
	}
	var lerr, rerr error
	d.left, lerr = thinID(snapshot, pool)
	d.right, rerr = thinID(origin, pool)
	if err := errors.Join(lerr, rerr); err != nil {
		return delta{}, err
	}
	status, err := dm.Status(d.pool)
	if err != nil {
		return delta{}, err
	}
	if f := strings.Fields(status); len(f) < 7 || f[6] != "-" {
		return delta{}, fault.Hint(fault.Refuse("cannot compare %s with %s: somebody reserved the pool's metadata: %q", snapshot.Spec(), origin.Spec(), status), "%s, if nobody reads them", d.release().Line())
	}
	return d, nil
}

// thinID is the number that a pool knows one of its volumes by.
func thinID(v lvm.LV, pool dm.Device) (int64, error) {
	d, fields, err := table(v.DMPath, "thin", 5)
	if err != nil {
		return 0, err
	}
	id, err := strconv.ParseInt(fields[4], 10, 32)
	if err != nil || fields[3] != pool.Number.String() {
		return 0, fault.Refuse("cannot find %s in the thin pool %s: device-mapper has it as %q", v.Spec(), pool.Number, d.Table)
	}
	return id, nil
}

func (d delta) reserve() run.Cmd { return message(d.pool, "reserve_metadata_snap") }
func (d delta) release() run.Cmd { return message(d.pool, "release_metadata_snap") }

func message(pool, text string) run.Cmd {
	return run.Cmd{Name: "dmsetup", Args: []string{"message", pool, "0", text}, Effect: run.Change}
}

func (d delta) compare() run.Cmd {
	return run.Cmd{Name: "thin_delta", Args: []string{"-m", "--snap1", strconv.FormatInt(d.left, 10), "--snap2", strconv.FormatInt(d.right, 10), d.metadata}}
}

// run reserves the metadata as they are, compares, and releases them in any case:
// while they are reserved, the pool keeps all that they ever held.
func (d delta) run(ctx context.Context, r run.Runner) (set extent.Set, err error) {
	if _, err := r.Run(ctx, d.reserve()); err != nil {
		return extent.Set{}, err
	}
	defer func() {
		if _, rerr := r.Run(context.WithoutCancel(ctx), d.release()); rerr != nil {
			err = fault.Hint(fault.With(fault.Left, errors.Join(err, fmt.Errorf("cannot release the metadata of the thin pool: %w", rerr))), "%s", d.release().Line())
		}
	}()
	res, err := r.Run(ctx, d.compare())
	if err != nil {
		return extent.Set{}, err
	}
	return ThinDelta(strings.NewReader(string(res.Stdout)), d.size)
}

// ThinDelta reads what thin_delta prints of two volumes of size bytes: which bytes
// differ, or are in only one of them, in whole blocks of the pool.
func ThinDelta(r io.Reader, size int64) (extent.Set, error) {
	set, err := thinDelta(xml.NewDecoder(r))
	if err != nil {
		return extent.Set{}, fmt.Errorf("cannot read what thin_delta found: %w", err)
	}
	return set.Clip(size), nil
}

func thinDelta(x *xml.Decoder) (extent.Set, error) {
	var set extent.Set
	var block int64 // bytes; 0 as long as nobody told
	compared := false
	for {
		token, err := x.Token()
		if errors.Is(err, io.EOF) && compared {
			return set, nil
		}
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return set, err
		}
		e, ok := token.(xml.StartElement)
		if !ok {
			continue
		}
		switch name := e.Name.Local; name {
		case "superblock":
			sectors, err := number(e, "data_block_size", maxBlock)
			if err != nil {
				return set, err
			}
			if sectors == 0 || sectors%minBlock != 0 {
				return set, fmt.Errorf("blocks of %d sectors", sectors)
			}
			block = sectors * sector
		case "diff", "same", "left_only", "right_only", "different":
			if block == 0 {
				return set, fmt.Errorf("a <%s> before the size of a block", name)
			}
			if name == "diff" {
				compared = true
				continue
			}
			begin, err := number(e, "begin", math.MaxInt64/block)
			if err != nil {
				return set, err
			}
			length, err := number(e, "length", math.MaxInt64/block-begin)
			if err != nil {
				return set, err
			}
			if name != "same" {
				set.Add(begin*block, length*block)
			}
		default:
			return set, fmt.Errorf("an unknown <%s>", name)
		}
	}
}

// What device-mapper allows as size of a pool's blocks, in sectors.
const (
	minBlock = 64 << 10 / sector
	maxBlock = 1 << 30 / sector
)

// number is the attribute of an element, which is at most limit.
func number(e xml.StartElement, name string, limit int64) (int64, error) {
	i := slices.IndexFunc(e.Attr, func(a xml.Attr) bool { return a.Name.Local == name })
	if i < 0 {
		return 0, fmt.Errorf("a <%s> without %s", e.Name.Local, name)
	}
	n, err := strconv.ParseInt(e.Attr[i].Value, 10, 64)
	if err != nil || n < 0 || n > limit {
		return 0, fmt.Errorf("a <%s> with %s %q", e.Name.Local, name, e.Attr[i].Value)
	}
	return n, nil
}
