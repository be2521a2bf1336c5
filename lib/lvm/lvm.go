// Package lvm reads LVM's JSON reports and makes the commands that change
// logical volumes. It runs no change itself: those belong into a step.Plan.
//
// What we make carries tags, and we touch nothing without them: a name proves
// nothing.
package lvm

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"xenlvm/lib/fault"
	"xenlvm/lib/run"
	"xenlvm/lib/units"
)

// The tags of what we make.
const (
	TagIncomplete = "xenlvm.incomplete" // a destination that is not verified
	TagSnapshot   = "xenlvm.snapshot"   // a snapshot that may be removed
	TagBase       = "xenlvm.base"       // beside it: kept to tell the next pass what changed
	TagBackDoor   = "xenlvm.back-door"  // beside it: kept to tell what the way back must bring along
	TagRehearsal  = "xenlvm.rehearsal"  // beside it: a copy of the domain boots from it
	tagDomain     = "xenlvm.domain."    // + the domain for which it was made
)

// TagDomain is the tag that names the domain, with what LVM does not allow in a
// tag written as =XX.
func TagDomain(domain string) string {
	var b strings.Builder
	b.WriteString(tagDomain)
	for i := range len(domain) {
		c := domain[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '+' || c == '.' || c == '-' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "=%02X", c)
		}
	}
	return b.String()
}

// domainOf is the inverse of TagDomain; the boolean is false for any other tag.
func domainOf(tag string) (string, bool) {
	coded, ok := strings.CutPrefix(tag, tagDomain)
	domain, err := url.PathUnescape(strings.ReplaceAll(coded, "=", "%"))
	return domain, ok && err == nil
}

// LV is a logical volume. Sizes are in bytes.
type LV struct {
	VG, Name, UUID string
	Path           string // /dev/vg0/vm3
	DMPath         string // /dev/mapper/vg0-vm3
	Size           units.Bytes
	Type           string // segtype: linear, striped, thin, thin-pool, snapshot…
	Origin         string // of a snapshot
	Pool           string // of a thin volume
	Tags           []string
	Major, Minor   uint32 // only while active
	Active, Open   bool
	Invalid        bool    // a thick snapshot that overflowed: its data is lost
	Used           float64 // percent of a thick snapshot's COW space, or of a thin volume's size
	COW            units.Bytes
}

// Spec is VG/LV, the form in which LVM users name a volume.
func (v LV) Spec() string { return v.VG + "/" + v.Name }

// Thin says whether v lives in a thin pool.
func (v LV) Thin() bool { return v.Pool != "" && v.Type == "thin" }

// Tagged says whether v has the tag.
func (v LV) Tagged(tag string) bool {
	for _, t := range v.Tags {
		if t == tag {
			return true
		}
	}
	return false
}

// Domains are those whose tag v has.
func (v LV) Domains() []string {
	var all []string
	for _, t := range v.Tags {
		if d, ok := domainOf(t); ok {
			all = append(all, d)
		}
	}
	return all
}

// VG is a volume group. Sizes are in bytes.
type VG struct {
	Name               string
	Size, Free, Extent units.Bytes
}

const lvFields = "vg_name,lv_name,lv_uuid,lv_path,lv_dm_path,lv_size,segtype,origin,pool_lv,lv_tags," +
	"lv_kernel_major,lv_kernel_minor,lv_active,lv_device_open,lv_snapshot_invalid,data_percent,snap_percent,origin_size"

// LVs lists the volumes that the selection (lvs -S) picks; all when it is empty.
func LVs(ctx context.Context, r run.Runner, selection string) ([]LV, error) {
	args := []string{"--reportformat", "json", "--units", "b", "--nosuffix", "--binary", "-o", lvFields}
	if selection != "" {
		args = append(args, "-S", selection)
	}
	rows, err := report(ctx, r, "lvs", "lv", args)
	if err != nil {
		return nil, err
	}
	lvs := make([]LV, 0, len(rows))
	for _, row := range rows {
		lvs = append(lvs, row.lv())
	}
	return lvs, nil
}

