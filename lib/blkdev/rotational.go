package blkdev

import (
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Rotational says whether f, a block device or a file, lies on a disk that turns,
// as far as the kernel knows. The disks of virtual machines often say so.
func Rotational(f *os.File) bool {
	var st unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) != nil {
		return false
	}
	dev := uint64(st.Dev)
	if st.Mode&unix.S_IFMT == unix.S_IFBLK {
		dev = st.Rdev
	}
	dir := "/sys/dev/block/" + NumberOf(dev).String()
	for _, queue := range []string{dir + "/queue", dir + "/../queue"} { // a partition has that of its disk
		if b, err := os.ReadFile(queue + "/rotational"); err == nil {
			return strings.TrimSpace(string(b)) == "1"
		}
	}
	return false
}
