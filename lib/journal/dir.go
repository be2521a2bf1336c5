package journal

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"xenlvm/lib/fault"
	"xenlvm/lib/run"
	"xenlvm/lib/step"
)

// DefaultDir is where the journals of all domains are.
const DefaultDir = "/var/lib/xenlvm"

// checkDir refuses a directory of journals that is none. It may be missing.
func checkDir(dir string) error {
	info, err := os.Stat(dir)
	switch {
	case err == nil && !info.IsDir(), errors.Is(err, unix.ENOTDIR):
		return fault.Hint(fault.Refuse("cannot keep journals in %s: it is not a directory", dir), "say another directory: --state-dir DIR (default: %s)", DefaultDir)
	case err != nil && !errors.Is(err, os.ErrNotExist):
		return fault.Refuse("cannot keep journals in %s: %w", dir, fault.Reason(err))
	}
	return nil
}

// All names the journals below dir.
func All(dir, tool string) ([]*Journal, error) {
	if err := checkDir(dir); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fault.Refuse("cannot look for journals: %w", err)
	}
	var all []*Journal
	for _, entry := range entries {
		if info, err := os.Stat(filepath.Join(dir, entry.Name())); err != nil || !info.IsDir() {
			continue // somebody else's
		}
		if j, err := Open(dir, entry.Name(), tool); err == nil {
			all = append(all, j)
		}
	}
	return all, nil
}

// MakeDir makes the directory of the journal, for the files beside it. Append
// does so, too.
func (j *Journal) MakeDir() error {
	if err := os.MkdirAll(j.Dir, 0o700); err != nil {
		return fmt.Errorf("cannot keep a journal for domain %s: %w", j.Domain, err)
	}
	return nil
}

// Temporary is the step that has a file beside the journal until its plan ends, which
// only root can read. One that a killed run left is written over.
func (j *Journal) Temporary(what, name string, content []byte) step.Step {
	path := j.Path(name)
	return step.Step{
		What: what, Line: run.Quote("install", "-D", "-m", "600", "/dev/stdin", path) + " <<'END'\n" + string(content) + "\nEND",
		Do:   func(context.Context) error { return j.WriteFile(name, content) },
		Undo: func(context.Context) error { return os.Remove(path) }, UndoLine: run.Quote("rm", path),
		Temporary: true,
	}
}

// WriteFile writes a file beside the journal that only root can read.
func (j *Journal) WriteFile(name string, content []byte) error {
	if err := j.MakeDir(); err != nil {
		return err
	}
	if err := os.WriteFile(j.Path(name), content, 0o600); err != nil {
		return fmt.Errorf("cannot write a file for domain %s: %w", j.Domain, err)
	}
	return nil
}
