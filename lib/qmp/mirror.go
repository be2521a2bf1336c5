package qmp

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"

	"xenlvm/lib/fault"
)

// ErrSwitched says that the guest runs on the destination.
var ErrSwitched = errors.New("the guest runs on the destination")

// Mirror moves one disk of a running guest onto a block device:
//
//	Start, Progress until it is ready, Complete
//
// and the guest writes to the device without having stopped. Until Complete the
// guest stays on its source, whatever fails. After an error, and instead of
// Complete, Cancel takes back what there is to take back; it may be called at
// any time, and twice.
//
// The job, and the node on the device, have names that follow from the disk.
// So a Mirror that another process started is taken up by client.Mirror with
// the Disk that it was started with; all methods go by what QEMU has, not by
// what was called before.
type Mirror struct {
	client *Client
	source Disk
	device string
	node   string // on the device; the job has the same name
	failed atomic.Value
}

// Mirror is a handle for moving source, a disk of Xen's, onto the block device,
// or file, at the absolute path device. It does not ask QEMU.
func (c *Client) Mirror(source Disk, device string) *Mirror {
	m := &Mirror{client: c, source: source, device: device, node: "xenlvm-" + source.VDev}
	if source.Node == m.node { // moved by us before
		m.node += "-2"
	}
	m.failed.Store("")
	c.OnEvent(m.watch)
	return m
}

// Progress of a mirror, in bytes. A guest that writes makes Total grow.
type Progress struct {
	Done, Total int64
	Ready       bool // all is copied, and what the guest writes follows
}

// Start opens the device in QEMU and starts to copy the whole disk onto it, at
// most speed bytes a second, 0 for no limit.
//
// Every byte is written, zeros too, because the device holds old data. The
// source stays as it is opened; of the destination:
//
//   - size: mirroring wants both of one size and a volume is rounded up, so the
//     node shows the first bytes only. The guest sees its disk unchanged.
//   - cache.direct: the copy does not push the guests' data out of dom0's page
//     cache, and who reads the device afterwards sees what is on it.
//   - discard is left off: with it QEMU first zeroes the whole device, then
//     copies. Until the guest's next start its discards are dropped.
//   - detect-zeroes is left off: the node becomes the guest's disk, where a
//     write is a write, and searching every block costs processor time.
//   - copy-mode is background: see Converge.
func (m *Mirror) Start(ctx context.Context, speed int64) error {
	if m.source.ReadOnly {
		return m.cannot(fault.Refuse("it is read-only"))
	}
	driver := "host_device" // if it cannot be opened, QEMU says why
	if st, err := os.Stat(m.device); err == nil && st.Mode().IsRegular() {
		driver = "file"
	}
	direct := map[string]bool{"direct": true}
	err := m.client.Execute(ctx, "blockdev-add", map[string]any{
		"driver": "raw", "node-name": m.node, "size": m.source.Size, "cache": direct,
		"file": map[string]any{"driver": driver, "node-name": m.node + "-file", "filename": m.device, "cache": direct},
	}, nil)
	if err != nil {
		return m.cannot(err)
	}
	// An error of either disk ends the job, and never reaches the guest.
	err = m.client.Execute(ctx, "blockdev-mirror", map[string]any{
		"job-id": m.node, "device": m.source.Node, "target": m.node, "sync": "full", "speed": speed,
		"on-source-error": "report", "on-target-error": "report", "auto-dismiss": false,
	}, nil)
	var refused *Error
	if errors.As(err, &refused) {
		err = errors.Join(err, m.remove(ctx, m.node))
	}
	return m.cannot(err)
}

// Progress tells how far the mirror is. The error of one that failed says why.
func (m *Mirror) Progress(ctx context.Context) (Progress, error) {
	j, err := m.job(ctx)
	switch {
	case err != nil:
		return Progress{}, m.cannot(err)
	case j == nil:
		return Progress{}, m.cannot(errors.New("QEMU has no such job"))
	case j.finished:
		err := m.failure(j)
		if err == nil {
			err = errors.New("the job has ended")
		}
		return Progress{}, m.cannot(err)
	}
	total := max(j.Total, 0)
	return Progress{Done: min(max(j.Done, 0), total), Total: total, Ready: j.Status == "ready"}, nil
}

// Converge makes the guest's writes wait for the destination from now on. A
// mirror that is ready copies behind the guest's back, and Complete needs an
// instant at which nothing is left to copy; a guest that writes all the time may
// never leave one. It needs QEMU 8.2: older ones take the mode at the start only,
// where it would hold the guest up for the whole copy. With those, the guest
// leaves the instant when it is paused for a moment.
func (m *Mirror) Converge(ctx context.Context) error {
	err := m.client.Execute(ctx, "block-job-change", map[string]string{"id": m.node, "type": "mirror", "copy-mode": "write-blocking"}, nil)
	var refused *Error
	if errors.As(err, &refused) && refused.Class == "CommandNotFound" {
		err = fault.Hint(fault.Refuse("this QEMU cannot slow a guest down to the mirror's pace: it is older than 8.2"), "xl pause the domain until it has switched")
	}
	return m.cannot(err)
}

