package treesum

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// openDir opens a directory without following a symlink at its name.
func openDir(at int, name string) (int, error) {
	flags := unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC
	if at != unix.AT_FDCWD {
		flags |= unix.O_NOFOLLOW // the root is the caller's, the rest the guest's
	}
	return retry(func() (int, error) { return unix.Openat(at, name, flags, 0) })
}

// readNames is the sorted names in a directory, without "." and "..".
func readNames(fd int) ([]string, error) {
	var names []string
	buf := make([]byte, 64<<10)
	for {
		n, err := retry(func() (int, error) { return unix.ReadDirent(fd, buf) })
		if err != nil {
			return nil, err
		}
		if n == 0 {
			break
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
	slices.Sort(names)
	// A damaged directory may hold what no name can be.
	for i, name := range names {
		if strings.Contains(name, "/") || i > 0 && names[i-1] == name {
			return nil, fmt.Errorf("it holds the name %q twice, or one with a slash", name)
		}
	}
	return names, nil
}

func readLink(at int, name string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(at, name, buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

func retry(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// before says whether a walk yields path a before path b: parents first, then
// by the bytes of each element, so a slash sorts before all other bytes.
func before(a, b string) bool {
	if a == "." || b == "." {
		return a == "." && b != "."
	}
	n := min(len(a), len(b))
	for i := range n {
		switch x, y := a[i], b[i]; {
		case x == y:
		case x == '/':
			return true
		case y == '/':
			return false
		default:
			return x < y
		}
	}
	return len(a) < len(b)
}
