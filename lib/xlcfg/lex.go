package xlcfg

import "bytes"

type tokenKind byte

// Punctuation is its own kind: ',', '[', ']', '=', ';'.
const (
	tokEOF     tokenKind = 0
	tokNewline tokenKind = '\n' // a comment is the newline that ends it
	tokIdent   tokenKind = 'a'
	tokNumber  tokenKind = '0'
	tokString  tokenKind = '"'
	tokAdd     tokenKind = '+' // +=
)

type token struct {
	kind       tokenKind
	start, end int
	line       int
}

// lexer cuts a file into tokens exactly as libxlu_cfg_l.l does.
type lexer struct {
	file *File
	pos  int
	line int
}

func (l *lexer) next() (token, *SyntaxError) {
	src := l.file.src
	for l.pos < len(src) && (src[l.pos] == ' ' || src[l.pos] == '\t') {
		l.pos++
	}
	tok := token{start: l.pos, line: l.line}
	if l.pos == len(src) {
		tok.end = l.pos
		return tok, nil
	}
	n, err := l.scan(&tok, src[l.pos:])
	if err != nil {
		return tok, err
	}
	if n == 0 {
		// No rule matches. xl's scanner wants a second byte before it
		// complains, so one stray byte at the very end goes unnoticed.
		if l.pos != len(src)-1 {
			return tok, l.explainByte(l.pos)
		}
		tok.kind, n = tokEOF, 1
	}
	l.pos += n
	tok.end = l.pos
	return tok, nil
}

// scan sets tok.kind and returns the length of the token at the start of rest,
// 0 if none begins there.
func (l *lexer) scan(tok *token, rest []byte) (int, *SyntaxError) {
	switch c := rest[0]; {
	case isLower(c):
		tok.kind = tokIdent
		return span(rest, func(c byte) bool { return isLower(c) || isDigit(c) || c == '.' || c == '_' }), nil
	case isDigit(c):
		tok.kind = tokNumber
		return span(rest, func(c byte) bool { return isDigit(c) || 'a' <= c && c <= 'f' || c == 'x' }), nil
	case c == ',' || c == '[' || c == ']' || c == '=' || c == ';':
		tok.kind = tokenKind(c)
		return 1, nil
	case c == '+' && len(rest) > 1 && rest[1] == '=':
		tok.kind = tokAdd
		return 2, nil
	case c == '\n':
		tok.kind = tokNewline
		l.line++
		return 1, nil
	case c == '#':
		tok.kind = tokNewline
		n := bytes.IndexByte(rest, '\n') + 1
		if i := bytes.IndexByte(rest[:n], 0); i >= 0 {
			return 0, l.file.refuse(l.pos+i, "NUL byte in a comment", hintNUL)
		}
		if n > 0 {
			l.line++
		}
		return n, nil
	case c == '\'' || c == '"':
		tok.kind = tokString
		return stringLen(rest), nil
	}
	return 0, nil
}

// stringLen returns the length of the quoted string at the start of s, 0 if it
// is not closed on its line.
func stringLen(s []byte) int {
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case s[0]:
			return i + 1
		case '\n':
			return 0
		case '\\':
			i++
			if i < len(s) && s[i] == '\n' {
				return 0
			}
		}
	}
	return 0
}

// literal decodes the string or number tok.
func (l *lexer) literal(tok token) (literal, *SyntaxError) {
	src := l.file.src
	lit := literal{start: tok.start, end: tok.end, line: tok.line}
	if tok.kind == tokNumber {
		lit.text = bytes.Clone(src[tok.start:tok.end])
		return lit, nil
	}
	raw, base := src[tok.start+1:tok.end-1], tok.start+1
	if i := bytes.IndexByte(raw, 0); i >= 0 {
		return lit, l.file.errorAt(base+i, "NUL byte in a string", hintNUL)
	}
	lit.text = make([]byte, 0, len(raw))
	lit.offs = make([]int, 1, len(raw)+1)
	lit.offs[0] = base
	for i := 0; i < len(raw); {
		c, n := raw[i], 1
		if c == '\\' {
			var msg string
			if c, n, msg = unescape(raw[i:]); msg != "" {
				return lit, l.file.errorAt(base+i, msg, `write a backslash as \\, and any other character as itself`)
			}
		}
		i += n
		if n > 2 {
			continue // a number escape leaves nothing behind
		}
		lit.text = append(lit.text, c)
		lit.offs = append(lit.offs, base+i)
	}
	// Bytes that vanished at the end belong to the last character.
	lit.offs[len(lit.text)] = tok.end - 1
	return lit, nil
}

// unescape decodes the escape at the start of s. It returns the byte and the
// length of the escape, which is above 2 for a number escape: xl skips those
// and stores nothing.
func unescape(s []byte) (c byte, n int, msg string) {
	switch e := s[1]; e {
	case '"', '\'', '\\':
		return e, 2, ""
	case 'a':
		return '\a', 2, ""
	case 'b':
		return '\b', 2, ""
	case 'f':
		return '\f', 2, ""
	case 'n':
		return '\n', 2, ""
	case 'r':
		return '\r', 2, ""
	case 't':
		return '\t', 2, ""
	case 'v':
		return '\v', 2, ""
	case 'x':
		return 0, 0, `\x escapes are refused by xl, whatever follows`
	case '0', '1', '2', '3', '4', '5', '6', '7':
		// xl drops this digit and reads up to three more, in base ten.
		_, _, used := strtoul(string(s[2:min(5, len(s))]), 10)
		if used < 2 {
			return 0, 0, "number escape with too few digits"
		}
		return 0, 2 + used, ""
	default:
		return 0, 0, "unknown escape \\" + printable(e)
	}
}

// encode writes s so that it reads back as s between two quote characters. It
// wants no control characters, for which xl has no safe spelling.
func encode(s string, quote byte) []byte {
	var out []byte
	for i := range len(s) {
		if s[i] == quote || s[i] == '\\' {
			out = append(out, '\\')
		}
		out = append(out, s[i])
	}
	return out
}

func isLower(c byte) bool { return 'a' <= c && c <= 'z' }
func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// span returns how many bytes at the start of s satisfy in.
func span[S string | []byte](s S, in func(byte) bool) int {
	for i := range len(s) {
		if !in(s[i]) {
			return i
		}
	}
	return len(s)
}
