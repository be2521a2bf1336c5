package xlcfg

import (
	"bytes"
	"fmt"
)

// maxDepth bounds how deep lists nest. No key of xl goes deeper than two.
const maxDepth = 1000

// parser reads statements: KEY = VALUE, KEY += VALUE, each ended by a newline,
// a semicolon or the end of the file (libxlu_cfg_y.y).
type parser struct {
	lexer
	tok   token // the token just read
	prev  token // the one before it
	depth int
}

func (p *parser) advance() *SyntaxError {
	p.prev = p.tok
	tok, err := p.next()
	p.tok = tok
	return err
}

func (p *parser) file() error {
	for {
		if err := p.advance(); err != nil {
			return err
		}
		switch p.tok.kind {
		case tokEOF:
			return nil
		case tokNewline, ';':
		case tokIdent:
			if err := p.assignment(); err != nil {
				return err
			}
			if p.tok.kind == tokEOF {
				return nil
			}
		default:
			return p.unexpected("a key")
		}
	}
}

// assignment reads one statement from its key to the token that ends it.
func (p *parser) assignment() *SyntaxError {
	f, start := p.lexer.file, p.tok.start
	key := string(f.src[start:p.tok.end])
	if err := p.advance(); err != nil {
		return err
	}
	op := p.tok
	if op.kind != '=' && op.kind != tokAdd {
		return p.unexpected("= or +=")
	}
	if err := p.advance(); err != nil {
		return err
	}
	v, err := p.value()
	if err != nil {
		return err
	}
	if err := p.store(key, op, v); err != nil {
		return err
	}
	f.statements = append(f.statements, statement{key, start, p.tok.end})
	if err := p.advance(); err != nil {
		return err
	}
	switch p.tok.kind {
	case tokNewline, ';', tokEOF:
		return nil
	}
	return p.unexpected("the end of the statement")
}

// value reads the value that begins with the current token and leaves its last
// token current.
func (p *parser) value() (value, *SyntaxError) {
	switch p.tok.kind {
	case tokString, tokNumber:
		lit, err := p.literal(p.tok)
		return value{lit: lit}, err
	case '[':
		return p.listValue()
	}
	return value{}, p.unexpected("a value")
}

func (p *parser) listValue() (value, *SyntaxError) {
	f := p.lexer.file
	v := value{isList: true, lit: literal{start: p.tok.start, line: p.tok.line}}
	if p.depth++; p.depth > maxDepth {
		return v, f.refuse(p.tok.start, fmt.Sprintf("lists nested deeper than %d", maxDepth), "")
	}
	unclosed := func() *SyntaxError {
		return f.errorAt(v.lit.start, "this list is never closed", "add the missing ]")
	}
	// Newlines are free anywhere inside the brackets, commas only between
	// values and once after the last.
	if err := p.skipNewlines(); err != nil {
		return v, err
	}
	for p.tok.kind != ']' {
		if p.tok.kind == tokEOF || p.atStatement() {
			return v, unclosed()
		}
		elem, err := p.value()
		if err != nil {
			return v, err
		}
		v.list = append(v.list, elem)
		if err := p.skipNewlines(); err != nil {
			return v, err
		}
		if p.tok.kind == ']' {
			break
		}
		if p.tok.kind == tokEOF || p.atStatement() {
			return v, unclosed()
		}
		if p.tok.kind != ',' {
			return v, p.unexpected(", or ]")
		}
		if err := p.skipNewlines(); err != nil {
			return v, err
		}
	}
	v.lit.end = p.tok.end
	p.depth--
	return v, nil
}

// atStatement tells whether the current token begins KEY = or KEY +=, which
// inside a list means that its end is missing.
func (p *parser) atStatement() bool {
	rest := bytes.TrimLeft(p.lexer.file.src[p.tok.end:], " \t")
	return p.tok.kind == tokIdent && (bytes.HasPrefix(rest, []byte("=")) || bytes.HasPrefix(rest, []byte("+=")))
}

// skipNewlines moves to the next token that is no newline.
func (p *parser) skipNewlines() *SyntaxError {
	for {
		if err := p.advance(); err != nil || p.tok.kind != tokNewline {
			return err
		}
	}
}

// store applies one statement: the last = wins, += appends to what is there.
func (p *parser) store(key string, op token, v value) *SyntaxError {
	settings := p.lexer.file.settings
	old, found := settings[key]
	if op.kind == tokAdd && found {
		if old.isList != v.isList {
			return p.lexer.file.errorAt(op.start, "+= joins a list and a single value: "+key, "append a list to a list, a string to a string")
		}
		// The old value is unreachable from here on, so its arrays may grow in
		// place: a file of many += stays linear.
		if v.isList {
			v.list = append(old.list, v.list...)
		} else {
			v.lit.text = append(old.lit.text, v.lit.text...)
			v.lit.offs = nil
		}
	}
	settings[key] = v
	return nil
}
