package xlcfg

import "testing"

func TestDevID(t *testing.T) {
	for _, c := range []struct {
		vdev string
		want int
		ok   bool
	}{
		{"xvda", 51712, true},
		{"51712", 51712, true},
		{"0xca00", 51712, true},
		{"0xCA00", 51712, true},
		{"0145000", 51712, true},
		{" 51712", 51712, true},
		{"d0p0", 51712, true},
		{"d0x0p00", 51712, true},
		{"xvda1", 51713, true},
		{"d0p1", 51713, true},
		{"xvdb", 51728, true},
		{"xvdp15", 51967, true},
		{"xvda16", 1<<28 | 16, true},
		{"xvdq", 1<<28 | 16<<8, true},
		{"xvdz", 1<<28 | 25<<8, true},
		{"xvdaa", 1<<28 | 26<<8, true},
		{"xvdba", 1<<28 | 52<<8, true},
		{"xvda255", 1<<28 | 255, true},
		{"d1048575p255", 1<<28 | 1048575<<8 | 255, true},
		{"hda", 768, true},
		{"hdb", 832, true},
		{"hdc", 5632, true},
		{"hdd3", 5699, true},
		{"sda", 2048, true},
		{"sdp15", 2303, true},
		{"xvda+1", 51713, true},
		{"hd", 832, true},
		{"-0", 0, true},
		{"", 0, true},
		{"0", 0, true},

		{"xvda256", 0, false},
		{"xvda01", 0, false},
		{"xvda0", 0, false},
		{"xvd", 0, false},
		{"xvd1", 0, false},
		{"xvdA", 0, false},
		{"xvda ", 0, false},
		{"hde", 0, false},
		{"hda64", 0, false},
		{"sdq", 0, false},
		{"sda16", 0, false},
		{"vda", 0, false},
		{"d0", 0, false},
		{"d0p", 0, false},
		{"d0p0x", 0, false},
		{"d0p256", 0, false},
		{"d1048576p0", 0, false},
		{"2147483648", 0, false},
		{"99999999999999999999999", 0, false},
		{"0x", 0, false},
		{"xvdzzzzzzzzzzzzzzzzzzzzz", 0, false},
	} {
		got, ok := DevID(c.vdev)
		if got != c.want || ok != c.ok {
			t.Errorf("DevID(%q) = %d, %v, want %d, %v", c.vdev, got, ok, c.want, c.ok)
		}
	}
}
