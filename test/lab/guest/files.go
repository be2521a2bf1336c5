package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"hash/crc64"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"xenlvm/test/lab/record"
)

// tree is a directory of files with a manifest beside it. A file is in the manifest when it is acknowledged: written and
// fsynced before.
type tree struct {
	dir      string
	manifest string
}

// entry is one file's line in the manifest.
type entry struct {
	Size int64  `json:"size"` // bytes
	Seed uint64 `json:"seed"` // what its content follows from
	Gen  uint64 `json:"gen"`  // how often it was rewritten
	Sum  uint64 `json:"sum"`  // CRC-64/ECMA of the content
	// Writing is the part that a rewrite has announced and not finished: its content is open until then, and Sum is
	// that of all the rest.
	Writing *span `json:"writing,omitempty"`
}

// span is a part of a file in bytes.
type span struct {
	Offset int64 `json:"offset"`
	Length int64 `json:"length"`
}

const blockSize = 64 << 10

// content fills b with what belongs at offset, a multiple of blockSize, of a file with this seed and generation.
func content(b []byte, offset int64, seed, gen uint64) {
	record.Payload(b[:0], (seed*1_000_003+gen)<<32+uint64(offset/blockSize), len(b))
}

// fill writes a file of size bytes, replacing one of the same name, and acknowledges it.
func (t tree) fill(name string, size int64, seed uint64) error {
	list, err := t.load()
	if err != nil {
		return err
	}
	path, err := t.path(name)
	if err != nil {
		return err
	}
	if _, ok := list[name]; ok {
		if err := t.remove(name); err != nil {
			return err
		}
		delete(list, name)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	sum := newSum()
	buf := make([]byte, blockSize)
	for at := int64(0); at < size; at += blockSize {
		b := buf[:min(blockSize, size-at)]
		content(b, at, seed, 0)
		sum.Write(b)
		if _, err := f.Write(b); err != nil {
			return errors.Join(err, os.Remove(path))
		}
	}
	if err := f.Sync(); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	if err := t.syncDirs(path); err != nil {
		return err
	}
	list[name] = entry{Size: size, Seed: seed, Sum: sum.Sum64()}
	return t.save(list)
}

// remove takes a file out of the manifest and then deletes it.
func (t tree) remove(name string) error {
	list, err := t.load()
	if err != nil {
		return err
	}
	if _, ok := list[name]; !ok {
		return fmt.Errorf("cannot delete %s: no such file in the manifest", name)
	}
	path, err := t.path(name)
	if err != nil {
		return err
	}
	delete(list, name)
	if err := t.save(list); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil {
		return err
	}
	return record.SyncDir(filepath.Dir(path))
}

// rewrite changes a part of a file in place. A crash on the way may leave that part, and only that, in any state.
func (t tree) rewrite(name string, part span) error {
	list, err := t.load()
	if err != nil {
		return err
	}
	e, ok := list[name]
	if !ok || part.Offset < 0 || part.Length < 1 || part.Length > e.Size || part.Offset > e.Size-part.Length {
		return fmt.Errorf("cannot rewrite %d+%d of %s: no such part of a file in the manifest", part.Offset, part.Length, name)
	}
	path, err := t.path(name)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if e.Writing == nil || *e.Writing != part {
		if sum, err := digest(f, e.Size, e.Writing); err != nil || sum != e.Sum {
			return errors.Join(fmt.Errorf("cannot rewrite %s: it is damaged", name), err)
		}
		e.Writing = &part
		if e.Sum, err = digest(f, e.Size, e.Writing); err != nil {
			return err
		}
		list[name] = e
		if err := t.save(list); err != nil {
			return err
		}
	}
	e.Gen++
	buf := make([]byte, blockSize)
	for at := part.Offset / blockSize * blockSize; at < part.Offset+part.Length; at += blockSize {
		content(buf, at, e.Seed, e.Gen)
		from, to := max(part.Offset, at), min(part.Offset+part.Length, at+blockSize)
		if _, err := f.WriteAt(buf[from-at:to-at], from); err != nil {
			return err
		}
	}
	if err := f.Sync(); err != nil {
		return err
	}
	e.Writing = nil
	if e.Sum, err = digest(f, e.Size, nil); err != nil {
		return err
	}
	list[name] = e
	return t.save(list)
}

// verify reads every file of the manifest. bad has a line for each that is missing or damaged, beginning with its name.
func (t tree) verify() (good int, bad []string, err error) {
	list, err := t.load()
	if err != nil {
		return 0, nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(list)) {
		if err := t.verifyFile(name, list[name]); err != nil {
			bad = append(bad, fmt.Sprintf("%s reason=%q", name, err))
			continue
		}
		good++
	}
	return good, bad, nil
}

func (t tree) verifyFile(name string, e entry) error {
	path, err := t.path(name)
	if err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() != e.Size {
		return fmt.Errorf("%d bytes, not %d", info.Size(), e.Size)
	}
	sum, err := digest(f, e.Size, e.Writing)
	if err == nil && sum != e.Sum {
		err = fmt.Errorf("sum %016x, not %016x", sum, e.Sum)
	}
	return err
}

// path returns where a file is. A name stays below the directory.
func (t tree) path(name string) (string, error) {
	if !filepath.IsLocal(name) || filepath.Clean(name) != name || name == "." {
		return "", fmt.Errorf("cannot use file name %q", name)
	}
	return filepath.Join(t.dir, name), nil
}

// syncDirs makes a new file's name durable, and those of the directories it may have made.
func (t tree) syncDirs(path string) error {
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		if err := record.SyncDir(dir); err != nil || dir == t.dir {
			return err
		}
	}
}

func (t tree) load() (map[string]entry, error) {
	b, err := os.ReadFile(t.manifest)
	if errors.Is(err, os.ErrNotExist) {
		return map[string]entry{}, nil
	}
	if err != nil {
		return nil, err
	}
	list := map[string]entry{}
	if err := json.Unmarshal(b, &list); err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", t.manifest, err)
	}
	return list, nil
}

func (t tree) save(list map[string]entry) error {
	b, err := json.MarshalIndent(list, "", "\t")
	if err != nil {
		return err
	}
	return writeFile(t.manifest, append(b, '\n'))
}

// digest sums size bytes of f but for a part.
func digest(f io.ReaderAt, size int64, without *span) (uint64, error) {
	sum := newSum()
	if without == nil {
		without = &span{Offset: size}
	}
	for _, s := range []span{{0, without.Offset}, {without.Offset + without.Length, size - without.Offset - without.Length}} {
		n, err := io.Copy(sum, io.NewSectionReader(f, s.Offset, s.Length))
		if err != nil {
			return 0, err
		}
		if n != s.Length {
			return 0, io.ErrUnexpectedEOF
		}
	}
	return sum.Sum64(), nil
}

func newSum() hash.Hash64 { return crc64.New(crc64.MakeTable(crc64.ECMA)) }

// writeFile replaces a file so that a crash leaves the old one or the new one.
func writeFile(path string, b []byte) error {
	tmp := path + ".new"
	f, err := os.Create(tmp)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	return record.SyncDir(filepath.Dir(path))
}
