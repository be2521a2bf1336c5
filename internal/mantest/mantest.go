// Package mantest compares a program's man page with its code.
//
// The page is man(7). Its OPTIONS section has one .TP per flag, with the flag in
// the line behind it: ".BI \-\-timeout " TIME". SYNOPSIS names every verb.
package mantest

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"flag"

	"xenlvm/lib/cli"
)

// sections that every page has, in this order.
var sections = []string{"NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXIT STATUS", "FILES", "EXAMPLES", "SEE ALSO"}

var flagName = regexp.MustCompile(`--([a-z][a-z-]*)`)

// Check reports every flag and verb that the code has and the page at path does
// not, and the other way round.
func Check(t *testing.T, tool cli.Tool, path string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	page := split(string(text))
	last := -1
	for _, s := range sections {
		at := slices.Index(page.order, s)
		if at < 0 {
			t.Errorf("%s: there is no section %s", path, s)
		} else if at < last {
			t.Errorf("%s: section %s stands too early", path, s)
		}
		last = max(last, at)
	}
	if want := tool.Name + " - " + tool.Summary; !strings.Contains(page.body["NAME"], want) {
		t.Errorf("%s: NAME is not %q", path, want)
	}
	for _, v := range tool.Verbs {
		if !regexp.MustCompile(`(?m)\b` + regexp.QuoteMeta(strings.TrimSpace(tool.Name+" "+v.Name)) + `(\s|$)`).MatchString(page.body["SYNOPSIS"]) {
			t.Errorf("%s: SYNOPSIS lacks %s %s", path, tool.Name, v.Name)
		}
	}
	documented := options(page.body["OPTIONS"])
	inCode := map[string]bool{}
	var version bool
	tool.FlagSet(&cli.Env{}, &version).VisitAll(func(f *flag.Flag) {
		inCode[f.Name] = true
		placeholder, _ := flag.UnquoteUsage(f)
		line, ok := documented[f.Name]
		if !ok {
			t.Errorf("%s: OPTIONS lacks --%s", path, f.Name)
		} else if got := strings.TrimSpace(strings.TrimPrefix(line, "--"+f.Name)); got != placeholder {
			t.Errorf("%s: --%s has the value %q; the code calls it %q", path, f.Name, got, placeholder)
		}
	})
	inCode["help"] = true // of package flag
	for _, name := range slices.Sorted(maps.Keys(documented)) {
		if !inCode[name] {
			t.Errorf("%s: OPTIONS has --%s, which the code does not know", path, name)
		}
	}
	// A flag that is only mentioned must exist, too.
	for _, m := range flagName.FindAllStringSubmatch(page.commands(tool.Name), -1) {
		if !inCode[m[1]] {
			t.Errorf("%s: mentions %s, which the code does not know", path, m[0])
		}
	}
}

// manual is a page as plain text, by section.
type manual struct {
	order []string
	body  map[string]string
}

// commands are the calls of the tool in the synopsis and the examples.
func (m manual) commands(tool string) string {
	var calls []string
	for call := range strings.FieldsFuncSeq(m.body["SYNOPSIS"]+m.body["EXAMPLES"], func(r rune) bool { return strings.ContainsRune("\n|;&", r) }) {
		if strings.HasPrefix(strings.TrimSpace(call), tool+" ") {
			calls = append(calls, call)
		}
	}
	return strings.Join(calls, "\n")
}

func split(roff string) manual {
	m := manual{body: map[string]string{}}
	section := ""
	for line := range strings.Lines(roff) {
		if name, ok := strings.CutPrefix(line, ".SH "); ok {
			section = strings.Trim(strings.TrimSpace(name), `"`)
			m.order = append(m.order, section)
			continue
		}
		m.body[section] += plain(line)
	}
	return m
}

// macro is a font macro at the start of a line, whose arguments are the text.
var macro = regexp.MustCompile(`^\.(B|I|BR|BI|RB|RI|IR|IB) `)

func plain(line string) string {
	if macro.MatchString(line) {
		line = strings.ReplaceAll(macro.ReplaceAllString(line, ""), `"`, "")
	}
	return strings.NewReplacer(`\-`, "-", `\fB`, "", `\fI`, "", `\fR`, "", `\e`, `\`, `\(aq`, "'").Replace(line)
}

// options are the flags of OPTIONS, each with its whole line.
func options(body string) map[string]string {
	found := map[string]string{}
	tag := false
	for line := range strings.Lines(body) {
		if m := flagName.FindStringSubmatch(line); tag && m != nil {
			found[m[1]] = strings.TrimSpace(line)
		}
		tag = strings.HasPrefix(line, ".TP")
	}
	return found
}
