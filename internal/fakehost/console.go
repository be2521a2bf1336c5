package fakehost

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"xenlvm/lib/xlcfg"
)

// addConsole gives a domain that was created a UUID and a terminal, if its
// configuration has a UUID.
func (c *Call) addConsole(d *Domain, config string) error {
	src, err := os.ReadFile(config)
	if err != nil {
		return err
	}
	f, err := xlcfg.Parse(config, src)
	if err != nil {
		return err
	}
	if d.UUID, _ = f.String("uuid"); d.UUID == "" {
		return nil
	}
	d.TTY = filepath.Join(os.Getenv("WORK"), fmt.Sprint("tty-", d.ID))
	if err := os.RemoveAll(d.TTY); err != nil {
		return err
	}
	return unix.Mkfifo(d.TTY, 0o600)
}

// types writes to the terminal of a domain if somebody reads there.
func (d *Domain) types(text string) {
	f, err := os.OpenFile(d.TTY, os.O_WRONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return // nobody does
	}
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Close()); err != nil {
		fmt.Fprintf(os.Stderr, "fakehost: %v\n", err)
	}
}

// ownNode is a node of xenstore beside those of disks.
func (s *State) ownNode(path string) (string, bool) {
	for _, d := range s.Domains {
		name, ok := strings.CutPrefix(path, fmt.Sprintf("/local/domain/%d/", d.ID))
		switch {
		case !ok:
		case name == "vm":
			return "/vm/" + d.UUID, d.UUID != ""
		case name == "console/tty":
			if s.Xl.SlowTTY > 0 {
				s.Xl.SlowTTY--
				return "", false
			}
			return d.TTY, d.TTY != ""
		default:
			value, ok := s.Xl.Nodes[name]
			return value, ok && d.State == ""
		}
	}
	return "", false
}
