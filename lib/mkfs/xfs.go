package mkfs

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"

	"xenlvm/lib/fault"
	"xenlvm/lib/run"
	"xenlvm/lib/units"
)

type xfsDetails struct {
	dirBlockSize int64 // bytes
	imaxPercent  int64
}

// Bits of the XFS superblock (xfs_format.h of the kernel).
const (
	xfsVersionMask = 0x000f // of versionnum
	xfsAsciiCI     = 0x4000

	xfs2Lazy   = 0x02 // of features2
	xfs2Projid = 0x80
	xfs2Ftype  = 0x200
)

// xfsROCompat and xfsIncompat name the feature bits of version 5 from bit 0 on.
var (
	xfsROCompat = []string{"finobt", "rmapbt", "reflink", "inobtcount"}
	xfsIncompat = []string{"ftype", "sparse", "meta_uuid", "bigtime", "needsrepair", "nrext64", "exchange", "parent", "metadir", "zoned", "zone_gaps"}
)

// xfsStates are no choice of mkfs: meta_uuid is set when a UUID is changed later.
var xfsStates = []string{"meta_uuid"}

// xfsOption is a feature that mkfs.xfs turns on and off, and since which version.
type xfsOption struct {
	feature, flag, key string
	since              version
	onlyV4             bool // version 5 always has it, and takes no 0
}

type version struct{ major, minor int }

func (v version) before(w version) bool {
	return v.major < w.major || v.major == w.major && v.minor < w.minor
}

var xfsOptions = []xfsOption{
	{"crc", "-m", "crc", version{3, 2}, false},
	{"finobt", "-m", "finobt", version{3, 2}, false},
	{"rmapbt", "-m", "rmapbt", version{4, 8}, false},
	{"reflink", "-m", "reflink", version{4, 9}, false},
	{"inobtcount", "-m", "inobtcount", version{5, 10}, false},
	{"bigtime", "-m", "bigtime", version{5, 10}, false},
	{"sparse", "-i", "sparse", version{4, 2}, false},
	{"nrext64", "-i", "nrext64", version{5, 19}, false},
	{"exchange", "-i", "exchange", version{6, 10}, false},
	{"parent", "-n", "parent", version{6, 10}, false},
	{"ftype", "-n", "ftype", version{3, 2}, false},
	{"projid32bit", "-i", "projid32bit", version{3, 1}, true},
	{"lazy-count", "-l", "lazy-count", version{3, 0}, true},
}

func (d *Description) describeXFS(ctx context.Context, r run.Runner) error {
	res, err := r.Run(ctx, run.Cmd{Name: "xfs_db", Args: []string{"-r", "-c", "sb 0", "-c", "p", d.Device}})
	if err != nil {
		return fmt.Errorf("cannot describe the filesystem on %s: %w", d.Device, err)
	}
	values, err := pairs(res.Stdout, " = ")
	if err != nil {
		return blocks(d.Device, "its superblock is odd: %v", err)
	}
	return d.readXFS(values)
}

