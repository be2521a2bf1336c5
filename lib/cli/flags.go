package cli

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/peterbourgon/ff/v3"

	"xenlvm/lib/fault"
)

// confDir holds one optional configuration file per program, NAME.conf, with
// lines "flag value".
const confDir = "/etc/xenlvm"

// common are the flags that every verb of every program takes.
var common = []string{"json", "dry-run", "quiet", "verbose", "version"}

// FlagSet has all flags of the tool, those common to all programs included.
func (t Tool) FlagSet(e *Env, version *bool) *flag.FlagSet {
	fs := flag.NewFlagSet(t.Name, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.Usage = func() {}
	fs.BoolVar(&e.JSON, "json", false, "print one JSON object instead of lines")
	fs.BoolVar(&e.DryRun, "dry-run", false, "run every query and no change; print each change as a shell line")
	fs.BoolVar(&e.Quiet, "quiet", false, "print errors only")
	fs.BoolVar(&e.Verbose, "verbose", false, "print every command that is run, and when each step starts")
	fs.BoolVar(version, "version", false, "print the version and exit")
	if t.Flags != nil {
		t.Flags(fs)
	}
	return fs
}

// parse reads flags anywhere on the line, then what the environment and the
// configuration file add. A nil verb means that the version was asked for.
func (t Tool) parse(e *Env, args, environ []string) (*Verb, []string, error) {
	var version bool
	fs := t.FlagSet(e, &version)
	rest, err := permute(fs, args)
	if err != nil {
		return nil, nil, usageOf(err)
	}
	if version {
		return nil, nil, nil
	}
	onLine := set(fs)
	e.onLine = onLine
	if err := t.checkEnviron(fs, environ); err != nil {
		return nil, nil, err
	}
	options, err := t.behind(environ)
	if err != nil {
		return nil, nil, err
	}
	if err := ff.Parse(fs, nil, options...); err != nil {
		return nil, nil, usageOf(err)
	}
	for name := range set(fs) {
		if !onLine[name] && slices.Contains(t.Deliberate, name) {
			return nil, nil, fault.BadUsage("--%s counts only on the command line, not from the environment or %s/%s.conf", name, confDir, t.Name)
		}
	}
	verb, rest, err := t.verb(rest)
	if err != nil {
		return nil, nil, err
	}
	for name := range onLine {
		if !slices.Contains(common, name) && !slices.Contains(verb.Flags, name) {
			return nil, nil, fault.BadUsage("%s takes no --%s", strings.TrimSpace(t.Name+" "+verb.Name), name)
		}
	}
	if len(rest) < verb.Min || verb.Max >= 0 && len(rest) > verb.Max {
		return nil, nil, fault.BadUsage("%s wants %s, got %d arguments", strings.TrimSpace(t.Name+" "+verb.Name), verb.Args, len(rest))
	}
	return verb, rest, nil
}

// checkEnviron refuses a variable of the environment that looks like a flag and is
// none, as one on the command line and in the configuration file is refused.
func (t Tool) checkEnviron(fs *flag.FlagSet, environ []string) error {
	prefix := strings.ToUpper(t.Name) + "_"
	for _, kv := range environ {
		name, value, _ := strings.Cut(kv, "=")
		option, ours := strings.CutPrefix(name, prefix)
		known := option == "CONF" || fs.Lookup(strings.ToLower(strings.ReplaceAll(option, "_", "-"))) != nil
		if ours && value != "" && !known {
			return fault.Hint(fault.BadUsage("unknown %s in the environment: there is no such flag", name), "unset %s", name)
		}
	}
	return nil
}

// behind are the sources of flags behind the command line.
func (t Tool) behind(environ []string) ([]ff.Option, error) {
	prefix := strings.ToUpper(t.Name)
	options := []ff.Option{ff.WithEnvVarPrefix(prefix), ff.WithConfigFileParser(ff.PlainParser)}
	file := confDir + "/" + t.Name + ".conf"
	named := false
	for _, kv := range environ {
		if v, ok := strings.CutPrefix(kv, prefix+"_CONF="); ok && v != "" {
			file, named = v, true
		}
	}
	info, err := os.Stat(file)
	switch {
	case errors.Is(err, os.ErrNotExist) && !named:
		return options, nil
	case err != nil:
		return nil, fault.BadUsage("cannot read the configuration file: %w", err)
	case !info.Mode().IsRegular(): // a FIFO would be waited for
		return nil, fault.BadUsage("cannot read the configuration file %s: it is not a regular file", file)
	}
	return append(options, ff.WithConfigFile(file)), nil
}

// permute parses flags that stand before, between or behind the positionals,
// which it returns. Package flag alone stops at the first positional and takes
// every flag behind it for another one: a dry run would become a real run.
func permute(fs *flag.FlagSet, args []string) ([]string, error) {
	var positionals []string
	for {
		if err := fs.Parse(args); err != nil {
			return nil, hintFile(err, args[len(args)-len(fs.Args())-1])
		}
		rest := fs.Args()
		if len(rest) == 0 {
			return positionals, nil
		}
		if n := len(args) - len(rest); n > 0 && args[n-1] == "--" {
			return append(positionals, rest...), nil
		}
		positionals = append(positionals, rest[0])
		args = rest[1:]
	}
}

// hintFile hints at what else arg, which is no flag, may be.
func hintFile(err error, arg string) error {
	if _, missing := os.Lstat(arg); missing != nil || !strings.HasPrefix(arg, "-") {
		return err
	}
	return fault.Hint(err, "if the file is meant: names that begin with a dash come behind --")
}

func (t Tool) verb(rest []string) (*Verb, []string, error) {
	if len(t.Verbs) == 1 && t.Verbs[0].Name == "" {
		return &t.Verbs[0], rest, nil
	}
	var names []string
	for i := range t.Verbs {
		if len(rest) > 0 && t.Verbs[i].Name == rest[0] {
			return &t.Verbs[i], rest[1:], nil
		}
		names = append(names, t.Verbs[i].Name)
	}
	if len(rest) == 0 {
		return nil, nil, fault.BadUsage("want one of %s", strings.Join(names, ", "))
	}
	return nil, nil, fault.BadUsage("unknown command %q: want one of %s", rest[0], strings.Join(names, ", "))
}

func set(fs *flag.FlagSet) map[string]bool {
	names := map[string]bool{}
	fs.Visit(func(f *flag.Flag) { names[f.Name] = true })
	return names
}

func usageOf(err error) error {
	if errors.Is(err, flag.ErrHelp) {
		return err
	}
	return fault.With(fault.Usage, err)
}

// printUsage writes what --help shows.
func (t Tool) printUsage(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s\n\nUsage:\n", t.Name, t.Summary)
	for _, v := range t.Verbs {
		words := slices.DeleteFunc([]string{t.Name, v.Name, "[flags]", v.Args}, func(s string) bool { return s == "" })
		fmt.Fprintf(&b, "  %s\n      %s\n", strings.Join(words, " "), v.Summary)
	}
	b.WriteString("\nFlags:\n")
	var version bool
	t.FlagSet(&Env{}, &version).VisitAll(func(f *flag.Flag) {
		value, usage := flag.UnquoteUsage(f)
		if value != "" {
			value = " " + value
		}
		fmt.Fprintf(&b, "  --%s%s\n      %s%s\n", f.Name, value, usage, t.takers(f.Name))
	})
	except := ""
	if len(t.Deliberate) > 0 {
		except = ", except --" + strings.Join(t.Deliberate, ", --")
	}
	fmt.Fprintf(&b, "\nFlags can also be set by %s_FLAG_NAME in the environment, or by a line\n\"flag-name value\" in %s/%s.conf%s; those without a value by true or false.\nThe exit status is described in %s(8).\n",
		strings.ToUpper(t.Name), confDir, t.Name, except, t.Name)
	_, err := io.WriteString(w, b.String())
	return err
}

// takers says which verbs take the flag, where not all of them do.
func (t Tool) takers(name string) string {
	if len(t.Verbs) == 1 || slices.Contains(common, name) {
		return ""
	}
	var verbs []string
	for _, v := range t.Verbs {
		if slices.Contains(v.Flags, name) {
			verbs = append(verbs, v.Name)
		}
	}
	return " (" + strings.Join(verbs, ", ") + ")"
}
