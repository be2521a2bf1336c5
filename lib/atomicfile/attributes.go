package atomicfile

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

type ids struct{ uid, gid uint32 }

func owner(info os.FileInfo) ids {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return ids{}
	}
	return ids{st.Uid, st.Gid}
}

func links(info os.FileInfo) uint64 {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 1
	}
	return uint64(st.Nlink)
}

// copyAttributes gives t what the file at real has. The order matters: chown
// takes capabilities and set-ID bits away, and an ACL carries the mode.
func copyAttributes(t *os.File, real string, info os.FileInfo) error {
	now, err := t.Stat()
	if err != nil {
		return err
	}
	if want := owner(info); owner(now) != want {
		if err := t.Chown(int(want.uid), int(want.gid)); err != nil {
			return fmt.Errorf("its owner cannot be kept: %w", err)
		}
	}
	if err := copyXattrs(t, real); err != nil {
		return err
	}
	return t.Chmod(info.Mode())
}

func copyXattrs(t *os.File, real string) error {
	names, err := sized(func(b []byte) (int, error) { return unix.Llistxattr(real, b) })
	if errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("its attributes cannot be read: %w", err)
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names), "\x00"), "\x00") {
		if name == "" {
			continue
		}
		value, err := sized(func(b []byte) (int, error) { return unix.Lgetxattr(real, name, b) })
		if err != nil {
			return fmt.Errorf("its attribute %s cannot be read: %w", name, err)
		}
		if err := unix.Fsetxattr(int(t.Fd()), name, value, 0); err != nil {
			return fmt.Errorf("its attribute %s cannot be kept: %w", name, err)
		}
	}
	return nil
}

// maxXattrs is the kernel's bound for a value and for a list of names.
const maxXattrs = 64 << 10

// sized calls a reader of attributes with a buffer that is large enough.
func sized(get func([]byte) (int, error)) ([]byte, error) {
	b := make([]byte, maxXattrs)
	n, err := get(b)
	if err != nil {
		return nil, err
	}
	return b[:n], nil
}
