package qmp

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"xenlvm/lib/fault"
)

const (
	diskSize = 16 << 20 // of the guest's disk
	devSize  = diskSize + 3<<20 + 512
)

func command(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v: %s", name, args, err, out)
	}
}

// machine is a real QEMU that serves disk.img to a device, in the directory of the
// test, beside a destination that is full of old data and larger.
type machine struct {
	*Client
	t   *testing.T
	old []byte // what was on the destination
}

// start makes an image with qemu-img's arguments and starts a QEMU on it,
// through a shell that runs prelude first.
func start(t *testing.T, format, prelude string, create ...string) *machine {
	t.Helper()
	const qemu = "qemu-system-x86_64"
	if _, err := exec.LookPath(qemu); err != nil {
		t.Skip("needs " + qemu + ", Debian's package qemu-system-x86: the one of a dom0 runs on Xen only, see test/lab/scenarios/qmp.sh")
	}
	t.Chdir(t.TempDir())
	command(t, "qemu-img", append([]string{"create", "-q", "-f", format, "disk.img"}, create...)...)
	m := &machine{t: t, old: make([]byte, devSize)}
	if _, err := rand.Read(m.old); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("dev", m.old, 0o600); err != nil {
		t.Fatal(err)
	}
	node := fmt.Sprintf(`{"driver": "%s", "node-name": "disk", "discard": "unmap", "file": {"driver": "file", "node-name": "protocol", "filename": "disk.img", "discard": "unmap", "locking": "off"}}`, format)
	cmd := exec.Command("sh", "-c", prelude+`exec stdbuf -oL "$@" >>said`, "sh", qemu, "-machine", "pc", "-accel", "tcg", "-S", "-m", "32", "-nodefaults", "-display", "none",
		"-chardev", "socket,id=qmp,path=qmp,server=on,wait=off", "-mon", "chardev=qmp,mode=control", "-blockdev", node, "-device", "virtio-blk-pci,id=guest,drive=disk")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	gone := make(chan struct{})
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		err := cmd.Wait()
		cancel(fmt.Errorf("QEMU ended: %w: %s", err, stderr.String()))
		close(gone)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		<-gone
	})
	m.dial(ctx)
	return m
}

// dial connects once the socket is there.
func (m *machine) dial(ctx context.Context) {
	m.t.Helper()
	c, err := Dial(ctx, "qmp", time.Minute)
	for errors.Is(err, fs.ErrNotExist) || err != nil && strings.Contains(err.Error(), "connection refused") {
		if err = wait(ctx); err == nil {
			c, err = Dial(ctx, "qmp", time.Minute)
		}
	}
	if err != nil {
		m.t.Fatal(err)
	}
	m.Client = c
	m.t.Cleanup(func() { c.Close() })
}

// disk is the disk of the only device. It gets a name that only Xen's have.
func (m *machine) disk() Disk {
	m.t.Helper()
	disks, err := m.Disks(m.t.Context())
	if err != nil || len(disks) != 1 || disks[0].VDev != "" || disks[0].Size < diskSize {
		m.t.Fatalf("Disks = %+v, %v", disks, err)
	}
	disks[0].VDev = "xvda"
	return disks[0]
}

// guest does what the guest would: commands of qemu-io on its device. They say
// on QEMU's output how they went.
func (m *machine) guest(commands ...string) {
	m.t.Helper()
	for _, c := range commands {
		m.must(os.Truncate("said", 0))
		line := fmt.Sprintf("qemu-io -d %s %q", m.disk().QDev, c)
		m.must(m.Execute(m.t.Context(), "human-monitor-command", map[string]string{"command-line": line}, nil))
		said, err := os.ReadFile("said")
		if err != nil || !bytes.Contains(said, []byte(" bytes at offset ")) || bytes.Contains(said, []byte("failed")) {
			m.t.Fatalf("%s: %v: %s", c, err, said)
		}
	}
}

