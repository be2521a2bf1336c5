package directio

import "fmt"

// Mode says whether to go past the page cache. It is a flag.Value.
type Mode int

const (
	// Auto reads from memory what is there already and everything else past the
	// page cache, writes past it but for small writes to a device, and falls back to it
	// where it must.
	Auto Mode = iota
	// On goes past it always; where that is not to be had there is an error.
	On
	// Off never does.
	Off
)

var modes = [...]string{Auto: "auto", On: "on", Off: "off"}

// String is the name that Set reads.
func (m Mode) String() string { return modes[m] }

// Set reads "auto", "on" or "off".
func (m *Mode) Set(name string) error {
	for i, known := range modes {
		if name == known {
			*m = Mode(i)
			return nil
		}
	}
	return fmt.Errorf("%q is neither auto, on nor off", name)
}
