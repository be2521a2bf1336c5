package treesum

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"golang.org/x/sys/unix"
)

// entry is one name in a tree, as its walk found it.
type entry struct {
	path     string // relative, "." for the root
	name     string // the last element, for the walker's current directory
	mode     uint32 // st_mode: type and permissions
	uid, gid uint32
	rdev     uint64 // of devices
	size     int64  // of regular files
	modified time.Time
	changed  time.Time
	target   string  // of symlinks
	link     string  // the first path of the same inode, when it is another
	xattrs   []xattr // by name
	contents string  // digest of the contents, when they were read
	ino      uint64
	flagged  bool
	mount    bool // something else is mounted here
}

// kind is the type of an entry; 0 is a regular file.
func (e *entry) kind() fs.FileMode {
	switch e.mode & unix.S_IFMT {
	case unix.S_IFREG:
		return 0
	case unix.S_IFDIR:
		return fs.ModeDir
	case unix.S_IFLNK:
		return fs.ModeSymlink
	case unix.S_IFIFO:
		return fs.ModeNamedPipe
	case unix.S_IFSOCK:
		return fs.ModeSocket
	default:
		return fs.ModeDevice
	}
}

// unkept are the inode flags that statx shows and rsync does not copy.
const unkept = unix.STATX_ATTR_IMMUTABLE | unix.STATX_ATTR_APPEND | unix.STATX_ATTR_NODUMP |
	unix.STATX_ATTR_COMPRESSED | unix.STATX_ATTR_ENCRYPTED | unix.STATX_ATTR_VERITY

// walker yields the entries of a tree: directories before what they hold, names
// in byte order. It holds one descriptor, that of the directory which it is in,
// however deep the tree is: it goes up by ".." and checks where it arrived.
// Memory is for the names of the directories above and the hard links that are
// still open.
type walker struct {
	root  string
	fd    int // the current directory
	stack []frame
	enter *entry // a directory returned by next and not yet entered
	dev   [2]uint32
	links map[uint64]*links
	begun bool
}

// frame is one directory on the way from the root.
type frame struct {
	path  string // "" for the root
	ino   uint64
	names []string // still to come
}

// links is an inode with several names.
type links struct {
	first string
	left  uint32 // names not seen so far
}

func newWalker(root string) (*walker, error) {
	fd, err := openDir(unix.AT_FDCWD, root)
	if err != nil {
		return nil, fmt.Errorf("cannot open directory %s: %w", root, err)
	}
	return &walker{root: root, fd: fd, links: map[uint64]*links{}}, nil
}

func (w *walker) close() {
	if w.fd >= 0 {
		_ = unix.Close(w.fd) // opened for reading
		w.fd = -1
	}
}

// next returns the next entry, io.EOF after the last one. Between two calls,
// the walker's directory is the one that holds the entry.
func (w *walker) next() (*entry, error) {
	if !w.begun {
		w.begun = true
		e, err := w.stat("")
		if err != nil {
			return nil, err
		}
		names, err := readNames(w.fd)
		if err != nil {
			return nil, w.cannot("read directory", ".", err)
		}
		w.stack = []frame{{ino: e.ino, names: names}}
		return e, nil
	}
	if e := w.enter; e != nil {
		w.enter = nil
		if err := w.descend(e); err != nil {
			return nil, err
		}
	}
	for len(w.stack) > 0 {
		top := &w.stack[len(w.stack)-1]
		if len(top.names) == 0 {
			if err := w.ascend(); err != nil {
				return nil, err
			}
			continue
		}
		name := top.names[0]
		top.names = top.names[1:]
		e, err := w.stat(name)
		if err != nil {
			return nil, err
		}
		if e.kind() == fs.ModeDir && !e.mount {
			if e.path == "lost+found" {
				if empty, err := w.empty(e); err != nil || empty {
					if err != nil {
						return nil, err
					}
					continue
				}
			}
			w.enter = e
		}
		return e, nil
	}
	return nil, io.EOF
}

// cannot is an error about an entry of this tree. Guests choose the names, so
// they are quoted.
func (w *walker) cannot(verb, path string, err error) error {
	return fmt.Errorf("cannot %s %q in %s: %w", verb, path, w.root, err)
}