func (m *machine) must(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

// nodes are the names of all block nodes.
func (m *machine) nodes() string {
	m.t.Helper()
	var nodes []node
	m.must(m.Execute(m.t.Context(), "query-named-block-nodes", nil, &nodes))
	var names []string
	for _, n := range nodes {
		names = append(names, n.Name)
	}
	return strings.Join(names, " ")
}

func (m *machine) jobs() (jobs []job) {
	m.t.Helper()
	m.must(m.Execute(m.t.Context(), "query-jobs", nil, &jobs))
	return jobs
}

// same fails unless the guest's disk on the image and on the destination are
// the same, and what lies behind the disk on the destination is as it was.
func (m *machine) same(format string) {
	m.t.Helper()
	command(m.t, "qemu-img", "compare", "-q", "--image-opts", "driver="+format+",file.filename=disk.img",
		fmt.Sprintf("driver=raw,size=%d,file.filename=dev", m.disk().Size))
	dev, err := os.ReadFile("dev")
	m.must(err)
	if size := m.disk().Size; !bytes.Equal(dev[size:], m.old[size:]) {
		m.t.Error("the destination was written to behind the disk")
	}
}

// ready waits until the mirror is, and tells report how far it is.
func ready(ctx context.Context, m *Mirror, report func(Progress)) error {
	for {
		p, err := m.Progress(ctx)
		if err != nil {
			return err
		}
		report(p)
		if p.Ready {
			return nil
		}
		if err := wait(ctx); err != nil {
			return err
		}
	}
}

// TestDialWaits: QEMU serves one client, lets another one wait, and turns more away.
func TestDialWaits(t *testing.T) {
	m := start(t, "qcow2", "", fmt.Sprint(diskSize))
	const more = 4
	served := make(chan error, more)
	for range more {
		go func() {
			c, err := Dial(t.Context(), "qmp", time.Minute)
			if err == nil {
				err = c.Close()
			}
			served <- err
		}()
	}
	m.disk() // the first one is served
	if len(served) != 0 {
		t.Error("two clients at a time")
	}
	m.Close()
	for range more {
		m.must(<-served)
	}
}

// TestMove moves a disk of every format that Xen has, while the guest writes
// and discards, and lets the work be taken up on another connection.
func TestMove(t *testing.T) {
	for _, format := range []string{"qcow2", "raw", "qcow", "qed", "vpc"} {
		t.Run(format, func(t *testing.T) {
			size := fmt.Sprint(diskSize)
			m := start(t, format, "", size)
			m.guest("write -P 0x11 1M 2M", "write -P 0x22 9M 1M", "write -z 2M 64k")
			disk := m.disk()
			if disk.Node != "disk" || disk.Format != format || disk.File != "disk.img" {
				t.Errorf("the disk is %+v", disk)
			}
			mirror := m.Mirror(disk, "dev")
			m.must(mirror.Start(t.Context(), 1)) // so slowly that it is not done before the guest writes
			m.guest("write -P 0x33 1M 64k", "write -P 0x44 12345856 4096", "discard 9M 512k")
			if p, err := mirror.Progress(t.Context()); err != nil || p.Ready || p.Total < 3<<20 {
				t.Errorf("progress is %+v, %v", p, err)
			}

			m.Close()
			kept, err := json.Marshal(disk)
			m.must(err)
			m.dial(t.Context())
			var again Disk
			m.must(json.Unmarshal(kept, &again))
			mirror = m.Mirror(again, "dev")
			m.must(m.Execute(t.Context(), "block-job-set-speed", map[string]any{"device": "xenlvm-xvda", "speed": 0}, nil))
			reports := 0
			m.must(ready(t.Context(), mirror, func(p Progress) {
				if reports++; p.Done < 0 || p.Done > p.Total || p.Ready && p.Total < diskSize/2 {
					t.Errorf("progress %+v", p)
				}
			}))
			if reports == 0 {
				t.Error("no progress was reported")
			}
			m.guest("write -P 0x55 3M 64k", "discard 1M 64k")
			m.must(mirror.Complete(t.Context()))

			if now := m.disk(); now.Node != "xenlvm-xvda" || now.File != "dev" || now.Size != disk.Size {
				t.Errorf("the guest is on %+v", now)
			}
			if nodes := m.nodes(); strings.Contains(nodes, "disk") || strings.Contains(nodes, "protocol") {
				t.Errorf("the source is still open: %s", nodes)
			}
			if jobs := m.jobs(); len(jobs) != 0 {
				t.Errorf("jobs %+v", jobs)
			}
			m.same(format)
			command(t, "qemu-io", "-f", format, "-c", "read -P 0x55 3M 64k", "-c", "read -P 0x44 12345856 4096", "disk.img")
			image, err := os.ReadFile("disk.img")
			m.must(err)
			m.guest("write -P 0x66 0 1M")
			if after, err := os.ReadFile("disk.img"); err != nil || !bytes.Equal(image, after) {
				t.Errorf("the source was written to after the switch: %v", err)
			}
			if dev, err := os.ReadFile("dev"); err != nil || !bytes.Equal(dev[:1<<20], bytes.Repeat([]byte{0x66}, 1<<20)) {
				t.Errorf("what the guest writes after the switch is not on the destination: %v", err)
			}

			m.must(mirror.Complete(t.Context())) // nothing left to do
			if err := mirror.Cancel(t.Context()); !errors.Is(err, ErrSwitched) {
				t.Errorf("Cancel after the switch: %v", err)
			}
		})
	}
}

// TestMoveAgain: a disk that was moved can be moved on, by the same names.
func TestMoveAgain(t *testing.T) {
	m := start(t, "qcow2", "", fmt.Sprint(diskSize))
	m.guest("write -P 0x11 1M 2M")
	for _, dev := range []string{"dev", "dev2", "dev3"} {
		m.must(os.WriteFile(dev, m.old, 0o600))
		mirror := m.Mirror(m.disk(), dev)
		m.must(mirror.Start(t.Context(), 0))
		m.must(ready(t.Context(), mirror, func(Progress) {}))
		m.must(mirror.Complete(t.Context()))
		if now := m.disk(); now.File != dev || len(strings.Fields(m.nodes())) != 2 {
			t.Errorf("the guest is on %+v; nodes %s", now, m.nodes())
		}
		m.same("qcow2")
	}
}

// TestCancel: at any time, and twice, the guest stays where it was.
func TestCancel(t *testing.T) {
	m := start(t, "qcow2", "", fmt.Sprint(diskSize))
	m.guest("write -P 0x11 0 4M")
	nodes := m.nodes()
	for _, stage := range []string{"before the start", "running", "ready", "opened only"} {
		mirror := m.Mirror(m.disk(), "dev")
		switch stage {
		case "running":
			m.must(mirror.Start(t.Context(), 1))
		case "ready":
			m.must(mirror.Start(t.Context(), 0))
			m.must(ready(t.Context(), mirror, func(Progress) {}))
		case "opened only": // as when the program was killed between the two
			m.must(m.Execute(t.Context(), "blockdev-add", json.RawMessage(`{"driver": "raw", "node-name": "xenlvm-xvda", "file": {"driver": "file", "filename": "dev"}}`), nil))
			if err := mirror.Start(t.Context(), 0); err == nil || m.nodes() == nodes {
				t.Errorf("Start beside what another run has left: %v", err)
			}
		}
		m.must(mirror.Cancel(t.Context()))
		m.must(mirror.Cancel(t.Context()))
		if m.disk().Node != "disk" || m.nodes() != nodes || len(m.jobs()) != 0 {
			t.Errorf("cancelled when %s: on %+v, nodes %s, jobs %+v", stage, m.disk(), m.nodes(), m.jobs())
		}
		if _, err := mirror.Progress(t.Context()); err == nil || !strings.Contains(err.Error(), "QEMU has no such job") {
			t.Errorf("progress of a cancelled mirror: %v", err)
		}
		m.guest("read -P 0x11 0 4M", "write -P 0x11 0 64k")
	}
}

// TestStartRefuses: nothing is left in QEMU by a Start that failed.
func TestStartRefuses(t *testing.T) {
	m := start(t, "qcow2", "", fmt.Sprint(diskSize))
	nodes, disk := m.nodes(), m.disk()
	m.must(os.WriteFile("small", m.old[:diskSize-512], 0o600))
	readOnly, elsewhere := disk, disk
	readOnly.ReadOnly, elsewhere.Node = true, "gone"
	tests := []struct {
		source    Disk
		dev, want string
	}{
		{disk, "missing", "No such file"},
		{disk, "small", "has to be smaller or equal to the  actual size"},
		{readOnly, "dev", "it is read-only"},
		{elsewhere, "dev", "gone"},
	}
	for _, tt := range tests {
		err := m.Mirror(tt.source, tt.dev).Start(t.Context(), 0)
		if err == nil || !strings.HasPrefix(err.Error(), "cannot move xvda to "+tt.dev+": ") || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("error is %v; want %s", err, tt.want)
		}
		if m.nodes() != nodes {
			t.Errorf("%s: nodes %s", tt.dev, m.nodes())
		}
	}
}

