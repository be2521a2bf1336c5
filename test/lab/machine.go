package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// bootLimit is how long a boot may take before the time factor.
const bootLimit = 240 * time.Second

// machine is one QEMU with its disks.
type machine struct {
	image   image
	xen     bool
	mem     string   // of the whole machine
	dom0Mem string   // under Xen
	payload string   // /dev/vdb, read-only
	result  string   // /dev/vdc, where the guest writes a tar
	disks   []string // /dev/vdd and on, empty
}

// firstDisk is the letter of the first empty disk.
const firstDisk = 'd'

// argv is QEMU's command line. It runs in the image's folder, so that the boot
// modules' names hold neither blanks nor commas, which separate them.
func (m machine) argv() []string {
	mem := m.mem
	if mem == "" {
		mem = "2G"
		if m.xen {
			mem = "4G"
		}
	}
	args := []string{"-m", mem, "-nic", "none", "-display", "none", "-monitor", "none", "-serial", "stdio", "-no-reboot"}
	if os.Getenv("XENLVM_LAB_KVM") == "1" {
		args = append(args, "-accel", "kvm", "-cpu", "host")
	} else {
		// Never detected: a /dev/kvm may exist and yet not boot a stock kernel. With
		// SMAP on, QEMU before 9.1 faults on a PV dom0's first return to user mode;
		// with AVX on and Xen switching vector registers lazily (Xen's eager-fpu is off),
		// programs crash at random under QEMU 7.2. Either cure was seen to be enough.
		args = append(args, "-accel", "tcg,thread=multi,tb-size=1024", "-cpu", "max,-smap,-smep,-xsave,-avx,-avx2")
	}
	const root = "root=/dev/vda rw init=/lab-init panic=-1 quiet"
	if m.xen {
		args = append(args, "-kernel", xenKernel,
			"-append", fmt.Sprintf("console=com1 com1=115200,8n1 dom0_mem=%s,max:%[1]s dom0_max_vcpus=1 spec-ctrl=eager-fpu", m.dom0Mem),
			"-initrd", linux+" console=hvc0 "+root+","+initrd)
	} else {
		// On a busy host the emulated timer comes too late for the kernel's test of it,
		// which then panics: "IO-APIC + timer doesn't work".
		args = append(args, "-kernel", linux, "-initrd", initrd, "-append", "console=ttyS0 no_timer_check "+root)
	}
	drive := func(file, more string) {
		args = append(args, "-drive", "file="+strings.ReplaceAll(file, ",", ",,")+
			",format=raw,if=virtio,cache=unsafe,discard=unmap"+more)
	}
	drive(rootDisk, ",snapshot=on") // a throwaway layer: the cached image is never written
	drive(m.payload, ",readonly=on")
	drive(m.result, "")
	for _, d := range m.disks {
		drive(d, "")
	}
	return args
}

// command prepares QEMU. It dies with the thread that starts it, so that no lab
// outlives its harness.
func (m machine) command(ctx context.Context) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", m.argv()...)
	cmd.Dir = m.image.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// sparse makes an empty file of the given size.
func sparse(file string, size int64) error {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Close())
}

// sizeBytes reads a size such as 512M or 12G, as checked by parseScenario.
func sizeBytes(s string) (n int64, err error) {
	var unit byte
	if _, err := fmt.Sscanf(s, "%d%c", &n, &unit); err != nil {
		return 0, fmt.Errorf("%s: not a size", s)
	}
	if unit == 'G' {
		n <<= 10
	}
	return n << 20, nil
}

// times are the moments of a run, since QEMU started.
type times struct {
	ready time.Duration // the scenario starts
	done  time.Duration // its result is on the result disk
}

// started says of what ended the machine whether its scenario had begun.
func (t times) started(err error) error {
	if t.ready == 0 {
		return fmt.Errorf("%w: %w", errBoot, err)
	}
	return fmt.Errorf("the scenario did not end: %w", err)
}

// errBoot is a machine that ended, or hung, before its scenario began.
var errBoot = errors.New("it did not boot")

// boot runs the machine until its scenario is done, and ends it then: the dom0's
// disks are thrown away, so nothing is gained by a shutdown. limit holds from
// ready to done; out receives the console.
func (m machine) boot(ctx context.Context, out *console, factor float64, limit time.Duration) (t times, err error) {
	ctx, cancel := context.WithCancel(ctx)
	cmd := m.command(ctx)
	cmd.Stdout, cmd.Stderr = out, out
	start := time.Now()
	if err := cmd.Start(); err != nil {
		cancel()
		return t, fmt.Errorf("cannot start QEMU: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	defer func() {
		cancel()
		if ended != nil {
			<-ended
		}
	}()

	deadline := time.After(time.Duration(float64(bootLimit) * factor))
	for {
		select {
		case e := <-out.events:
			switch e.kind {
			case eventReady:
				t.ready = time.Since(start)
				// The guest ends the scenario at its limit and still hands over its
				// result; this deadline is for a guest that no longer can.
				deadline = time.After(limit + time.Duration(60*factor)*time.Second)
			case eventDone:
				t.done = time.Since(start)
				return t, nil
			case eventFail:
				return t, errors.New(e.text)
			}
		case err := <-ended:
			ended = nil
			return t, t.started(fmt.Errorf("QEMU ended: %w", exitError(err)))
		case <-deadline:
			return t, t.started(errors.New("time limit"))
		case <-ctx.Done():
			return t, ctx.Err()
		}
	}
}

// exitError says how a process ended, for an exit status of 0 too.
func exitError(err error) error {
	if err == nil {
		return errors.New("exit status 0")
	}
	return err
}

// emptyDisks makes the sparse disks a scenario asks for.
func emptyDisks(tmp string, sizes []string) (files []string, err error) {
	for i, size := range sizes {
		n, err := sizeBytes(size)
		if err != nil {
			return nil, err
		}
		file := filepath.Join(tmp, fmt.Sprintf("disk%d.img", i))
		if err := sparse(file, n); err != nil {
			return nil, err
		}
		files = append(files, file)
	}
	return files, nil
}

var _ io.Writer = (*console)(nil)
