package archtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// floors are the packages of lib by floor, the lowest first. A package imports
// from lower floors only.
var floors = [][]string{
	{"fault", "run"},
	{"step", "units", "extent", "xlcfg", "mapping", "directio", "atomicfile"},
	{"journal", "blkdev", "loopdev", "mnt", "lvm", "dm", "host", "diskimg", "rsync", "mkfs", "treesum", "xl", "md", "qmp", "udev"},
	{"blockcopy", "snap", "fsmap", "changed"},
	{"convert", "mirror"},
	{"cli"},
}

// sideways are the imports within one floor that the plan allows.
var sideways = map[string][]string{
	"run":     {"fault"},
	"loopdev": {"blkdev"},
	"dm":      {"blkdev"},
	"xl":      {"blkdev"},
}

// only says which package alone may import a library.
var only = map[string][]string{
	"github.com/peterbourgon/ff/v3":      {"lib/cli"},
	"github.com/shirou/gopsutil/v3":      {"lib/host"},
	"github.com/diskfs/go-diskfs":        {"lib/diskimg"},
	"github.com/lima-vm/go-qcow2reader":  {"lib/diskimg"},
	"github.com/u-root/u-root/pkg/mount": {"lib/mnt", "lib/loopdev", "lib/blkdev"},
	"github.com/google/renameio":         {"lib/atomicfile"},
	"github.com/schollz/progressbar":     {"lib/cli"},
	"os/exec":                            {"lib/run"},
	"github.com/rogpeppe/go-internal":    {},
	"github.com/google/go-cmp":           {},
	"pgregory.net/rapid":                 {},
	"github.com/u-root/u-root/pkg/uroot": {"cmd/domuswitch", "cmd/imgconv", "cmd/mdmirror"},
	"github.com/aymanbagabas/go-udiff":   {"cmd/domuswitch"},
	"github.com/zeebo/xxh3":              {"lib/blockcopy", "lib/treesum"},
	"golang.org/x/time":                  {"lib/blockcopy"},
	"github.com/prometheus/procfs":       {"lib/blkdev", "lib/host", "lib/mnt"},
	"golang.org/x/term":                  {"lib/cli"},
}

type pkg struct {
	ImportPath, Dir, Doc string
	Imports, GoFiles     []string
}

func packages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Dir,Doc,Imports,GoFiles", "xenlvm/...")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		// Packages that only tests import (treetest, fakehost) stand outside.
		if !strings.HasSuffix(p.ImportPath, "test") && !strings.HasPrefix(p.ImportPath, "xenlvm/internal/") {
			all = append(all, p)
		}
	}
}

func floorOf(name string) int {
	return slices.IndexFunc(floors, func(f []string) bool { return slices.Contains(f, name) })
}

// A stranger looks for a package in ARCHITECTURE.md first.
func TestEveryRoomIsOnTheMap(t *testing.T) {
	text, err := os.ReadFile("../../ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range slices.Concat(floors...) {
		if !strings.Contains(string(text), "`lib/"+name+"`") {
			t.Errorf("ARCHITECTURE.md has no room lib/%s", name)
		}
	}
}

func TestImportsGoDown(t *testing.T) {
	for _, p := range packages(t) {
		from, isLib := strings.CutPrefix(p.ImportPath, "xenlvm/lib/")
		if isLib && floorOf(from) < 0 {
			t.Errorf("lib/%s has no floor: give it one here and in ARCHITECTURE.md", from)
		}
		for _, i := range p.Imports {
			to, ours := strings.CutPrefix(i, "xenlvm/lib/")
			switch {
			case strings.HasPrefix(i, "xenlvm/cmd/"):
				t.Errorf("%s imports the program %s", p.ImportPath, i)
			case isLib && ours && floorOf(to) >= floorOf(from) && !slices.Contains(sideways[from], to):
				t.Errorf("lib/%s (floor %d) imports lib/%s (floor %d)", from, floorOf(from), to, floorOf(to))
			}
		}
	}
}

func TestEachLibraryHasOneDoor(t *testing.T) {
	for _, p := range packages(t) {
		for _, i := range p.Imports {
			for library, doors := range only {
				if i != library && !strings.HasPrefix(i, library+"/") {
					continue
				}
				if !slices.Contains(doors, strings.TrimPrefix(p.ImportPath, "xenlvm/")) {
					t.Errorf("%s imports %s; only %q may", p.ImportPath, i, doors)
				}
			}
		}
	}
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	for _, p := range packages(t) {
		if p.Doc == "" {
			t.Errorf("%s has no doc comment", p.ImportPath)
		}
	}
}

// TestOnlyMainExits looks for calls that end the process, which would skip every
// undo.
func TestOnlyMainExits(t *testing.T) {
	for _, p := range packages(t) {
		for _, file := range p.GoFiles {
			if file == "main.go" {
				continue
			}
			f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, file), nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(f, func(n ast.Node) bool {
				if s, ok := n.(*ast.SelectorExpr); ok {
					if x, ok := s.X.(*ast.Ident); ok && (x.Name == "os" && s.Sel.Name == "Exit" || x.Name == "log" && strings.HasPrefix(s.Sel.Name, "Fatal")) {
						t.Errorf("%s/%s calls %s.%s", p.ImportPath, file, x.Name, s.Sel.Name)
					}
				}
				return true
			})
		}
	}
}

// TestFilesAreRooms bounds what one has to read at once.
func TestFilesAreRooms(t *testing.T) {
	const most = 320
	root := "../.."
	for _, dir := range []string{"cmd", "lib"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			if n := lines(t, path); n > most {
				t.Errorf("%s has %d lines: more than one room", path, n)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func lines(t *testing.T, path string) int {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Count(text, []byte("\n"))
}
