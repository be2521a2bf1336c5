package xl

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"xenlvm/lib/fault"
	"xenlvm/lib/xlcfg"
)

// ConfigDir is where the configurations of a host's domains are.
const ConfigDir = "/etc/xen"

// MaxConfig is the size in bytes above which a file is taken for no
// configuration.
const MaxConfig = 8 << 20

// ErrNoConfig is the cause when no file configures a domain.
var ErrNoConfig = errors.New("no configuration")

// candidate is a file that may configure the domain.
type candidate struct {
	path   string
	config *xlcfg.File
	err    error // it cannot be read or parsed
}

// name is the domain that it configures.
func (c candidate) name() string {
	name, _ := c.config.String("name")
	return name
}

// FindConfig returns the file that configures domain name: DIR/NAME.cfg or
// DIR/NAME, a file in DIR/auto, else any DIR/*.cfg whose "name" is NAME. A link
// in auto to the first is the same file; a copy there is not, and the search is
// refused: rewriting one of them would start the domain from its old disk at
// the next boot of the host. The error of a search without result is ErrNoConfig.
func FindConfig(dir, name string) (string, error) {
	var first []string
	if !strings.ContainsRune(name, '/') {
		first = []string{filepath.Join(dir, name+".cfg"), filepath.Join(dir, name)}
	}
	for _, paths := range [][]string{slices.Concat(first, entries(dir+"/auto", "")), entries(dir, ".cfg")} {
		var found []string
		var real []string
		for _, c := range look(paths) {
			if c.err != nil && slices.Contains(first, c.path) {
				return "", c.err
			}
			r, err := filepath.EvalSymlinks(c.path)
			if c.err == nil && err == nil && c.name() == name && !slices.Contains(real, r) {
				found, real = append(found, c.path), append(real, r)
			}
		}
		switch len(found) {
		case 0:
		case 1:
			return found[0], nil
		default:
			return "", fault.Hint(fault.Refuse("cannot choose a configuration of domain %s: %s all have that name", name, strings.Join(found, ", ")),
				"name the right one with --config, or make one of them a symbolic link to the other")
		}
	}
	for _, c := range look(first) {
		if c.err == nil {
			return "", fault.Refuse("cannot use %s for domain %s: its name is %q", c.path, name, c.name())
		}
	}
	err := fmt.Errorf("cannot find domain %s: %w in %s has that name", name, ErrNoConfig, dir)
	return "", fault.With(fault.Refused, fault.Hint(err, "a configuration elsewhere can be named with --config"))
}

// entries are the files in dir with the suffix that xendomains would take.
func entries(dir, suffix string) []string {
	all, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var paths []string
	for _, e := range all {
		if !strings.HasPrefix(e.Name(), ".") && strings.HasSuffix(e.Name(), suffix) {
			paths = append(paths, filepath.Join(dir, e.Name()))
		}
	}
	return paths
}

// look reads those of the paths that are there. A directory may have any name
// but that of a configuration.
func look(paths []string) []candidate {
	var all []candidate
	for _, p := range paths {
		_, err := os.Lstat(p)
		info, errStat := os.Stat(p)
		if err != nil || errStat == nil && info.IsDir() && filepath.Ext(p) != ".cfg" {
			continue
		}
		config, err := ReadConfig(p)
		all = append(all, candidate{p, config, err})
	}
	return all
}
