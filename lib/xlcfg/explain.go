package xlcfg

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

const (
	hintNUL    = "the file may be damaged: compare it with a backup"
	hintPython = "xl reads no Python: write each value out as a plain string, number or list (https://wiki.xen.org/wiki/PythonInXlConfig)"
)

// explainByte says why no token begins at pos.
func (l *lexer) explainByte(pos int) *SyntaxError {
	f := l.file
	rest := f.src[pos:]
	fail := func(msg, hint string) *SyntaxError { return f.errorAt(pos, msg, hint) }
	switch c := rest[0]; {
	case pos == 0 && bytes.HasPrefix(rest, []byte("\xef\xbb\xbf")):
		return fail("UTF-8 byte order mark at the start of the file", "remove the first three bytes: tail -c +4 FILE")
	case pos == 0 && (bytes.HasPrefix(rest, []byte("\xff\xfe")) || bytes.HasPrefix(rest, []byte("\xfe\xff"))):
		return fail("the file is UTF-16", "convert it: iconv -f UTF-16 -t UTF-8 FILE")
	case bytes.HasPrefix(rest, []byte("\r\n")):
		return fail("Windows line end (CR LF)", `remove the carriage returns: sed 's/\r$//' FILE`)
	case c == '\r':
		return fail("carriage return outside a string or comment", `end lines with a newline alone: tr '\r' '\n' < FILE`)
	case c == 0:
		return fail("NUL byte", hintNUL)
	case c == '#':
		return fail("comment on the last line without a newline after it", "end the file with a newline")
	case c == '\\':
		return fail("a line cannot be continued with a backslash", "put the value in brackets, where newlines are free, or on one line")
	case bytes.HasPrefix(rest, []byte("\u00a0")):
		return fail("no-break space", "replace it with a plain space")
	case c == '\f' || c == '\v':
		return fail("form feed or vertical tab", "replace it with a space")
	case c == '\'' || c == '"':
		if l.pythonLine(pos) {
			return f.python(pos)
		}
		return fail("string is not closed on its line", "a string ends on the line it starts on, with the quote it starts with")
	case c == '-' && len(rest) > 1 && isDigit(rest[1]) && !l.afterValue(pos):
		return fail("negative number", "xl knows no sign outside quotes: write it as a string")
	case c == '-' && l.atKey(pos):
		return fail("- in a key", "a key is made of a-z, 0-9, . and _")
	case 'A' <= c && c <= 'Z':
		return l.explainCapital(pos)
	case strings.IndexByte("+-.():*/%{}<>!@", c) >= 0 || l.pythonLine(pos):
		return f.python(pos)
	case c >= 0x80:
		return fail("non-ASCII character outside a string or comment", "quote it")
	}
	return fail("character "+printable(rest[0])+" outside a string or comment", "")
}

// explainCapital tells a key in capitals from True, an 0xFF and plain Python.
func (l *lexer) explainCapital(pos int) *SyntaxError {
	f := l.file
	word := f.src[pos:]
	word = word[:span(word, func(c byte) bool { return isLower(c|0x20) || isDigit(c) || c == '_' })]
	start := f.src[lineStart(f.src, pos):pos]
	switch s := string(word); {
	case l.pythonLine(pos):
		return f.python(pos)
	case s == "True" || s == "False" || s == "None":
		return f.errorAt(pos, s+" is Python, not xl", "write 1 or 0")
	case l.atKey(pos):
		return f.errorAt(pos, "capital letter in a key", "a key is made of a-z, 0-9, . and _")
	case len(start) > 0 && isDigit(start[len(start)-1]) || bytes.HasSuffix(start, []byte("0x")):
		return f.errorAt(pos, "capital letter in a number", "write hexadecimal in lower case: 0xff; a number takes no unit")
	}
	return f.errorAt(pos, "unquoted word "+strconv.Quote(string(word)), "put it in quotes")
}

func (f *File) python(pos int) *SyntaxError {
	return f.errorAt(pos, "looks like an xm Python configuration", hintPython)
}

