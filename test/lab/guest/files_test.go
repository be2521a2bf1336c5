package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

func newTree(t *testing.T) tree {
	dir := t.TempDir()
	tr := tree{dir: filepath.Join(dir, "files"), manifest: filepath.Join(dir, "files.json")}
	if err := os.Mkdir(tr.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return tr
}

// expect checks how many files verify.
func (t tree) expect(tb testing.TB, good, bad int) {
	tb.Helper()
	g, b, err := t.verify()
	if g != good || len(b) != bad || err != nil {
		tb.Errorf("%d good, bad %q, %v; want %d and %d", g, b, err, good, bad)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestFiles(t *testing.T) {
	tr := newTree(t)
	must(t, tr.fill("a", 200_001, 1))
	must(t, tr.fill("sub/dir/b", 10, 2))
	must(t, tr.fill("empty", 0, 1))
	tr.expect(t, 3, 0)
	old, err := os.ReadFile(filepath.Join(tr.dir, "a"))
	must(t, err)
	must(t, tr.rewrite("a", span{65_000, 70_000}))
	tr.expect(t, 3, 0)
	now, err := os.ReadFile(filepath.Join(tr.dir, "a"))
	must(t, err)
	if bytes.Equal(old[65_000:135_000], now[65_000:135_000]) || !bytes.Equal(old[:65_000], now[:65_000]) || !bytes.Equal(old[135_000:], now[135_000:]) {
		t.Error("rewrite changed something else than its part")
	}
	must(t, tr.remove("sub/dir/b"))
	tr.expect(t, 2, 0)
	for _, err := range []error{tr.fill("../x", 1, 1), tr.fill("/x", 1, 1), tr.fill(".", 1, 1), tr.remove("none"), tr.rewrite("a", span{200_000, 2}), tr.rewrite("none", span{0, 1})} {
		if err == nil {
			t.Error("accepted what cannot be")
		}
	}

	path := filepath.Join(tr.dir, "a")
	now[77] ^= 1
	must(t, os.WriteFile(path, now, 0o644))
	tr.expect(t, 1, 1)
	if err := tr.rewrite("a", span{0, 10}); err == nil {
		t.Error("a damaged file was rewritten, which would hide the damage")
	}
	must(t, os.Truncate(path, 100))
	tr.expect(t, 1, 1)
	must(t, os.Remove(path))
	tr.expect(t, 1, 1)
	must(t, os.WriteFile(tr.manifest, []byte("{"), 0o644))
	if _, _, err := tr.verify(); err == nil {
		t.Error("a damaged manifest passed")
	}
}

// After a crash inside a rewrite the announced part may hold anything, the rest may not; the rewrite can be finished.
func TestCrashInRewrite(t *testing.T) {
	tr := newTree(t)
	must(t, tr.fill("a", 100_000, 1))
	path := filepath.Join(tr.dir, "a")
	b, err := os.ReadFile(path)
	must(t, err)
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	part := span{1000, 500}
	sum, err := digest(f, 100_000, &part)
	must(t, err)
	must(t, tr.save(map[string]entry{"a": {Size: 100_000, Seed: 1, Sum: sum, Writing: &part}}))
	b[1200] ^= 0xff
	must(t, os.WriteFile(path, b, 0o644))
	tr.expect(t, 1, 0)
	must(t, tr.rewrite("a", part))
	tr.expect(t, 1, 0)
	b[1500] ^= 0xff
	must(t, os.WriteFile(path, b, 0o644))
	tr.expect(t, 0, 1)
}
