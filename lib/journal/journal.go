// Package journal keeps what a run must remember for the next one: which
// destinations a domain's disks have, how far each is, which configuration was
// replaced. One directory per domain, by default below /var/lib/xenlvm, holds
// journal.jsonl (append-only JSON lines, each with a checksum, fsynced) and the
// files that records name: digests of a copy, previous configurations.
//
// A torn last line is what a crash leaves and is dropped; a damaged line before
// it is reported.
package journal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"xenlvm/lib/atomicfile"
	"xenlvm/lib/fault"
	"xenlvm/lib/run"
)

const (
	version  = 1
	fileName = "journal.jsonl"
)

// Record is one line.
type Record struct {
	Version int             `json:"v"`
	Time    time.Time       `json:"time"`
	Boot    string          `json:"boot"` // the kernel's boot id
	Tool    string          `json:"tool"`
	Kind    string          `json:"kind"`
	Data    json.RawMessage `json:"data,omitempty"`
	Sum     uint32          `json:"crc"` // Castagnoli, of the line with crc 0
}

// Journal is the journal of one domain.
type Journal struct {
	Dir    string
	Domain string
	// Locks is the directory of the lock. Open sets it to the one that all runs
	// on this machine share.
	Locks string
	tool  string
}

// Open names the journal of domain below dir. It creates nothing.
func Open(dir, domain, tool string) (*Journal, error) {
	if domain == "" || domain == "." || domain == ".." || strings.ContainsAny(domain, "/\x00\n\t") {
		return nil, fault.Refuse("cannot keep a journal for domain %q: its name cannot name a directory", domain)
	}
	j := &Journal{Dir: filepath.Join(dir, domain), Domain: domain, Locks: locks, tool: tool}
	for _, d := range []string{dir, j.Dir} {
		if err := checkDir(d); err != nil {
			return nil, err
		}
	}
	return j, nil
}

// Path is the path of a file beside the journal.
func (j *Journal) Path(name string) string { return filepath.Join(j.Dir, name) }

// Append adds a record and returns when it is on disk.
func (j *Journal) Append(kind string, data any) error {
	if err := j.append(kind, data); err != nil {
		return fmt.Errorf("cannot write the journal of domain %s: %w", j.Domain, err)
	}
	return nil
}

// replaced finds what encoding/json puts in place of bytes that are not UTF-8: the
// escape of U+FFFD, which it writes as it is where a string has it.
var replaced = regexp.MustCompile(`[^\\](\\\\)*\\ufffd`)

func (j *Journal) append(kind string, data any) error {
	raw, err := json.Marshal(data)
	if err != nil {
		return err
	}
	if replaced.Match(raw) {
		return fault.Refuse("it would not say the same: a path or name in it is not UTF-8")
	}
	r := Record{Version: version, Time: time.Now().UTC(), Boot: BootID(), Tool: j.tool, Kind: kind, Data: raw}
	if r.Sum, err = r.sum(); err != nil {
		return err
	}
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := j.MakeDir(); err != nil {
		return err
	}
	f, err := j.open(os.O_CREATE | os.O_RDWR)
	if err != nil {
		return err
	}
	defer f.Close()
	end, err := wholeLines(f)
	if err != nil {
		return err
	}
	// A torn line is overwritten: behind it, ours would be lost with it.
	if err := f.Truncate(end); err != nil {
		return err
	}
	if _, err := f.WriteAt(append(line, '\n'), end); err != nil {
		return errors.Join(err, f.Truncate(end))
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return atomicfile.SyncDir(j.Dir)
}

// open opens the file of the journal. A FIFO would block, a device never end.
func (j *Journal) open(flag int) (*os.File, error) {
	f, err := os.OpenFile(j.Path(fileName), flag|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fault.Hint(fault.Refuse("%s is not a regular file", f.Name()), "move it away: %s", run.Quote("mv", f.Name(), f.Name()+".old"))
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// BootID is the kernel's identity of the present boot, "" when it has none.
func BootID() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return string(bytes.TrimSpace(id))
}

// wholeLines is the length of f up to its last newline.
func wholeLines(f *os.File) (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	end := info.Size()
	buf := make([]byte, 4096)
	for end > 0 {
		n := min(end, int64(len(buf)))
		if _, err := f.ReadAt(buf[:n], end-n); err != nil {
			return 0, err
		}
		if i := bytes.LastIndexByte(buf[:n], '\n'); i >= 0 {
			return end - n + int64(i) + 1, nil
		}
		end -= n
	}
	return 0, nil
}

func (r Record) sum() (uint32, error) {
	r.Sum = 0
	b, err := json.Marshal(r)
	return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)), err
}

// Read returns all records, oldest first. A journal that does not exist has none.
func (j *Journal) Read() ([]Record, error) {
	all, err := j.content()
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the journal of domain %s: %w", j.Domain, err)
	}
	var records []Record
	for n := 1; len(all) > 0; n++ {
		line, rest, whole := bytes.Cut(all, []byte("\n"))
		if !whole {
			break
		}
		all = rest
		r, err := decode(line)
		if err != nil {
			return nil, fault.Hint(fault.Refuse("cannot read the journal of domain %s: line %d of %s: %w", j.Domain, n, j.Path(fileName), err),
				"if nothing is under way for %s, move that file away and start anew", j.Domain)
		}
		records = append(records, r)
	}
	return records, nil
}

func (j *Journal) content() ([]byte, error) {
	f, err := j.open(os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}

func decode(line []byte) (Record, error) {
	var r Record
	if err := json.Unmarshal(line, &r); err != nil {
		return r, fmt.Errorf("damaged: %w", err)
	}
	if r.Version > version {
		return r, fmt.Errorf("written by a newer version (%d, this one knows %d)", r.Version, version)
	}
	if want, err := r.sum(); err != nil || want != r.Sum {
		return r, errors.New("damaged: its checksum does not fit")
	}
	return r, nil
}

// Last is the newest record of a kind whose data fit accepts. A nil fit accepts
// all. The boolean is false when there is none.
func Last(records []Record, kind string, fit func(json.RawMessage) bool) (Record, bool) {
	for i := len(records) - 1; i >= 0; i-- {
		if r := records[i]; r.Kind == kind && (fit == nil || fit(r.Data)) {
			return r, true
		}
	}
	return Record{}, false
}
