package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"xenlvm/lib/fault"
	"xenlvm/lib/loopdev"
)

// That a loop device is read-only does not keep others from its file.
func TestRootSourceBehindLoop(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	image := imageFile(t, dir+"/a.img")
	loop := attach(t, image, loopdev.Options{ReadOnly: true})
	name := loop + " (" + image + ")"
	idle := "{}"
	try := func(what, host, want string) {
		t.Helper()
		path := dir + "/b.img"
		s, said := imgconvOn(t, host, loop, path)
		_, err := os.Stat(path)
		if want == "" && (s != fault.Done || err != nil) || want != "" && (s != fault.Refused || !strings.Contains(said, want) || err == nil) {
			t.Errorf("%s: status %d: %s; want %q", what, s, said, want)
		}
		_ = os.Remove(path)
	}
	try("nobody", idle, "")
	try("a domain", fmt.Sprintf(`{"domains": [{"name": "vm3", "id": 7, "disks": [{"vdev": "xvda", "path": %q, "format": "qcow2", "state": 4}]}]}`, image),
		"cannot copy "+name+": domain vm3 has it as its disk xvda")
	other, err := os.OpenFile(image, os.O_WRONLY, 0)
	must(t, err)
	try("a program", idle, "cannot copy "+name+": another program has it open for writing")
	must(t, other.Close())
	writable := attach(t, image, loopdev.Options{})
	try("another loop device", idle, "cannot copy "+name+": it is attached to "+writable)
	must(t, os.Remove(image))
	try("a file that cannot be found", idle, "nobody can tell who writes to it")
}

// A program that opens the file of a loop device later is noticed by what it writes.
func TestRootFileBehindLoopIsWrittenTo(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	image := imageFile(t, dir+"/a.img")
	must(t, os.Chtimes(image, time.Time{}, time.Unix(1, 0)))
	src := openImage(t, attach(t, image, loopdev.Options{ReadOnly: true}))
	target, err := openTarget(dir+"/b.img", src, false)
	must(t, err)
	defer target.close()
	guest, err := os.OpenFile(image, os.O_WRONLY, 0)
	must(t, err)
	defer guest.Close()
	disturb(src, func() { _, _ = guest.WriteAt([]byte("y"), 8<<20) })
	_, err = copyPlain(t, options{}, src, target)
	if err == nil || !strings.Contains(err.Error(), image+": it was written to while it was read") {
		t.Errorf("%v; want an error: the file was written to", err)
	}
}
