package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"xenlvm/lib/fault"
	"xenlvm/lib/run"
	"xenlvm/lib/xl"
	"xenlvm/lib/xlcfg"
)

// check looks at the backends of the paused domain: each configured disk has
// one, it waits for the guest, and its device is the configured one.
func (s *starting) check(ctx context.Context) error {
	live, err := xl.Disks(ctx, s.e.Runner, s.dom.ID)
	if err != nil {
		return err
	}
	now := present{Domain: s.dom, up: true, disks: live}
	for _, k := range s.disks {
		if k.CDROM || k.Format == xlcfg.Empty {
			continue
		}
		l, ok := now.liveDisk(k.VDev)
		switch {
		case !ok:
			return fmt.Errorf("cannot start %s: disk %s has no backend", s.d.name, k.VDev)
		case l.State < xl.InitWait || l.State > xl.Connected:
			return fmt.Errorf("cannot start %s: the backend of disk %s is not ready (state %d)", s.d.name, k.VDev, l.State)
		case s.onQEMU(l):
			return fmt.Errorf("cannot start %s: the backend of disk %s is QEMU now, and the guest, which knows the kernel's, could crash", s.d.name, k.VDev)
		case !s.c.runs(l, k.Target):
			return fmt.Errorf("cannot start %s: the backend of disk %s has another device than %s: %s (%d:%d)", s.d.name, k.VDev, k.Target, l.Path, l.Major, l.Minor)
		}
	}
	return nil
}

// onQEMU: a guest that goes on reads the features of a backend only once, and
// QEMU's has fewer than the kernel's.
func (s *starting) onQEMU(l xl.Disk) bool {
	was, ok := s.was.liveDisk(l.VDev)
	return ok && was.Kind == "vbd" && l.Kind == qdisk
}

// wait returns when all disks are connected. An error means that the guest has
// not written anything, so that all can be undone.
func (s *starting) wait(ctx context.Context) error {
	if s.c.timeout == 0 {
		return nil
	}
	name, touched := s.d.name, s.emulated()
	for end := time.Now().Add(s.c.timeout); ; {
		// The undoing needs the answer even when we are interrupted.
		g, missing, err := s.missing(context.WithoutCancel(ctx))
		touched = touched || g.touched
		switch {
		case err != nil:
			return s.stopHere(true, err)
		case !g.alive:
			// Between two looks it may have written.
			return s.stopHere(true, fmt.Errorf("cannot start %s: it ended while it started", name))
		case len(missing) == 0:
			s.cameUp()
			return nil
		case time.Now().After(end):
			return s.stopHere(touched, fmt.Errorf("cannot start %s: it did not connect %s within %v", name, strings.Join(missing, ", "), s.c.timeout))
		}
		if err := s.c.pause(ctx); err != nil {
			return s.stopHere(touched, err)
		}
	}
}

// glance is what one look at a starting domain saw.
type glance struct {
	present
	here    bool // it is still the domain that we created
	alive   bool // and a guest runs in it, or is paused
	touched bool // the guest has at least one disk that it can write to
}

// missing names the disks that the guest has not connected yet.
func (s *starting) missing(ctx context.Context) (glance, []string, error) {
	now, err := look(ctx, s.e.Runner, s.d.name)
	if err != nil {
		return glance{}, nil, err
	}
	g := glance{present: now, here: now.up && now.ID == s.dom.ID}
	g.alive = g.here && alive(now.State)
	var missing []string
	for _, k := range s.disks {
		l, ok := now.liveDisk(k.VDev)
		writable := !k.CDROM && !k.ReadOnly
		if ok && writable && (l.GuestUp || l.State >= xl.Connected) {
			g.touched = true
		}
		if !k.CDROM && k.Format != xlcfg.Empty && (!ok || l.State != xl.Connected) {
			missing = append(missing, fmt.Sprintf("disk %s = %s", k.VDev, k.Target))
		}
	}
	return g, missing, nil
}

// emulated says whether the guest can write without a connected backend: an HVM
// guest does so through QEMU's emulated controller.
func (s *starting) emulated() bool { return s.d.hvm() }

// stopHere decides what a failure means. A guest that may have written stays:
// going back to the old disks would lose that.
func (s *starting) stopHere(touched bool, err error) error {
	if !touched {
		return err
	}
	s.left = s.leave(err)
	return nil
}

// leave is the error of a start that failed too late to be undone.
func (s *starting) leave(err error) error {
	quoted := run.Quote(s.d.name)
	which := "its disks"
	if s.back != nil {
		which = "its new disks"
	}
	left := fmt.Errorf("%w\n%s may have written to %s, so it was left as it is", err, s.d.name, which)
	left = fault.Hint(fault.With(fault.Left, left), "see how far it came: xl console %s", quoted)
	if s.back != nil {
		left = fault.Hint(left, "give the new disks up: domuswitch stop --destroy %s && domuswitch revert --yes %s", quoted, quoted)
	}
	return left
}
