package directio

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"unsafe"
)

// A replaced path must not lead to another file, and a buffer must be taken.
func TestReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	want := bytes.Repeat([]byte("x"), 2*Align)
	if err := os.WriteFile(path, want, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	d := Reopen(f, os.O_RDONLY)
	if d == nil {
		t.Skip("no O_DIRECT in " + t.TempDir())
	}
	defer d.Close()
	b := Buffer(2 * Align)
	if n, err := d.ReadAt(b, 0); err != nil || !bytes.Equal(b[:n], want) {
		t.Errorf("%d bytes, %v", n, err)
	}
}

func TestBuffer(t *testing.T) {
	for _, n := range []int{1, 511, Align, 1 << 20} {
		b := Buffer(n)
		if len(b) != n || cap(b) != n || uintptr(unsafe.Pointer(&b[0]))%Align != 0 {
			t.Errorf("%d: length %d, capacity %d, at %p", n, len(b), cap(b), &b[0])
		}
	}
}