// TestDestinationFails: the guest does not notice, and is left where it was.
func TestDestinationFails(t *testing.T) {
	// No file can be written beyond 10 MiB: the image stays smaller.
	m := start(t, "qcow2", "trap '' XFSZ; ulimit -f 20480; ", fmt.Sprint(diskSize))
	m.guest("write -P 0x11 12M 64k")
	nodes := m.nodes()
	mirror := m.Mirror(m.disk(), "dev")
	m.must(mirror.Start(t.Context(), 0))
	err := ready(t.Context(), mirror, func(Progress) {})
	if err == nil || err.Error() != "cannot move xvda to dev: cannot write to the destination: File too large" {
		t.Errorf("error is %v", err)
	}
	if err := mirror.Complete(t.Context()); err == nil || m.disk().Node != "disk" {
		t.Errorf("completed: %v, on %+v", err, m.disk())
	}
	m.guest("write -P 0x11 0 64k")
	m.must(mirror.Cancel(t.Context()))
	if m.nodes() != nodes || len(m.jobs()) != 0 {
		t.Errorf("left: nodes %s, jobs %+v", m.nodes(), m.jobs())
	}
}

// TestConverge: QEMU can, from 8.2 on; before, it is refused and nothing changes.
func TestConverge(t *testing.T) {
	m := start(t, "qcow2", "", fmt.Sprint(diskSize))
	mirror := m.Mirror(m.disk(), "dev")
	m.must(mirror.Start(t.Context(), 0))
	m.must(ready(t.Context(), mirror, func(Progress) {}))
	if err := mirror.Converge(t.Context()); m.knows("block-job-change") != (err == nil) || err != nil && fault.StatusOf(err) != fault.Refused {
		t.Errorf("error is %v", err)
	}
	m.guest("write -P 0x11 0 4M")
	m.must(mirror.Complete(t.Context()))
	m.same("qcow2")
}
