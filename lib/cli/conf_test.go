package cli

import (
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"xenlvm/lib/fault"
)

// A configuration file that cannot be one is told of, and not waited for.
func TestOddConfigurationFiles(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		dir: "is not a regular file", fifo: "is not a regular file", fifo + "/x": "not a directory", dir + "/none": "no such file",
	} {
		t.Setenv("TRY_CONF", path)
		s, _, stderr := exec(t, &try{}, "make", "x")
		if s != fault.Usage || !strings.Contains(stderr, "cannot read the configuration file") || !strings.Contains(stderr, path) || !strings.Contains(stderr, want) {
			t.Errorf("%s: status %d, %q; want %q", path, s, stderr, want)
		}
	}
}
