package xlcfg

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestAgainstRealXL lets xl judge the tables: `xl -N create` (a dry run) must
// accept every case that is accepted here, see the same disks in it, and refuse
// every case marked as refused by xl. The rewritten files must give xl the
// disks that this package reads in them.
//
// It needs a Xen host. The laboratory runs it on each Xen it has.
func TestAgainstRealXL(t *testing.T) {
	if os.Getenv("XENLVM_LAB") != "1" {
		t.Skip("needs xl and a Xen dom0; run by the scenario test/lab/scenarios/xlcfg.sh, with XENLVM_LAB=1")
	}
	version := xenVersion(t)
	t.Logf("judged by Xen %s", version)
	for _, c := range readCases() {
		t.Run(c.name, func(t *testing.T) {
			got, rejected := dryRun(t, c.src)
			refusedByXL := c.err != "" && !c.ours || newerThan(c.since, version)
			switch {
			case refusedByXL && rejected == "":
				t.Errorf("xl accepts what is refused here, with the disks %q", got)
			case !refusedByXL && rejected != "":
				t.Errorf("xl refuses what is accepted here:\n%s", rejected)
			case c.err == "" && rejected == "":
				if diff := cmp.Diff(c.want, got); diff != "" {
					t.Errorf("disks (-here +xl):\n%s", diff)
				}
			}
		})
	}
	for _, c := range rewriteCases {
		if c.err != "" || newerThan(c.since, version) {
			continue
		}
		t.Run("rewrite/"+c.name, func(t *testing.T) {
			src := "disk = [ " + c.after + " ]\n"
			_, disks, err := read(src)
			if err != nil {
				t.Fatal(err)
			}
			got, rejected := dryRun(t, src)
			if rejected != "" {
				t.Fatalf("xl refuses the rewritten disk:\n%s", rejected)
			}
			if diff := cmp.Diff(showAll(disks), got); diff != "" {
				t.Errorf("disks (-here +xl):\n%s", diff)
			}
		})
	}
}

// frame makes a case a whole configuration: xl wants a name and a kernel. The
// lines come first, so that the end of the case stays the end of the file.
const frame = "name = 'xlcfg'\ntype = 'pv'\nkernel = '/boot/vmlinuz'\nmemory = 64\n"

// dryRun asks xl for the disks it sees in src. Rejected is what it says if it
// refuses.
func dryRun(t *testing.T, src string) (disks []string, rejected string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "vm.cfg"), []byte(frame+src), 0o600); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr strings.Builder
	// The bare name: xl takes an argument with a = in it for a setting, and the
	// directory is named after the case.
	cmd := exec.Command("xl", "-N", "create", "vm.cfg")
	cmd.Dir = dir
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, err.Error() + "\n" + stderr.String()
	}
	var config struct{ Disks []jsonDisk }
	if err := json.Unmarshal([]byte(stdout.String()), &config); err != nil {
		t.Fatalf("cannot read what xl printed: %v\n%s", err, stdout.String())
	}
	for _, j := range config.Disks {
		disks = append(disks, show(j.disk()))
	}
	return disks, ""
}

// jsonDisk is libxl_device_disk as xl prints it.
type jsonDisk struct {
	PdevPath       string `json:"pdev_path"`
	VDev           string `json:"vdev"`
	Backend        string `json:"backend"`
	Format         string `json:"format"`
	Script         string `json:"script"`
	BackendDomname string `json:"backend_domname"`
	Specification  string `json:"specification"`
	Readwrite      int    `json:"readwrite"`
	IsCDROM        int    `json:"is_cdrom"`
	DirectIOSafe   bool   `json:"direct_io_safe"`
	DiscardEnable  string `json:"discard_enable"`
	Trusted        string `json:"trusted"`
	GrantUsage     string `json:"grant_usage"`
}

func (j jsonDisk) disk() Disk {
	defbool := map[string]tristate{"True": on, "False": off}
	return Disk{
		VDev: j.VDev, Target: j.PdevPath, Format: Format(j.Format), Backend: Backend(j.Backend),
		BackendDomain: j.BackendDomname, Script: j.Script, ReadOnly: j.Readwrite == 0,
		CDROM: j.IsCDROM != 0, DirectIOSafe: j.DirectIOSafe,
		options: options{
			specification: j.Specification, discard: defbool[j.DiscardEnable],
			trusted: defbool[j.Trusted], grantUsage: defbool[j.GrantUsage],
		},
	}
}

// xenVersion returns the running Xen as MAJOR.MINOR.
func xenVersion(t *testing.T) string {
	t.Helper()
	if v := os.Getenv("XENLVM_XEN_VERSION"); v != "" {
		return v
	}
	out, err := exec.Command("xl", "info").Output()
	if err != nil {
		t.Fatalf("cannot ask xl for the version: %v", err)
	}
	fields := make(map[string]string)
	for line := range strings.Lines(string(out)) {
		key, value, _ := strings.Cut(line, ":")
		fields[strings.TrimSpace(key)] = strings.TrimSpace(value)
	}
	if fields["xen_major"] == "" {
		t.Fatalf("xl info names no version:\n%s", out)
	}
	return fields["xen_major"] + "." + fields["xen_minor"]
}

// newerThan compares 4.9 and 4.17 as versions. An empty since is always old.
func newerThan(since, version string) bool {
	return since != "" && (len(since) > len(version) || len(since) == len(version) && since > version)
}