func (d *Description) readXFS(values map[string]string) error {
	var number, features2, ro, incompat, blockCount, dirLog, realtime, logStart, quota int64
	err := ints(values, map[string]*int64{
		"blocksize": &d.BlockSize, "dblocks": &blockCount, "inodesize": &d.InodeSize, "versionnum": &number,
		"dirblklog": &dirLog, "rblocks": &realtime, "logstart": &logStart, "imax_pct": &d.xfs.imaxPercent, "qflags": &quota,
		"features2": &features2, "features_ro_compat": &ro, "features_incompat": &incompat,
	}, "features2", "features_ro_compat", "features_incompat")
	if err == nil && (d.BlockSize < 512 || d.BlockSize > 64<<10 || blockCount < 1 || blockCount > 1<<50 || dirLog > 7) {
		err = fmt.Errorf("%d blocks of %d bytes, directories of 2^%d", blockCount, d.BlockSize, dirLog)
	}
	if err != nil {
		return blocks(d.Device, "its superblock is odd: %v", err)
	}
	d.Size = units.Bytes(blockCount * d.BlockSize)
	d.xfs.dirBlockSize = d.BlockSize << dirLog
	has := map[string]bool{
		"realtime": realtime > 0, "external log": logStart == 0, "quota": quota != 0, "ascii-ci": number&xfsAsciiCI != 0,
		"lazy-count": features2&xfs2Lazy != 0, "projid32bit": features2&xfs2Projid != 0, "ftype": features2&xfs2Ftype != 0,
	}
	if number&xfsVersionMask == 5 {
		has["crc"], has["lazy-count"], has["projid32bit"] = true, true, true
		bits(has, ro, xfsROCompat, "FEATURE_RO")
		bits(has, incompat, xfsIncompat, "FEATURE_I")
	}
	d.Features = nil
	for f, on := range has {
		if on {
			d.Features = append(d.Features, f)
		}
	}
	slices.Sort(d.Features)
	return nil
}

// bits puts the names of the bits that are set into has; those without a name
// are called by their number.
func bits(has map[string]bool, set int64, names []string, unknown string) {
	for i := range 63 {
		if set>>i&1 == 0 {
			continue
		}
		if i < len(names) {
			has[names[i]] = true
		} else {
			has[unknown+strconv.Itoa(i)] = true
		}
	}
}

var xfsVersion = regexp.MustCompile(`version ([0-9]{1,4})\.([0-9]{1,4})`)

// xfsSmallest is what mkfs.xfs demands since 5.19.
const xfsSmallest = 300 * units.Bytes(1<<20)

func (d Description) makeXFS(ctx context.Context, r run.Runner, dev string, size units.Bytes) ([]run.Cmd, error) {
	for _, f := range d.Features {
		known := func(o xfsOption) bool { return o.feature == f }
		if !slices.ContainsFunc(xfsOptions, known) && !slices.Contains(xfsStates, f) {
			return nil, blocks(d.Device, "a file by file copy cannot bring its feature %s along", f)
		}
	}
	res, err := r.Run(ctx, run.Cmd{Name: "mkfs.xfs", Args: []string{"-V"}})
	if err != nil {
		return nil, fmt.Errorf("cannot ask mkfs.xfs for its version: %w", err)
	}
	m := xfsVersion.FindSubmatch(res.Stdout)
	if m == nil {
		return nil, fault.Refuse("cannot read the version of mkfs.xfs: it says %q", res.Stdout)
	}
	var v version
	v.major, _ = strconv.Atoi(string(m[1])) // digits: the pattern says so
	v.minor, _ = strconv.Atoi(string(m[2]))
	if !v.before(version{5, 19}) && size < xfsSmallest {
		return nil, blocks(d.Device, "mkfs.xfs makes none smaller than %v, %s has %v", xfsSmallest, dev, size)
	}
	return []run.Cmd{{Name: "mkfs.xfs", Args: append(d.xfsArgs(v), dev), Effect: run.Change}}, nil
}

func (d Description) xfsArgs(v version) []string {
	args := []string{"-q", "-f", "-b", "size=" + strconv.FormatInt(d.BlockSize, 10),
		"-i", "size=" + strconv.FormatInt(d.InodeSize, 10),
		"-i", "maxpct=" + strconv.FormatInt(d.xfs.imaxPercent, 10),
		"-n", "size=" + strconv.FormatInt(d.xfs.dirBlockSize, 10), "-m", "uuid=" + d.UUID}
	crc := slices.Contains(d.Features, "crc")
	for _, o := range xfsOptions {
		// What this mkfs.xfs does not know, it does not turn on either.
		if v.before(o.since) || o.onlyV4 && crc {
			continue
		}
		on := "0"
		if slices.Contains(d.Features, o.feature) {
			on = "1"
		}
		args = append(args, o.flag, o.key+"="+on)
	}
	if d.Label != "" {
		args = append(args, "-L", d.Label)
	}
	return args
}
