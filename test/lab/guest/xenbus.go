package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Message types of the xenstore wire protocol (xen/include/public/io/xs_wire.h).
const (
	xsRead       = 2
	xsWrite      = 11
	xsWatchEvent = 15
	xsError      = 16
)

// xsPayloadMax is the longest payload that the protocol allows, in bytes.
const xsPayloadMax = 4096

// xenstore is a connection to the host's xenstore. A path without a leading slash is below the domain's own directory.
type xenstore struct {
	mu   sync.Mutex
	conn io.ReadWriter
	last uint32 // id of the last request
}

// openXenstore connects through the kernel's device. The device keeps the connection over save, restore and migration.
func openXenstore() (*xenstore, error) {
	const path = "/dev/xen/xenbus"
	// Not os.Open: a descriptor in the runtime's poller would be non-blocking, and a message is more than one read.
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return &xenstore{conn: os.NewFile(uintptr(fd), path)}, nil
}

// read returns a node's value; the error is fs.ErrNotExist when there is no such node.
func (x *xenstore) read(path string) (string, error) {
	v, err := x.call(xsRead, append([]byte(path), 0))
	if err != nil {
		return "", fmt.Errorf("cannot read xenstore node %s: %w", path, err)
	}
	return string(v), nil
}

// write sets a node's value; the error is fs.ErrPermission when the node does not let this domain write.
func (x *xenstore) write(path, value string) error {
	if _, err := x.call(xsWrite, append(append([]byte(path), 0), value...)); err != nil {
		return fmt.Errorf("cannot write xenstore node %s: %w", path, err)
	}
	return nil
}

// call sends one request and returns the payload of its reply.
func (x *xenstore) call(kind uint32, payload []byte) ([]byte, error) {
	if len(payload) > xsPayloadMax {
		return nil, fmt.Errorf("message of %d bytes is longer than %d", len(payload), xsPayloadMax)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.last++
	if _, err := x.conn.Write(encodeMessage(kind, x.last, payload)); err != nil {
		return nil, err
	}
	for {
		got, id, reply, err := decodeMessage(x.conn)
		switch {
		case err != nil:
			return nil, err
		case got == xsWatchEvent || id != x.last:
			continue
		case got == xsError:
			return nil, xenstoreError(reply)
		case got != kind:
			return nil, fmt.Errorf("reply of type %d to a request of type %d", got, kind)
		}
		return reply, nil
	}
}

// encodeMessage frames a request outside any transaction: type, id, transaction, length, payload.
func encodeMessage(kind, id uint32, payload []byte) []byte {
	b := make([]byte, 0, 16+len(payload))
	for _, v := range []uint32{kind, id, 0, uint32(len(payload))} {
		b = binary.NativeEndian.AppendUint32(b, v)
	}
	return append(b, payload...)
}

// decodeMessage reads one framed message.
func decodeMessage(r io.Reader) (kind, id uint32, payload []byte, err error) {
	head := make([]byte, 16)
	if _, err := io.ReadFull(r, head); err != nil {
		return 0, 0, nil, err
	}
	u := func(at int) uint32 { return binary.NativeEndian.Uint32(head[at:]) }
	if u(12) > xsPayloadMax {
		return 0, 0, nil, fmt.Errorf("message of %d bytes is longer than %d", u(12), xsPayloadMax)
	}
	payload = make([]byte, u(12))
	_, err = io.ReadFull(r, payload)
	return u(0), u(4), payload, err
}

// xenstoreError turns an error reply, the name of an errno, into an error.
func xenstoreError(reply []byte) error {
	switch name := string(bytes.TrimRight(reply, "\x00")); name {
	case "ENOENT":
		return fs.ErrNotExist
	case "EACCES", "EPERM":
		return fs.ErrPermission
	default:
		return errors.New(name)
	}
}
