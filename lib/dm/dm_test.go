package dm

import (
	"encoding/binary"
	"os"
	"strings"
	"testing"
)

// answer is a buffer as the kernel fills it for one target.
func answer(start int, kind, params string) []byte {
	buf := make([]byte, 4096)
	binary.NativeEndian.PutUint64(buf[start+8:], 2097152)
	copy(buf[start+24:], kind)
	copy(buf[start+40:], params)
	return buf
}

func TestStatus(t *testing.T) {
	for _, tt := range []struct{ kind, params, want string }{
		{"snapshot", "16/204800 16", "0 2097152 snapshot 16/204800 16"},
		{"snapshot", "Invalid", "0 2097152 snapshot Invalid"},
		{"linear", "", "0 2097152 linear"},
	} {
		if got, err := status(answer(312, tt.kind, tt.params), 312, 1); err != nil || got != tt.want {
			t.Errorf("status = %q, %v; want %q", got, err, tt.want)
		}
	}
	if _, err := status(answer(312, "linear", ""), 312, 2); err == nil {
		t.Error("two targets were read as one")
	}
	if _, err := status(make([]byte, 320), 312, 1); err == nil {
		t.Error("a target outside the buffer was read")
	}
}

func TestNoSuchDevice(t *testing.T) {
	_, err := Status("/dev/mapper/xenlvm-no-such-device")
	if err == nil {
		t.Fatal("found a device that is not there")
	}
	if _, serr := os.Stat(control); serr != nil && !strings.Contains(err.Error(), "cannot ask device-mapper") {
		t.Errorf("without device-mapper: %v", err)
	}
	if _, err := Status("/dev/mapper/" + strings.Repeat("x", 200)); err == nil {
		t.Error("a name that is too long was cut")
	}
}