// Complete puts the guest onto the destination of a mirror that is ready, and
// closes the source: from then on nothing writes to its file. If ctx ends
// first, the guest may still be switched at any time, until Cancel.
func (m *Mirror) Complete(ctx context.Context) error {
	j, err := m.job(ctx)
	if err == nil && j != nil && !j.finished {
		if err = m.command(ctx, "job-complete"); err == nil {
			j, err = m.ended(ctx)
		}
	}
	if err == nil && j != nil {
		err = m.failure(j)
	}
	if err != nil {
		return m.cannot(err)
	}
	now, err := m.now(ctx)
	switch {
	case err != nil:
	case now.Node != m.node || now.File != m.device:
		err = fmt.Errorf("the guest is on %s", printable(now.File))
	case now.Size != m.source.Size:
		err = fmt.Errorf("the guest's disk has %d bytes instead of %d", now.Size, m.source.Size)
	default:
		err = errors.Join(m.dismiss(ctx, j), m.closeSource(ctx))
	}
	return m.cannot(err)
}

// Cancel leaves the guest on its source and closes the device. The error is
// ErrSwitched when it comes too late.
func (m *Mirror) Cancel(ctx context.Context) error {
	j, err := m.stop(ctx)
	var now Disk
	if err == nil {
		now, err = m.now(ctx)
	}
	if err == nil && now.Node == m.node {
		err = ErrSwitched
	}
	if err == nil {
		err = errors.Join(m.dismiss(ctx, j), m.remove(ctx, m.node))
	}
	if err != nil {
		return fmt.Errorf("cannot stop moving %s to %s: %w", m.source.VDev, m.device, err)
	}
	return nil
}

// stop cancels the job and waits for its end.
func (m *Mirror) stop(ctx context.Context) (*job, error) {
	j, err := m.job(ctx)
	if err != nil || j == nil || j.finished {
		return j, err
	}
	if err := m.command(ctx, "job-cancel"); err != nil {
		// A job refuses if it has ended just now.
		if j, again := m.job(ctx); again == nil && (j == nil || j.finished) {
			return j, nil
		}
		return nil, err
	}
	return m.ended(ctx)
}

// ended waits until the job has concluded.
func (m *Mirror) ended(ctx context.Context) (*job, error) {
	for {
		j, err := m.job(ctx)
		if err != nil || j == nil || j.finished {
			return j, err
		}
		if err := wait(ctx); err != nil {
			return nil, err
		}
	}
}

func (m *Mirror) dismiss(ctx context.Context, j *job) error {
	if j == nil {
		return nil
	}
	return m.command(ctx, "job-dismiss")
}

// now is what the guest's device is on.
func (m *Mirror) now(ctx context.Context) (Disk, error) {
	disks, err := m.client.attached(ctx)
	for _, d := range disks {
		if d.QDev == m.source.QDev {
			return d, err
		}
	}
	if err == nil {
		err = errors.New("QEMU has no such disk any more")
	}
	return Disk{}, err
}

// closeSource removes the nodes on the source's file that have a name of their
// own; those without one go with the last user. That writes out what QEMU held
// back of a qcow2 image's metadata.
func (m *Mirror) closeSource(ctx context.Context) error {
	for {
		nodes, err := m.client.nodesOn(ctx, m.source.File)
		if err != nil || len(nodes) == 0 {
			return err
		}
		top := nodes[0]
		for _, n := range nodes {
			if n.Name == m.source.Node {
				top = n
			}
		}
		if strings.HasPrefix(top.Name, "#") {
			return fmt.Errorf("the guest is on the destination, but QEMU keeps %s open", printable(m.source.File))
		}
		if err := m.remove(ctx, top.Name); err != nil {
			return err
		}
	}
}

// remove closes a node; one that is not there is no error.
func (m *Mirror) remove(ctx context.Context, name string) error {
	var all []node
	if err := m.client.Execute(ctx, "query-named-block-nodes", map[string]bool{"flat": true}, &all); err != nil {
		return err
	}
	for _, n := range all {
		if n.Name == name {
			return m.client.Execute(ctx, "blockdev-del", map[string]string{"node-name": name}, nil)
		}
	}
	return nil
}

func (m *Mirror) cannot(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("cannot move %s to %s: %w", m.source.VDev, m.device, err)
}
