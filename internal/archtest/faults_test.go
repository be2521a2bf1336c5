package archtest

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// heldBy is a test that docs/faults.md names: FILE:TEXT.
var heldBy = regexp.MustCompile("`([\\w./-]+\\.(go|sh|txtar)):([^`]+)`")

// What docs/faults.md says is tested is there.
func TestFaultsAreHeld(t *testing.T) {
	const root = "../.."
	text, err := os.ReadFile(filepath.Join(root, "docs/faults.md"))
	if err != nil {
		t.Fatal(err)
	}
	named := heldBy.FindAllStringSubmatch(string(text), -1)
	if len(named) < 100 {
		t.Errorf("only %d tests are named", len(named))
	}
	for _, m := range named {
		path, want := m[1], m[3]
		switch m[2] {
		case "sh":
			path = "test/lab/scenarios/" + path
		case "txtar":
			tool, script, _ := strings.Cut(path, "/")
			path = filepath.Join("cmd", tool, "testdata/script", script)
		case "go":
			if strings.HasPrefix(want, "Test") || strings.HasPrefix(want, "Fuzz") {
				want = "func " + want + "("
			}
		}
		if b, err := os.ReadFile(filepath.Join(root, path)); err != nil || !strings.Contains(string(b), want) {
			t.Errorf("%s: there is no %q, %v", path, want, err)
		}
	}
}