func (w *walker) descend(e *entry) error {
	fd, err := openDir(w.fd, e.name)
	if err != nil {
		return w.cannot("open directory", e.path, err)
	}
	w.close()
	w.fd = fd
	if err := w.arrived(e.ino); err != nil {
		return w.cannot("open directory", e.path, err)
	}
	names, err := readNames(fd)
	if err != nil {
		return w.cannot("read directory", e.path, err)
	}
	w.stack = append(w.stack, frame{path: e.path, ino: e.ino, names: names})
	return nil
}

func (w *walker) ascend() error {
	left := w.stack[len(w.stack)-1]
	w.stack = w.stack[:len(w.stack)-1]
	if len(w.stack) == 0 {
		return nil
	}
	fd, err := openDir(w.fd, "..")
	if err != nil {
		return w.cannot("leave directory", left.path, err)
	}
	w.close()
	w.fd = fd
	if err := w.arrived(w.stack[len(w.stack)-1].ino); err != nil {
		return w.cannot("leave directory", left.path, err)
	}
	return nil
}

// arrived checks that the current directory is the one with that inode.
func (w *walker) arrived(ino uint64) error {
	var st unix.Statx_t
	if err := unix.Statx(w.fd, "", unix.AT_EMPTY_PATH, unix.STATX_INO, &st); err != nil {
		return err
	}
	if st.Ino != ino || w.dev != [2]uint32{st.Dev_major, st.Dev_minor} {
		return errors.New("the tree changed during the walk, or its directories are damaged")
	}
	return nil
}

func (w *walker) empty(e *entry) (bool, error) {
	fd, err := openDir(w.fd, e.name)
	if err != nil {
		return false, w.cannot("open directory", e.path, err)
	}
	names, err := readNames(fd)
	_ = unix.Close(fd) // opened for reading
	if err != nil {
		return false, w.cannot("read directory", e.path, err)
	}
	return len(names) == 0, nil
}

// stat is the entry name of the current directory, "" for the root itself.
func (w *walker) stat(name string) (*entry, error) {
	e := &entry{name: name, path: "."}
	flags := unix.AT_EMPTY_PATH
	if name != "" {
		flags = unix.AT_SYMLINK_NOFOLLOW | unix.AT_NO_AUTOMOUNT
		e.path = name
		if parent := w.stack[len(w.stack)-1].path; parent != "" {
			e.path = parent + "/" + name
		}
	}
	var st unix.Statx_t
	if err := unix.Statx(w.fd, name, flags, unix.STATX_BASIC_STATS, &st); err != nil {
		return nil, w.cannot("stat", e.path, err)
	}
	dev := [2]uint32{st.Dev_major, st.Dev_minor}
	if name == "" {
		w.dev = dev
	} else {
		e.mount = dev != w.dev || st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0
	}
	e.mode, e.uid, e.gid, e.ino = uint32(st.Mode), st.Uid, st.Gid, st.Ino
	e.modified = time.Unix(st.Mtime.Sec, int64(st.Mtime.Nsec))
	e.changed = time.Unix(st.Ctime.Sec, int64(st.Ctime.Nsec))
	e.flagged = st.Attributes&unkept != 0
	switch e.kind() {
	case 0:
		e.size = int64(st.Size)
	case fs.ModeDevice:
		e.rdev = unix.Mkdev(st.Rdev_major, st.Rdev_minor)
	case fs.ModeSymlink:
		target, err := readLink(w.fd, name)
		if err != nil {
			return nil, w.cannot("read symlink", e.path, err)
		}
		e.target = target
	}
	if st.Nlink > 1 && e.kind() != fs.ModeDir {
		e.link = w.linked(e, st.Nlink)
	}
	var err error
	if e.xattrs, err = readXattrs(w.fd, name); err != nil {
		return nil, w.cannot("read the extended attributes of", e.path, err)
	}
	return e, nil
}

// linked is the first path of e's inode, "" when e is that one.
func (w *walker) linked(e *entry, names uint32) string {
	l := w.links[e.ino]
	if l == nil {
		w.links[e.ino] = &links{first: e.path, left: names - 1}
		return ""
	}
	if l.left--; l.left == 0 {
		delete(w.links, e.ino)
	}
	return l.first
}
