package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"xenlvm/test/lab/record"
)

// options are the kernel command line's lab.* words.
type options struct {
	disks          []string      // lab.root=/dev/xvda and lab.disks=xvdb,xvdc: device names below /dev, the root disk first
	rate           int           // lab.rate=50: records per second and disk, 0 for as many as the disk takes
	size           int           // lab.size=512: payload of a record in bytes
	swap           string        // lab.swap=xvda2: device name, "" for none
	heartbeat      time.Duration // lab.heartbeat=20ms
	wait           time.Duration // lab.wait=60s: for a device to appear
	files          []fileSize    // lab.files=NAME:SIZE,…: files that must be there, written when they are not
	ignoreShutdown bool          // lab.ignore-shutdown=1
}

// fileSize is a file to write and its size in bytes.
type fileSize struct {
	name string
	size int64
}

// parseOptions reads the options through get, which returns a word's value. Every error names its word; the options
// returned with an error hold the default in place of what was wrong.
func parseOptions(get func(name string) (string, bool)) (options, error) {
	opt := options{disks: []string{"xvda"}, rate: 50, size: 512, heartbeat: 20 * time.Millisecond, wait: time.Minute}
	var errs []error
	word := func(name string, set func(value string) error) {
		if v, ok := get("lab." + name); ok {
			if err := set(v); err != nil {
				errs = append(errs, fmt.Errorf("cannot use lab.%s=%s: %w", name, v, err))
			}
		}
	}
	number := func(to *int, limit int) func(string) error {
		return func(v string) error {
			n, err := parseSize(v)
			if err == nil && n > int64(limit) {
				err = fmt.Errorf("more than %d", limit)
			}
			if err == nil {
				*to = int(n)
			}
			return err
		}
	}
	duration := func(to *time.Duration) func(string) error {
		return func(v string) error {
			d, err := time.ParseDuration(v)
			if err == nil && d <= 0 {
				err = errors.New("not above zero")
			}
			if err == nil {
				*to = d
			}
			return err
		}
	}
	word("root", func(v string) error { opt.disks[0] = filepath.Base(v); return nil })
	word("disks", func(v string) error {
		for d := range strings.SplitSeq(v, ",") {
			opt.disks = append(opt.disks, filepath.Base(d))
		}
		return nil
	})
	word("rate", number(&opt.rate, 1_000_000))
	word("size", number(&opt.size, record.MaxPayload))
	word("swap", func(v string) error { opt.swap = filepath.Base(v); return nil })
	word("heartbeat", duration(&opt.heartbeat))
	word("wait", duration(&opt.wait))
	word("files", func(v string) error {
		for f := range strings.SplitSeq(v, ",") {
			name, size, _ := strings.Cut(f, ":")
			n, err := parseSize(size)
			if err != nil {
				return err
			}
			opt.files = append(opt.files, fileSize{name, n})
		}
		return nil
	})
	word("ignore-shutdown", func(v string) error { opt.ignoreShutdown = v != "0"; return nil })
	return opt, errors.Join(errs...)
}

// parseSize reads a number of bytes, with a suffix K, M or G for powers of 1024.
func parseSize(s string) (int64, error) {
	digits := strings.TrimRight(s, "KMG")
	n, err := strconv.ParseInt(digits, 10, 64)
	shift := map[string]uint{"": 0, "K": 10, "M": 20, "G": 30}
	by, ok := shift[s[len(digits):]]
	if err != nil || !ok || n < 0 || n > 1<<62>>by {
		return 0, fmt.Errorf("%q is not a size", s)
	}
	return n << by, nil
}
