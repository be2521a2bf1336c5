package qmp

import (
	"encoding/json"
	"strings"
	"testing"

	"xenlvm/lib/fault"
)

func TestFilename(t *testing.T) {
	nested := func(n int) string {
		return "json:" + strings.Repeat(`{"file":`, n) + `{"filename":"/a"}` + strings.Repeat("}", n)
	}
	tests := map[string]string{
		nested(mostLayers - 1): "/a",
		nested(mostLayers):     nested(mostLayers),
		"/srv/q.qcow2":         "/srv/q.qcow2",
		`json:{"driver": "raw", "size": 1, "file": {"driver": "host_device", "filename": "/dev/vg0/q"}}`: "/dev/vg0/q",
		`json:{"driver": "raw", "file": {"driver": "raw", "file": {"filename": "/a"}}}`:                  "/a",
		`json:{"driver": "null-co"}`: `json:{"driver": "null-co"}`,
		`json:{"file": "node"}`:      `json:{"file": "node"}`,
		"json:{":                     "json:{",
		"":                           "",
	}
	for s, want := range tests {
		if got := filename(s); got != want {
			t.Errorf("filename(%s) = %s; want %s", s, got, want)
		}
	}
}

// xenDisk is a device in a played QEMU. The real one is met in the lab, in the
// scenario test/lab/scenarios/qmp.sh.
type xenDisk struct{ kind, vdev, node, file string }

// xen plays the QEMU of a Xen guest, which has opened the given files.
func xen(t *testing.T, disks []xenDisk, files ...string) *Client {
	return qemu(t, func(p peer) {
		marshal := func(v any) string {
			b, err := json.Marshal(map[string]any{"return": v})
			if err != nil {
				panic(err)
			}
			return strings.TrimSuffix(strings.TrimPrefix(string(b), "{"), "}")
		}
		var backends []any
		for _, d := range disks {
			backends = append(backends, map[string]any{"device": "", "qdev": "/machine/" + d.vdev, "inserted": map[string]any{
				"node-name": d.node, "drv": "qcow2", "file": d.file, "image": map[string]any{"virtual-size": 4096}}})
		}
		backends = append(backends, map[string]any{"device": "floppy0", "qdev": "/machine/fd"}, map[string]any{"device": "none0"})
		p.answer(marshal(backends))
		for _, d := range disks {
			if p.answer(marshal(d.kind)); d.kind == "xen-disk" {
				p.answer(marshal(d.vdev))
			}
		}
		var nodes []any
		for _, f := range files {
			nodes = append(nodes, map[string]any{"node-name": "#block1", "drv": "file", "file": f}, map[string]any{"node-name": "n", "drv": "qcow2", "file": f})
		}
		p.answer(marshal(nodes))
	})
}

func TestDisk(t *testing.T) {
	ide := xenDisk{"ide-hd", "hda", "#block5", "/a"}
	a, b := xenDisk{"xen-disk", "xvda0", "xvda-qcow2", "/a"}, xenDisk{"xen-disk", "xvdb1", "other", "/b"}
	tests := []struct {
		name    string
		disks   []xenDisk
		files   []string
		vdev    string
		node    string
		refused string
	}{
		{"a whole disk", []xenDisk{b, a}, []string{"/a", "/b"}, "xvda", "xvda-qcow2", ""},
		{"a partition", []xenDisk{a, b}, []string{"/a", "/b"}, "xvdb1", "other", ""},
		{"partition 10", []xenDisk{{"xen-disk", "xvda10", "x", "/a"}}, []string{"/a"}, "xvda10", "x", ""},
		{"not there", []xenDisk{a}, []string{"/a"}, "xvdb", "", "it has 0 of that name"},
		{"twice there", []xenDisk{a, a}, []string{"/a"}, "xvda", "", "it has 2 of that name"},
		{"not Xen's", []xenDisk{ide}, []string{"/a"}, "hda", "", "it has 0 of that name"},
		{"emulated, too", []xenDisk{ide, a}, []string{"/a", "/a"}, "xvda", "", "QEMU has it open 2 times"},
		{"a name of two lines", []xenDisk{{"xen-disk", "xvda0", "x", "/a\nrm -r /srv"}}, []string{"/a\nrm -r /srv"}, "xvda", "", `has a control character: "/a\nrm -r /srv"`},
		{"a name that moves the cursor", []xenDisk{{"xen-disk", "xvda0", "x", `json:{"filename": "/a\u001b[A"}`}}, nil, "xvda", "", `has a control character: "/a\x1b[A"`},
		{"on no file", []xenDisk{{"xen-disk", "xvda0", "x", ""}}, nil, "xvda", "", "cannot tell what disk xvda is on"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d, err := xen(t, tt.disks, tt.files...).Disk(t.Context(), tt.vdev)
			if tt.refused != "" {
				if err == nil || fault.StatusOf(err) != fault.Refused || !strings.Contains(err.Error(), tt.refused) {
					t.Errorf("error is %v; want %s", err, tt.refused)
				}
				return
			}
			if err != nil || d.VDev != tt.vdev || d.Node != tt.node || d.Size != 4096 {
				t.Errorf("found %+v, %v", d, err)
			}
		})
	}
}
