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
	env     string   // for the dom0, KEY=VALUE words that differ from boot to boot
	root    string   // /dev/vda: the layer over the image's root disk that this run writes to
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
	// The kernel hands words that it does not know to its init, as the environment.
	root := "root=/dev/vda rw init=/lab-init panic=-1 quiet " + m.env
	if m.xen {
		args = append(args, "-kernel", xenKernel,
			"-append", fmt.Sprintf("console=com1 com1=115200,8n1 dom0_mem=%s,max:%[1]s dom0_max_vcpus=1 spec-ctrl=eager-fpu", m.dom0Mem),
			"-initrd", linux+" console=hvc0 "+root+","+initrd)
	} else {
		// On a busy host the emulated timer comes too late for the kernel's test of it,
		// which then panics: "IO-APIC + timer doesn't work".
		args = append(args, "-kernel", linux, "-initrd", initrd, "-append", "console=ttyS0 no_timer_check "+root)
	}
	// cache=unsafe: what a dom0 flushes is handed to the host's page cache and goes no
	// further. When QEMU is killed, which is how a host goes down here, all that had
	// reached a raw disk stays, flushed or not, and all that was in the dom0's memory is
	// lost. So a lost flush shows where the data had not left the dom0, and not where a
	// disk would have lost them from its own cache.
	drive := func(file, format, more string) {
		args = append(args, "-drive", "file="+strings.ReplaceAll(file, ",", ",,")+
			",format="+format+",if=virtio,cache=unsafe,discard=unmap"+more)
	}
	drive(m.root, "qcow2", "")
	drive(m.payload, "raw", ",readonly=on")
	drive(m.result, "raw", "")
	for _, d := range m.disks {
		drive(d, "raw", "")
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

// layer makes an empty qcow2 file over an image's root disk: the cached image is
// never written, and a run's own writes stay when QEMU is killed.
func layer(ctx context.Context, img image, file string) error {
	base, err := filepath.Abs(filepath.Join(img.dir, rootDisk))
	if err != nil {
		return err
	}
	out, err := exec.CommandContext(ctx, "qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", base, file).CombinedOutput()
	if err != nil {
		return fmt.Errorf("cannot make %s: qemu-img: %w: %s", file, err, strings.TrimSpace(string(out)))
	}
	return nil
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

// times are the moments of a run, since QEMU started; of several boots, their sums.
type times struct {
	boots int           // that there were, tries left out
	ready time.Duration // the scenario starts
	done  time.Duration // its result is on the result disk, or it had the host go down
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

// errCrash is a machine whose scenario had the host go down.
var errCrash = errors.New("the scenario had the host go down")

// boot runs the machine until its scenario is done, or has the host go down, and
// kills it then: what a shutdown would write is either not wanted or must not be
// written. limit holds from ready to done; out receives the console.
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
			case eventCrash:
				t.done = time.Since(start)
				return t, errCrash
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
