package xlcfg

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func readCases() []readCase { return slices.Concat(fileCases, specCases) }

// show prints a disk the way the tables write it.
func show(d Disk) string {
	words := []string{d.VDev + "=" + d.Target, string(d.Format), "rw"}
	if d.ReadOnly {
		words[2] = "ro"
	}
	add := func(on bool, word string) {
		if on {
			words = append(words, word)
		}
	}
	add(d.CDROM, "cdrom")
	add(d.Backend != Auto, "backend="+string(d.Backend))
	add(d.BackendDomain != "", "domain="+d.BackendDomain)
	add(d.Script != "", "script="+d.Script)
	add(d.DirectIOSafe, "direct-io-safe")
	add(d.options.discard == on, "discard")
	add(d.options.discard == off, "no-discard")
	add(d.options.specification != "", "specification="+d.options.specification)
	add(d.options.trusted == on, "trusted")
	add(d.options.trusted == off, "untrusted")
	add(d.options.grantUsage == on, "grant_usage")
	add(d.options.grantUsage == off, "no-grant_usage")
	return strings.Join(words, " ")
}

func showAll(disks []Disk) []string {
	var out []string
	for _, d := range disks {
		out = append(out, show(d))
	}
	return out
}

// read is what a caller does: parse, then ask for the disks.
func read(src string) (*File, []Disk, error) {
	f, err := Parse("vm.cfg", []byte(src))
	if err != nil {
		return nil, nil, err
	}
	disks, err := f.Disks()
	return f, disks, err
}

func TestRead(t *testing.T) {
	seen := make(map[string]bool)
	for _, c := range readCases() {
		if seen[c.name] {
			t.Errorf("two cases are named %q", c.name)
		}
		seen[c.name] = true
		t.Run(c.name, func(t *testing.T) {
			f, disks, err := read(c.src)
			if f != nil && !bytes.Equal(f.Bytes(), []byte(c.src)) {
				t.Errorf("Bytes() = %q, want the source", f.Bytes())
			}
			if c.err == "" {
				if err != nil {
					t.Fatalf("refused: %v", err)
				}
				if diff := cmp.Diff(c.want, showAll(disks)); diff != "" {
					t.Errorf("disks (-want +got):\n%s", diff)
				}
				return
			}
			var syntax *SyntaxError
			if !errors.As(err, &syntax) {
				t.Fatalf("got %v, want a SyntaxError with %q", err, c.err)
			}
			if !strings.Contains(syntax.Msg, c.err) {
				t.Errorf("message %q does not contain %q", syntax.Msg, c.err)
			}
			if syntax.Ours != c.ours {
				t.Errorf("Ours = %v, want %v", syntax.Ours, c.ours)
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("message is not one line: %q", err)
			}
		})
	}
}