// pythonLine tells whether the line at pos is Python beyond doubt.
func (l *lexer) pythonLine(pos int) bool {
	line := l.file.src[lineStart(l.file.src, pos):]
	if i := bytes.IndexByte(line, '\n'); i >= 0 {
		line = line[:i]
	}
	s := strings.TrimSpace(string(line))
	if strings.Contains(s, `"""`) || strings.Contains(s, "'''") {
		return true
	}
	word, rest, _ := strings.Cut(s, " ")
	switch strings.TrimSuffix(word, ":") {
	case "import", "from", "def", "if", "elif", "for", "while", "class", "return", "print", "global", "del", "with":
		return !strings.HasPrefix(strings.TrimSpace(rest), "=") && rest != ""
	case "else", "try", "except", "finally":
		return strings.HasSuffix(s, ":")
	}
	return false
}

// atKey tells whether pos is where a key stands: nothing but one word, at most,
// between it and the start of the statement.
func (l *lexer) atKey(pos int) bool {
	before := bytes.TrimLeft(l.file.src[lineStart(l.file.src, pos):pos], " \t")
	return span(before, func(c byte) bool { return isLower(c) || isDigit(c) || c == '.' || c == '_' }) == len(before) &&
		bytes.IndexByte(l.file.src[pos:], '=') >= 0
}

// afterValue tells whether a value ends right before pos on its line.
func (l *lexer) afterValue(pos int) bool {
	before := bytes.TrimRight(l.file.src[lineStart(l.file.src, pos):pos], " \t")
	if len(before) == 0 {
		return false
	}
	c := before[len(before)-1]
	return isLower(c) || isDigit(c) || c == '\'' || c == '"' || c == ']'
}

// unexpected says why the current token may not stand where it does.
func (p *parser) unexpected(want string) *SyntaxError {
	f := p.lexer.file
	tok, prev := p.tok, p.prev
	text := string(f.src[tok.start:tok.end])
	fail := func(msg, hint string) *SyntaxError { return f.errorAt(tok.start, msg, hint) }
	if tok.kind != tokEOF && p.pythonLine(tok.start) {
		return f.python(tok.start)
	}
	isValue := func(k tokenKind) bool { return k == tokString || k == tokNumber || k == ']' }
	switch {
	case want == "a value" && (tok.kind == tokNewline || tok.kind == tokEOF) && (prev.kind == '=' || prev.kind == tokAdd):
		return fail("no value after "+string(f.src[prev.start:prev.end]), "the value, or its [, starts on the same line")
	case want == "a value" && tok.kind == tokIdent:
		return fail("unquoted word "+strconv.Quote(text), "put it in quotes; for yes and no write 1 and 0")
	case want == "a value" && tok.kind == ',':
		return fail("nothing before the comma", "remove the comma")
	case prev.kind == tokString && tok.kind == tokString:
		return fail("two strings in a row", "xl does not join them: write one string, or put a comma between two list elements")
	case want == ", or ]" && (isValue(tok.kind) || tok.kind == '['):
		return fail("no comma between two list elements", "put a comma behind the first")
	case prev.kind == tokNumber && tok.kind == tokIdent && prev.end == tok.start:
		return fail("number followed by "+strconv.Quote(text), "a number takes no unit")
	case want == "= or +=" && tok.kind == tokNewline:
		return fail("key without a value", "write KEY = VALUE on one line, or make the line a comment with #")
	case want == "the end of the statement" && isValue(prev.kind) && tok.kind == tokIdent:
		return fail("second statement on one line", "start a new line, or put ; between them")
	}
	name := strconv.Quote(text)
	switch tok.kind {
	case tokEOF:
		name = "the end of the file"
	case tokNewline:
		name = "the end of the line"
	}
	return fail(fmt.Sprintf("%s where %s should be", name, want), "")
}

func lineStart(src []byte, pos int) int { return bytes.LastIndexByte(src[:pos], '\n') + 1 }

// printable shows one byte in a message.
func printable(c byte) string {
	if c > ' ' && c < 0x7f {
		return string(rune(c))
	}
	return fmt.Sprintf("0x%02x", c)
}

// spell shows a name in a message as the user wrote it, unless that would break
// the line.
func spell(s string) string {
	if q := strconv.Quote(s); s == "" || strings.Contains(q, `\`) {
		return q
	}
	return s
}
