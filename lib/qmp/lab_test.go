package qmp

import (
	"os"
	"slices"
	"testing"
	"time"

	"xenlvm/lib/fault"
)

// TestLabMove moves the disk of a guest that runs under Xen, after it was about
// to twice. The scenario test/lab/scenarios/qmp.sh starts the guest and looks
// at it afterwards.
func TestLabMove(t *testing.T) {
	socket, dev := os.Getenv("XENLVM_QMP_SOCKET"), os.Getenv("XENLVM_QMP_DEVICE")
	if socket == "" || dev == "" {
		t.Skip("needs a Xen guest: run by the scenario test/lab/scenarios/qmp.sh, with XENLVM_QMP_SOCKET and XENLVM_QMP_DEVICE")
	}
	m := &machine{t: t}
	c, err := Dial(t.Context(), socket, time.Minute)
	m.must(err)
	defer c.Close()
	m.Client = c
	disk, err := c.Disk(t.Context(), "xvda")
	m.must(err)
	t.Logf("the guest's disk is %+v", disk)
	nodes := m.nodes()

	mirror := c.Mirror(disk, dev)
	untilReady := func() { m.must(ready(t.Context(), mirror, func(p Progress) { t.Logf("%+v", p) })) }
	m.must(mirror.Start(t.Context(), 1))
	m.must(mirror.Cancel(t.Context()))
	m.must(mirror.Start(t.Context(), 0))
	untilReady()
	m.must(mirror.Cancel(t.Context()))
	if now, err := c.Disk(t.Context(), "xvda"); err != nil || now != disk || m.nodes() != nodes || len(m.jobs()) != 0 {
		t.Fatalf("after Cancel the disk is %+v, %v; nodes %s, jobs %+v", now, err, m.nodes(), m.jobs())
	}

	m.must(mirror.Start(t.Context(), 0))
	untilReady()
	if err := mirror.Converge(t.Context()); m.knows("block-job-change") != (err == nil) || err != nil && fault.StatusOf(err) != fault.Refused {
		t.Errorf("Converge: %v", err)
	}
	m.must(mirror.Complete(t.Context()))
	now, err := c.Disk(t.Context(), "xvda")
	m.must(err)
	if now.File != dev || now.Size != disk.Size || len(m.jobs()) != 0 {
		t.Errorf("the guest's disk is %+v, jobs %+v", now, m.jobs())
	}
	t.Logf("nodes: %s", m.nodes())
}

// knows tells whether this QEMU has a command.
func (m *machine) knows(command string) bool {
	m.t.Helper()
	var known []struct{ Name string }
	m.must(m.Execute(m.t.Context(), "query-commands", nil, &known))
	return slices.ContainsFunc(known, func(c struct{ Name string }) bool { return c.Name == command })
}
