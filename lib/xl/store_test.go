package xl

import (
	"testing"
)

func TestNode(t *testing.T) {
	a := answers{
		"xenstore-read /a": "1\n", "xenstore-read /b": "\n", "xenstore-read /c": "x\\ty\\n\n",
		"xenstore-read /d": "!xenstore-read: couldn't read path /d\n", "xenstore-read /e": "!xenstore-read: xs_open: Connection refused\n",
	}
	for path, want := range map[string]string{"/a": "1", "/b": "", "/c": "x\ty\n"} {
		if got, ok, err := Node(t.Context(), a, path); got != want || !ok || err != nil {
			t.Errorf("Node(%s) = %q, %v, %v; want %q", path, got, ok, err, want)
		}
	}
	if got, ok, err := Node(t.Context(), a, "/d"); ok || err != nil {
		t.Errorf("Node of none = %q, %v, %v", got, ok, err)
	}
	if _, _, err := Node(t.Context(), a, "/e"); err == nil {
		t.Error("a xenstore that does not answer has no nodes, and that is no error")
	}
}

func TestByUUID(t *testing.T) {
	const header, dom0 = "Name ID Mem VCPUs State Time(s)\n", "Domain-0 0 1500 1 r----- 21.3\n"
	a := answers{
		"xl list":                          header + dom0 + "vm3 4 256 1 -b---- 1.2\nvm3-rehearsal 5 256 1 --p--- 0.0\nvm3-rehearsal 6 256 1 --ps-d 0.0\n",
		"xenstore-read /local/domain/0/vm": "!xenstore-read: couldn't read path /local/domain/0/vm\n",
		"xenstore-read /local/domain/4/vm": "/vm/a\n",
		"xenstore-read /local/domain/5/vm": "/vm/b\n",
		"xenstore-read /local/domain/6/vm": "!xenstore-read: couldn't read path /local/domain/6/vm\n",
	}
	got, err := ByUUID(t.Context(), a, []string{"b", "c"})
	if err != nil || len(got) != 1 || got[0].ID != 5 {
		t.Errorf("ByUUID = %v, %v; want domain 5", got, err)
	}
	if got, err := ByUUID(t.Context(), answers{}, nil); err != nil || got != nil {
		t.Errorf("ByUUID of none = %v, %v", got, err)
	}
}

func TestConsole(t *testing.T) {
	const serial, pv = "xenstore-read /local/domain/5/serial/0/tty", "xenstore-read /local/domain/5/console/tty"
	none := "!xenstore-read: couldn't read path\n"
	for want, a := range map[string]answers{
		"/dev/pts/2": {serial: "/dev/pts/2\n", pv: "/dev/pts/1\n"},
		"/dev/pts/1": {serial: none, pv: "/dev/pts/1\n"},
		"":           {serial: none, pv: none},
	} {
		if got, err := Console(t.Context(), a, Domain{ID: 5}); got != want || err != nil {
			t.Errorf("Console = %q, %v; want %q", got, err, want)
		}
	}
}
