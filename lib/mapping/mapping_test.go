package mapping

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRoundTrip(t *testing.T) {
	lines := []Line{
		{"vm3", "xvda", "/srv/images/vm3.img", "/dev/vg0/vm3-xvda", Copied},
		{"vm 4", "xvda1", "/srv/it's here.img", "/dev/vg0/x", Planned},
	}
	var b strings.Builder
	if err := Write(&b, lines); err != nil {
		t.Fatal(err)
	}
	if first, _, _ := strings.Cut(b.String(), "\n"); first != "vm3\txvda\t/srv/images/vm3.img\t/dev/vg0/vm3-xvda\tcopied" {
		t.Errorf("first line %q", first)
	}
	got, err := Read(strings.NewReader("\n" + b.String()))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(lines, got); d != "" {
		t.Error(d)
	}
}

func TestRefused(t *testing.T) {
	for in, want := range map[string]string{
		"vm3 xvda /a /b copied":          "want 5 fields",
		"vm3\txvda\t/a\t/b\tdone":        `unknown state "done"`,
		"vm3\txvda\t/a\t\tcopied":        "destination is empty",
		"vm3\txvda\t/a\t/b\x1b\tcopied":  "control character",
		"ok\tx\t/a\t/b\tcopied\nbad":     "line 2",
		strings.Repeat("x", maxLine+100): "too long",
	} {
		if _, err := Read(strings.NewReader(in)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Read(%.40q) = %v; want %q", in, err, want)
		}
	}
	if err := Write(&strings.Builder{}, []Line{{"vm\n3", "xvda", "/a", "/b", Copied}}); err == nil {
		t.Error("a domain with a newline was written")
	}
}

func FuzzRead(f *testing.F) {
	f.Add("vm3\txvda\t/a\t/b\tcopied\n")
	f.Add("vm3\txvda\t/a\t/b\t\n\n")
	f.Fuzz(func(t *testing.T, in string) {
		lines, err := Read(strings.NewReader(in))
		if err != nil {
			return
		}
		var b strings.Builder
		if err := Write(&b, lines); err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		again, err := Read(strings.NewReader(b.String()))
		if err != nil || cmp.Diff(lines, again) != "" {
			t.Fatalf("%q came back as %q, %v", lines, again, err)
		}
	})
}