// Find is the volume VG/LV; the boolean is false when there is none.
func Find(ctx context.Context, r run.Runner, vg, name string) (LV, bool, error) {
	lvs, err := LVs(ctx, r, fmt.Sprintf(`vg_name="%s" && lv_name="%s"`, vg, name))
	if err != nil || len(lvs) == 0 {
		return LV{}, false, err
	}
	return lvs[0], true, nil
}

// ByNumber is the active volume that has the device number.
func ByNumber(ctx context.Context, r run.Runner, major, minor uint32) (LV, bool, error) {
	lvs, err := LVs(ctx, r, fmt.Sprintf("lv_kernel_major=%d && lv_kernel_minor=%d", major, minor))
	if err != nil || len(lvs) == 0 {
		return LV{}, false, err
	}
	return lvs[0], true, nil
}

// FindVG is the volume group; the boolean is false when there is none.
func FindVG(ctx context.Context, r run.Runner, name string) (VG, bool, error) {
	rows, err := report(ctx, r, "vgs", "vg", []string{"--reportformat", "json", "--units", "b", "--nosuffix",
		"-o", "vg_name,vg_size,vg_free,vg_extent_size", "-S", fmt.Sprintf(`vg_name="%s"`, name)})
	if err != nil || len(rows) == 0 {
		return VG{}, false, err
	}
	if len(rows) > 1 {
		return VG{}, false, fault.Hint(fault.Refuse("cannot tell which volume group %s is meant: there are %d of that name", name, len(rows)),
			"vgs -o vg_name,vg_uuid,pv_name: one on a disk of a guest is hidden by a global_filter in lvm.conf")
	}
	row := rows[0]
	return VG{Name: row["vg_name"], Size: row.bytes("vg_size"), Free: row.bytes("vg_free"), Extent: row.bytes("vg_extent_size")}, true, nil
}

type row map[string]string

// report runs one of LVM's reporting commands. Only its standard output is
// read: warnings on standard error are for people.
func report(ctx context.Context, r run.Runner, name, key string, args []string) ([]row, error) {
	res, err := run.Insist(ctx, r, run.Cmd{Name: name, Args: args})
	if err != nil {
		return nil, err
	}
	return parseReport(name, key, res.Stdout)
}

func parseReport(name, key string, out []byte) ([]row, error) {
	var doc struct {
		Report []map[string][]row `json:"report"`
	}
	if err := json.Unmarshal(out, &doc); err != nil {
		return nil, fmt.Errorf("cannot read the report of %s: %w", name, err)
	}
	if len(doc.Report) == 0 { // one without volumes has an empty list
		return nil, fmt.Errorf("cannot read the report of %s: there is none", name)
	}
	var rows []row
	for _, r := range doc.Report {
		rows = append(rows, r[key]...)
	}
	return rows, nil
}

func (r row) bytes(field string) units.Bytes {
	n, _ := units.Count(r[field], 1) // "" where it does not apply
	return n
}

func (r row) number(field string) uint32 {
	n, err := strconv.ParseUint(r[field], 10, 32) // "-1" when the volume is not active
	if err != nil {
		return 0
	}
	return uint32(n)
}

func (r row) lv() LV {
	v := LV{
		VG: r["vg_name"], Name: strings.Trim(r["lv_name"], "[]"), UUID: r["lv_uuid"], Path: r["lv_path"], DMPath: r["lv_dm_path"],
		Size: r.bytes("lv_size"), Type: r["segtype"], Origin: strings.Trim(r["origin"], "[]"), Pool: strings.Trim(r["pool_lv"], "[]"),
		Major: r.number("lv_kernel_major"), Minor: r.number("lv_kernel_minor"),
		Active: r["lv_active"] == "1" || r["lv_active"] == "active", Open: r["lv_device_open"] == "1",
		Invalid: r["lv_snapshot_invalid"] == "1",
	}
	if r["lv_tags"] != "" {
		v.Tags = strings.Split(r["lv_tags"], ",")
	}
	percent := r["snap_percent"]
	if percent == "" {
		percent = r["data_percent"]
	}
	v.Used, _ = strconv.ParseFloat(percent, 64)
	if v.Origin != "" && !v.Thin() {
		// LVM reports a thick snapshot's COW space as its size.
		v.COW, v.Size = v.Size, r.bytes("origin_size")
	}
	return v
}

