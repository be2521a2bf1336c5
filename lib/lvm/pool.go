package lvm

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"xenlvm/lib/run"
	"xenlvm/lib/units"
)

// ErrPoolFull means that a thin pool has so little room that what lives in it is
// in danger: when it is full, every volume in it fails.
var ErrPoolFull = errors.New("the thin pool is nearly full")

// ErrNoRoom is what an error is, by NoRoom, that more room in a volume group or thin
// pool would have prevented.
var ErrNoRoom = errors.New("there is no room")

// NoRoom makes err, whatever it says, an ErrNoRoom. It keeps a nil error nil.
func NoRoom(err error) error {
	if err == nil {
		return nil
	}
	return noRoom{err}
}

type noRoom struct{ error }

func (e noRoom) Unwrap() error      { return e.error }
func (noRoom) Is(target error) bool { return target == ErrNoRoom }

// Pool is how full a thin pool is.
type Pool struct {
	Data, Metadata Usage
}

// poolLimit is how full, in percent, a copy may make a pool's data: guests go on
// writing while the copy is stopped and its snapshot removed.
const poolLimit = 95

// metadataReserve is how much of the metadata must be free: as much as the kernel
// warns at, and as LVM wants before it makes another volume.
const metadataReserve = 4 << 20

// Room is how many bytes may still be written to the pool.
func (p Pool) Room() units.Bytes {
	if p.MetadataLow() {
		return 0
	}
	return max(p.Data.Size/100*poolLimit-p.Data.Used, 0)
}

// MetadataLow says that it is the metadata that leave no room: less than 4 MiB of
// them are free, or less than a quarter where there are not 16 MiB.
func (p Pool) MetadataLow() bool {
	return p.Metadata.Size-p.Metadata.Used < min(metadataReserve, p.Metadata.Size/4)
}

func (p Pool) String() string {
	return fmt.Sprintf("data %.1f %%, metadata %.1f %% in use", p.Data.Percent(), p.Metadata.Percent())
}

// PoolDMPath is where device-mapper has the pool itself; what has the pool's name
// is only a layer over it.
func PoolDMPath(vg, pool string) string { return DMPath(vg, pool) + "-tpool" }

// FindPool is how full the thin pool VG/POOL is, by LVM's report.
func FindPool(ctx context.Context, r run.Runner, vg, pool string) (Pool, error) {
	rows, err := report(ctx, r, "lvs", "lv", []string{"--reportformat", "json", "--units", "b", "--nosuffix",
		"-o", "lv_size,data_percent,lv_metadata_size,metadata_percent", "-S", fmt.Sprintf(`vg_name="%s" && lv_name="%s"`, vg, pool)})
	if err != nil {
		return Pool{}, err
	}
	if len(rows) == 0 {
		return Pool{}, fmt.Errorf("cannot find thin pool %s/%s", vg, pool)
	}
	usage := func(size, percent string) (Usage, error) {
		used, err := strconv.ParseFloat(rows[0][percent], 64)
		whole := rows[0].bytes(size)
		if err == nil && (whole == 0 || !(used >= 0 && used <= 100)) { // not a number is neither
			err = fmt.Errorf("%s is %q, %s %q", size, rows[0][size], percent, rows[0][percent])
		}
		if err != nil {
			return Usage{}, err
		}
		return Usage{Used: units.Bytes(float64(whole) * used / 100), Size: whole}, nil
	}
	data, err1 := usage("lv_size", "data_percent")
	metadata, err2 := usage("lv_metadata_size", "metadata_percent")
	if err := errors.Join(err1, err2); err != nil {
		return Pool{}, fmt.Errorf("cannot tell how full thin pool %s/%s is: %w", vg, pool, err)
	}
	return Pool{data, metadata}, nil
}

// ParsePool reads the status of a pool's device, as dm.Status returns it (kernel
// documentation device-mapper/thin-provisioning: "transaction metadata-used/total
// data-used/total root mode …"; the metadata are in blocks of 4 KiB). The error
// is ErrPoolFull when the pool is so already, or cannot be written to.
func ParsePool(status string) (Pool, error) {
	f := strings.Fields(status)
	if len(f) >= 3 && f[2] == "thin-pool" && len(f) < 8 {
		return Pool{}, fmt.Errorf("%w: it failed", ErrPoolFull)
	}
	if len(f) < 8 || f[2] != "thin-pool" {
		return Pool{}, fmt.Errorf("unknown status %q of a thin pool", status)
	}
	size, err1 := units.Count(f[1], units.Sector)
	metadata, err2 := parseBlocks(f[4], 4096)
	data, err3 := parseBlocks(f[5], 1)
	if err := errors.Join(err1, err2, err3); err != nil {
		return Pool{}, fmt.Errorf("unknown status %q of a thin pool: %w", status, err)
	}
	// The size of the data's blocks is not told: the device has so many of them.
	block := size / data.Size
	if block == 0 || data.Used > data.Size || metadata.Used > metadata.Size {
		return Pool{}, fmt.Errorf("unknown status %q of a thin pool", status)
	}
	p := Pool{Data: Usage{data.Used * block, data.Size * block}, Metadata: metadata}
	if f[7] != "rw" {
		return p, fmt.Errorf("%w: it is in the state %s", ErrPoolFull, f[7])
	}
	return p, nil
}
