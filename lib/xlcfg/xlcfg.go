// Package xlcfg reads the configuration file of a Xen domain (xl.cfg) the way
// xl itself reads it, and moves one disk in it to a block device without
// touching any other byte.
//
// xl.cfg looks like Python and is not: it is a small grammar of its own, with a
// second one inside each disk string. Both are followed here to the letter,
// oddities included, because a rewriter that is more generous than xl writes
// files that do not boot, and one that is stricter refuses files that do. What
// xl takes but a rewrite could not keep (a disk list with a nested list in it,
// two disks that are one device) is refused with [SyntaxError.Ours] set.
//
// Sources: Xen's tools/libs/util/libxlu_cfg_l.l, libxlu_cfg_y.y and
// libxlu_disk_l.l, its man pages xl.cfg(5) and xl-disk-configuration(5). The
// parameters are those of Xen 4.20; an older xl may refuse a newer one.
//
// The package is pure: it opens no file and runs no program.
package xlcfg

import (
	"bytes"
	"fmt"
)

// File is one parsed configuration. It is immutable: an edit gives a new File.
type File struct {
	name     string
	src      []byte
	settings map[string]value // what each key stands for after the whole file has been read

	statements []statement // in order
}

// statement is one KEY = VALUE or KEY += VALUE, from its key to the end of its value.
type statement struct {
	key        string
	start, end int
}

// value is an atom (a string or a number, which xl does not tell apart) or a
// list of values.
type value struct {
	isList bool
	list   []value
	lit    literal
}

// literal is an atom together with the place it was read from, so that the
// place can be written back.
type literal struct {
	text       []byte // decoded
	offs       []int  // offs[i] is where byte i of text starts in the file, offs[len(text)] where the last one ends
	start, end int    // the token in the file, quotes included
	line       int
}

// SyntaxError is one thing in a configuration that cannot be read, and where.
type SyntaxError struct {
	Name string // the file, as given to Parse
	Line int    // from 1
	Col  int    // in bytes, from 1
	Msg  string // what is wrong, in one line
	Hint string // what to do about it; may be empty
	Ours bool   // xl takes it, this package does not
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("cannot parse %s:%d:%d: %s", spell(e.Name), e.Line, e.Col, e.Msg)
}

// Parse reads a whole configuration. Name is only used in messages. The error
// is a [*SyntaxError]. Disk strings are not looked into before [File.Disks].
func Parse(name string, src []byte) (*File, error) {
	f := &File{name: name, src: bytes.Clone(src), settings: make(map[string]value)}
	p := &parser{lexer: lexer{file: f, line: 1}}
	if err := p.file(); err != nil {
		return nil, err
	}
	return f, nil
}

// Bytes returns the file's text, byte for byte as it was parsed or edited.
func (f *File) Bytes() []byte { return bytes.Clone(f.src) }

// String returns the string or number that key stands for, as xl sees it: the
// last assignment wins, += appends. It is false for a missing key and a list.
func (f *File) String(key string) (string, bool) {
	v, ok := f.settings[key]
	if !ok || v.isList {
		return "", false
	}
	return string(v.lit.text), true
}

// errorAt makes a SyntaxError for the byte at offset pos of the file.
func (f *File) errorAt(pos int, msg, hint string) *SyntaxError {
	before := f.src[:min(pos, len(f.src))]
	return &SyntaxError{
		Name: f.name,
		Line: 1 + bytes.Count(before, []byte{'\n'}),
		Col:  len(before) - (bytes.LastIndexByte(before, '\n') + 1) + 1,
		Msg:  msg,
		Hint: hint,
	}
}

// refuse is errorAt for what xl would have taken.
func (f *File) refuse(pos int, msg, hint string) *SyntaxError {
	e := f.errorAt(pos, msg, hint)
	e.Ours = true
	return e
}