// SplitSpec splits VG/LV, also in the form /dev/VG/LV. Both names must be such
// as LVM accepts; a leading dash would be an option.
func SplitSpec(spec string) (vg, name string, err error) {
	vg, name, ok := strings.Cut(strings.TrimPrefix(spec, "/dev/"), "/")
	if !ok || !validName(vg) || !validName(name) {
		return "", "", fault.BadUsage("cannot read %q: want VG/LV", spec)
	}
	return vg, name, nil
}

// CheckName refuses a name that LVM would.
func CheckName(name string) error {
	if !validName(name) {
		return fault.BadUsage("cannot name a volume %q: LVM allows letters, digits and +_.-, no leading dash, and keeps some names for itself", name)
	}
	return nil
}

// CheckLength refuses the name of a volume to be made, for which device-mapper has no
// room. Its names have 127 bytes (DM_NAME_LEN); LVM doubles dashes in them, and appends
// "-real" for a volume that has a snapshot.
func CheckLength(vg, name string) error {
	if n := len(strings.TrimPrefix(DMPath(vg, name), "/dev/mapper/") + "-real"); n > 127 {
		return fault.Refuse("cannot name a volume %s/%s: device-mapper would call it by %d bytes, and takes 127", vg, name, n)
	}
	return nil
}

func validName(s string) bool {
	if s == "" || s == "." || s == ".." || s[0] == '-' || len(s) > 127 || reserved(s) {
		return false
	}
	return strings.IndexFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("+_.-", r))
	}) < 0
}

// reserved says whether LVM keeps a name for itself: lvm(8), VALID NAMES.
func reserved(name string) bool {
	starts := func(p string) bool { return strings.HasPrefix(name, p) }
	within := func(p string) bool { return strings.Contains(name, p) }
	return slices.ContainsFunc([]string{"snapshot", "pvmove"}, starts) ||
		slices.ContainsFunc([]string{"_cdata", "_cmeta", "_corig", "_cpool", "_cvol", "_wcorig", "_mimage", "_mlog", "_rimage", "_rmeta",
			"_tdata", "_tmeta", "_vdata", "_vorigin", "_imeta", "_iorig", "_pmspare"}, within)
}

// DMPath is where device-mapper has the volume: it doubles the dashes inside
// names to tell them from the one between them.
func DMPath(vg, name string) string {
	double := func(s string) string { return strings.ReplaceAll(s, "-", "--") }
	return "/dev/mapper/" + double(vg) + "-" + double(name)
}

// longest is how long a name of ours is: that of its group needs some room, too.
const longest = 100

// NameFor makes a valid volume name of domain and vdev; what LVM does not allow
// becomes an underscore. Of a long one the end becomes a digest.
func NameFor(domain, vdev string) string {
	name := strings.Map(func(r rune) rune {
		if r < 0x80 && validName("x"+string(r)) {
			return r
		}
		return '_'
	}, domain+"-"+vdev)
	name = strings.TrimLeft(name, "-")
	if reserved(name) {
		name = "lv-" + strings.ReplaceAll(name, "_", "-")
	}
	if len(name) > longest {
		sum := fmt.Sprintf("-%x", sha256.Sum256([]byte(domain+"\x00"+vdev)))[:17]
		name = name[:longest-len(sum)] + sum
	}
	return name
}
