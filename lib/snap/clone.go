package snap

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"xenlvm/lib/blkdev"
	"xenlvm/lib/fault"
	"xenlvm/lib/loopdev"
	"xenlvm/lib/mnt"
	"xenlvm/lib/run"
	"xenlvm/lib/step"
)

// Clone is a clone of a file (FICLONE): another file on the same file system, which has
// the bytes of the first one as they were at one instant. They share their blocks, and
// the file system writes elsewhere what is written to either. Nobody writes to a clone
// of ours. It is known by its inode and when that was made, never by its name.
type Clone struct {
	Path  string `json:"path"`
	Inode uint64 `json:"inode"`
	Born  int64  `json:"born_ns"` // when the inode was made, since 1970
	// Changed is when it was changed last, since 1970: by ourselves, or it is of no use
	// any more. 0 as long as it is being made.
	Changed int64 `json:"changed_ns,omitempty"`
}

// From linux/fs.h, which x/sys does not have.
const nocowFlag = 0x800000 // FS_NOCOW_FL

// probed is how much of a file is cloned to see whether it can be: a multiple of all
// block sizes.
const probed = 1 << 20

// CheckClonable refuses a file that cannot be cloned beside itself, or only against what
// its owner asked for: by what its file system is, and by cloning the beginning of it
// into a file without a name, which is gone when it is closed.
func CheckClonable(path string) error {
	f, err := openPlain(path)
	if err != nil {
		return fault.Refuse("it cannot be read: %w", errors.Unwrap(err))
	}
	defer f.Close()
	var sys unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &sys); err != nil {
		return fmt.Errorf("cannot look at %s: %w", path, err)
	}
	switch int64(sys.Type) {
	case unix.XFS_SUPER_MAGIC:
	case unix.BTRFS_SUPER_MAGIC:
		flags, err := unix.IoctlGetUint32(int(f.Fd()), unix.FS_IOC_GETFLAGS)
		if err != nil {
			return fmt.Errorf("cannot look at %s: %w", path, err)
		}
		if flags&nocowFlag != 0 {
			return fault.Refuse("it is to be overwritten in place (chattr +C, or nodatacow), which a clone would end")
		}
	default:
		return fault.Refuse("its file system is neither xfs nor btrfs")
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	to, err := unnamed(filepath.Dir(path))
	if err != nil {
		return fault.Refuse("no file can be made beside it: %w", err)
	}
	defer to.Close()
	whole := unix.FileCloneRange{Src_fd: int64(f.Fd()), Src_length: uint64(min(info.Size(), probed))}
	if err := unix.IoctlFileCloneRange(int(to.Fd()), &whole); err != nil {
		return fault.Refuse("its file system does not let files share blocks: %w", err)
	}
	return nil
}

func openPlain(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
}

// unnamed is a new file in dir without a name.
func unnamed(dir string) (*os.File, error) {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_WRONLY|unix.O_CLOEXEC, 0o400)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), dir), nil
}

// MakeClone clones image as the new file path, in its directory. It is told to announce
// before it has a name: until then it is gone with this process.
func MakeClone(image *os.File, path string, announce func(Clone) error) (Clone, error) {
	c, err := makeClone(image, path, announce)
	if err != nil {
		return Clone{}, fmt.Errorf("cannot clone %s: %w", image.Name(), err)
	}
	return c, nil
}

func makeClone(image *os.File, path string, announce func(Clone) error) (Clone, error) {
	f, err := unnamed(filepath.Dir(path))
	if err != nil {
		return Clone{}, err
	}
	defer f.Close()
	if err := unix.IoctlFileClone(int(f.Fd()), int(image.Fd())); err != nil {
		return Clone{}, err
	}
	c := Clone{Path: path}
	st, err := statx(int(f.Fd()), "", unix.AT_EMPTY_PATH)
	if err != nil {
		return Clone{}, err
	}
	c.Inode, c.Born = st.Ino, nanoseconds(st.Btime)
	if err := announce(c); err != nil {
		return Clone{}, err
	}
	// There is no other way to name it, but with a capability more.
	if err := unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", f.Fd()), unix.AT_FDCWD, path, unix.AT_SYMLINK_FOLLOW); err != nil {
		return Clone{}, err
	}
	if st, err = statx(int(f.Fd()), "", unix.AT_EMPTY_PATH); err != nil {
		return Clone{}, errors.Join(err, c.Remove())
	}
	c.Changed = nanoseconds(st.Ctime)
	return c, nil
}

// statx is what tells a file from all others, and whether it was changed.
func statx(dir int, path string, flags int) (st unix.Statx_t, err error) {
	if err := unix.Statx(dir, path, flags, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &st); err != nil {
		return st, err
	}
	if st.Mask&unix.STATX_BTIME == 0 {
		return st, errors.New("its file system does not say when files were made")
	}
	return st, nil
}

func nanoseconds(t unix.StatxTimestamp) int64 { return t.Sec*1e9 + int64(t.Nsec) }

// find is the clone as it is now, os.ErrNotExist if it is gone, or another file has its
// name.
func (c Clone) find() (unix.Statx_t, error) {
	st, err := statx(unix.AT_FDCWD, c.Path, unix.AT_SYMLINK_NOFOLLOW)
	if err == nil && (st.Ino != c.Inode || nanoseconds(st.Btime) != c.Born) {
		err = os.ErrNotExist
	}
	return st, err
}

// Check says why the clone is not, or may not be, as it was made.
func (c Clone) Check() error {
	st, err := c.find()
	if err != nil {
		return fmt.Errorf("cannot use the clone %s: %w", c.Path, err)
	}
	if nanoseconds(st.Ctime) != c.Changed {
		return fmt.Errorf("cannot use the clone %s: somebody changed it", c.Path)
	}
	return nil
}

// Gone says that there is nothing to remove any more.
func (c Clone) Gone() bool {
	_, err := c.find()
	return errors.Is(err, os.ErrNotExist)
}

// Remove removes the clone. Another file of its name is left alone.
func (c Clone) Remove() error {
	if _, err := c.find(); errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return fmt.Errorf("cannot remove the clone %s: %w", c.Path, err)
	}
	return os.Remove(c.Path)
}

// Line is Remove as a line for a shell.
func (c Clone) Line() string { return run.Quote("rm", "--force", c.Path) }

// Removal is the plan that removes the clone with all that stands on it: loop devices,
// and what is mounted from them.
func (c Clone) Removal() (step.Plan, error) {
	st, err := c.find()
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("cannot look at the clone %s: %w", c.Path, err)
	}
	mounts, err := mnt.List()
	if err != nil {
		return nil, err
	}
	dev := blkdev.Number{Major: st.Dev_major, Minor: st.Dev_minor}
	loops, err := loopdev.List(func(d loopdev.Device) bool { return d.Dev == dev && d.Ino == st.Ino })
	if err != nil {
		return nil, err
	}
	return append(detaching(loops, mounts), step.Step{
		What: "remove clone " + c.Path, Line: c.Line(),
		Do: func(context.Context) error { return c.Remove() },
	}), nil
}
