package xl

import (
	"errors"
	"io"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"xenlvm/lib/fault"
	"xenlvm/lib/xlcfg"
)

// ReadConfig reads and parses the configuration at path. Its errors are refusals.
func ReadConfig(path string) (*xlcfg.File, error) {
	// A FIFO would block, a device never end.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		var pe *os.PathError
		if errors.As(err, &pe) {
			err = pe.Err
		}
		return nil, fault.Refuse("cannot read %s: %w", path, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fault.Refuse("cannot read %s: %w", path, err)
	}
	if !info.Mode().IsRegular() {
		return nil, fault.Refuse("cannot read %s: it is not a regular file", path)
	}
	src, err := io.ReadAll(io.LimitReader(f, MaxConfig+1))
	if err != nil {
		return nil, fault.Refuse("cannot read %s: %w", path, err)
	}
	if len(src) > MaxConfig {
		return nil, fault.Refuse("cannot read %s: it is larger than %d bytes", path, MaxConfig)
	}
	config, err := xlcfg.Parse(path, src)
	if err != nil {
		var se *xlcfg.SyntaxError
		if errors.As(err, &se) && se.Hint != "" {
			err = fault.Hint(err, "%s", se.Hint)
		}
		return nil, fault.With(fault.Refused, err)
	}
	return config, nil
}

// ConfiguredFor is a configuration below dir in which the block device at path
// is a disk, under whatever name; "" when there is none. A file that xl would
// not read is passed over: it starts no domain.
func ConfiguredFor(dir, path string) (string, error) {
	var device unix.Stat_t
	if err := unix.Stat(path, &device); err != nil {
		return "", fault.Refuse("cannot use %s: %w", path, err)
	}
	for _, c := range look(slices.Concat(entries(dir, ".cfg"), entries(dir+"/auto", ""))) {
		config, err := ReadConfig(c.path)
		if err != nil {
			continue
		}
		disks, err := config.Disks()
		if err != nil {
			continue
		}
		for _, d := range disks {
			var st unix.Stat_t
			if unix.Stat(d.Target, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFBLK && st.Rdev == device.Rdev {
				return c.path, nil
			}
		}
	}
	return "", nil
}
