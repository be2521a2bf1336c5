package xlcfg

// A readCase is one configuration and what becomes of it. The table is used
// three times: by TestRead, as the seed of FuzzParse, and by TestAgainstRealXL,
// where xl itself is the judge.
type readCase struct {
	name  string
	src   string
	want  []string // the live disks, as show prints them
	err   string   // part of the message; empty means accepted
	ours  bool     // refused by us alone, xl accepts it
	since string   // the first Xen that accepts it, if later than 4.17
}

// disk is a configuration with one disk string, which must need no escapes.
func disk(spec string) string { return "disk = [ \"" + spec + "\" ]\n" }

// x is what most specs come out as.
var x = []string{"xvda=/x raw rw"}

// fileCases are about the file around the disk strings.
var fileCases = []readCase{
	{name: "empty file", src: ""},
	{name: "only newlines and comments", src: "\n# a\n\n\t# b\n"},
	{name: "no disk key", src: "memory = 512\n"},
	{name: "empty list", src: "disk = []\n"},
	{name: "empty list with newlines", src: "disk = [\n\n]\n"},
	{name: "single quotes", src: "disk = [ 'phy:/x,xvda,w' ]\n", want: x},
	{name: "no blanks at all", src: "disk=['phy:/x,xvda,w']", want: x},
	{name: "tabs", src: "\tdisk\t=\t[\t'phy:/x,xvda,w'\t]\t\n", want: x},
	{name: "trailing comma", src: "disk = [ 'phy:/x,xvda,w', ]\n", want: x},
	{name: "trailing comma and newlines", src: "disk = [ 'phy:/x,xvda,w'\n,\n]\n", want: x},
	{name: "list over lines with comments", src: "disk = [ # first\n 'phy:/x,xvda,w', # the root\n# 'phy:/no,xvdz,w',\n 'phy:/y,xvdb,r'\n]\n", want: []string{"xvda=/x raw rw", "xvdb=/y raw ro"}},
	{name: "list without a newline at the end", src: "memory = 1\ndisk = [ 'phy:/x,xvda,w' ]", want: x},
	{name: "number without a newline at the end", src: "memory = 1"},
	{name: "semicolons", src: "memory = 1; disk = [ 'phy:/x,xvda,w' ];\n", want: x},
	{name: "empty statements", src: ";;\n;memory = 1;;\n"},
	{name: "comment behind a statement", src: "memory = 1 # ok ' \" [\n"},
	{name: "hash in a string", src: "disk = [ 'phy:/x#y,xvda,w' ]\n", want: []string{"xvda=/x#y raw rw"}},
	{name: "carriage return in a comment", src: "# dos\r\nmemory = 1\n"},
	{name: "carriage return in a string", src: "disk = [ 'phy:/x\r,xvda,w' ]\n", want: []string{"xvda=/x\r raw rw"}},
	{name: "UTF-8 in a string and a comment", src: "# ü\ndisk = [ 'phy:/ü,xvda,w' ]\n", want: []string{"xvda=/ü raw rw"}},
	{name: "other quote in a string", src: "disk = [ \"phy:/it's,xvda,w\" ]\n", want: []string{"xvda=/it's raw rw"}},
	{name: "nested list in another key", src: "disk = [ 'phy:/x,xvda,w' ]\nother = [ 'a', [ 'b', [] ], 2 ]\n", want: x},
	{name: "hexadecimal", src: "memory = 0x40\n"},
	{name: "number of digits and letters", src: "maxmem = 0\ncpuid = 12ab\n"},

	// The last = wins, += appends.
	{name: "last disk wins", src: "disk = [ 'phy:/no,xvda,w' ]\ndisk = [ 'phy:/x,xvda,w' ]\n", want: x},
	{name: "dead list is never looked into", src: "disk = [ 'rubbish' ]\ndisk = [ 'phy:/x,xvda,w' ]\n", want: x},
	{name: "dead string before a list", src: "disk = 'rubbish'\ndisk = [ 'phy:/x,xvda,w' ]\n", want: x},
	{name: "append", src: "disk = [ 'phy:/x,xvda,w' ]\ndisk += [ 'phy:/y,xvdb,w' ]\n", want: []string{"xvda=/x raw rw", "xvdb=/y raw rw"}},
	{name: "append to nothing", src: "disk += [ 'phy:/x,xvda,w' ]\n", want: x},
	{name: "append to an empty list", src: "disk = []\ndisk += [ 'phy:/x,xvda,w' ]\n", want: x},
	{name: "append an empty list", src: "disk = [ 'phy:/x,xvda,w' ]\ndisk += [ ]\n", want: x},
	{name: "append, then assign", src: "disk += [ 'phy:/no,xvdb,w' ]\ndisk = [ 'phy:/x,xvda,w' ]\n", want: x},
	{name: "append strings", src: "extra = 'a'\nextra += 'b'\n"},
	{name: "append a string to a list", src: "disk = [ 'phy:/x,xvda,w' ]\ndisk += 'phy:/y,xvdb,w'\n", err: "joins a list and a single value"},
	{name: "append a list to a string, unrelated key", src: "extra = 'a'\nextra += [ 'b' ]\n", err: "joins a list and a single value"},
	{name: "keys that only begin with disk", src: "disk_ = [ 'rubbish' ]\ndisk.x = 'a'\ndisk2 = 1\n"},

	// What xl passes over in silence is refused by us.
	{name: "disk is a string", src: "disk = 'phy:/x,xvda,w'\n", err: "disk is no list", ours: true},
	{name: "disk is a number", src: "disk = 0\n", err: "disk is no list", ours: true},
	{name: "nested list first", src: "disk = [ [ 'phy:/x,xvda,w' ] ]\n", err: "list inside the disk list", ours: true},
	{name: "nested list behind a disk", src: "disk = [ 'phy:/x,xvda,w', [], 'phy:/y,xvdb,w' ]\n", err: "list inside the disk list", ours: true},
	{name: "number in the list", src: "disk = [ 'phy:/x,xvda,w', 5 ]\n", err: "no vdev"},
	{name: "one bad disk of two", src: "disk = [ 'phy:/x,xvda,w', 'rubbish' ]\n", err: "no vdev"},
	{name: "one bad disk of two, appended", src: "disk = [ 'phy:/x,xvda,w' ]\ndisk += [ '/y,xvdb,w' ]\n", err: `unknown format "xvdb"`},
	{name: "same vdev twice", src: "disk = [ 'phy:/x,xvda,w', 'phy:/y,xvda,w' ]\n", err: "disks xvda (line 1) and xvda are one device", ours: true},
	{name: "same device by number", src: "disk = [ 'phy:/x,xvda,w',\n 'phy:/y,51712,w' ]\n", err: "disks xvda (line 1) and 51712 are one device", ours: true},
	{name: "same device in hexadecimal", src: "disk = [ 'phy:/x,xvda,w', 'phy:/y,0xca00,w' ]\n", err: "are one device", ours: true},
	{name: "same device as d0p0", src: "disk = [ 'phy:/x,d0p0,w', 'phy:/y,xvda,w' ]\n", err: "are one device", ours: true},
	{name: "same device over two lists", src: "disk = [ 'phy:/x,hda,w' ]\ndisk += [ 'phy:/y,768,w' ]\n", err: "are one device", ours: true},
	{name: "hda and xvda are two devices", src: "disk = [ 'phy:/x,hda,w', 'phy:/y,xvda,w' ]\n", want: []string{"hda=/x raw rw", "xvda=/y raw rw"}},
	{name: "NUL in a comment", src: "# a\x00b\n", err: "NUL byte in a comment", ours: true},

	// The end of the file.
	{name: "comment without its newline", src: "memory = 1\n# end", err: "comment on the last line without a newline"},
	{name: "comment without its newline, behind a value", src: "memory = 1 # end", err: "comment on the last line"},
	{name: "stray last hash", src: "memory = 1\n#"},
	{name: "stray last carriage return", src: "memory = 1\r"},
	{name: "stray last ^Z", src: "memory = 1\n\x1a"},
	{name: "stray last quote", src: "disk = [ 'phy:/x,xvda,w' ] '", want: x},
	{name: "two stray last bytes", src: "memory = 1\n\x1a\x1a", err: "character 0x1a"},
	{name: "stray byte and newline", src: "memory = 1\n\x1a\n", err: "character 0x1a"},
	{name: "stray byte inside a list", src: "disk = [ 'phy:/x,xvda,w' #", err: "never closed"},
	{name: "list never closed", src: "memory = 1\ndisk = [ 'phy:/x,xvda,w',\nname = 'y'\n", err: "never closed"},
	{name: "list never closed at the end", src: "disk = [ 'phy:/x,xvda,w',\n", err: "never closed"},
	{name: "key at the end", src: "memory", err: "the end of the file where = or += should be"},
	{name: "equals at the end", src: "memory =", err: "no value after ="},

	// Bytes xl has no token for.
	{name: "CRLF", src: "memory = 1\r\ndisk = []\r\n", err: "Windows line end"},
	{name: "lone carriage returns", src: "memory = 1\rmaxmem = 1\r", err: "carriage return"},
	{name: "byte order mark", src: "\xef\xbb\xbfmemory = 1\n", err: "byte order mark"},
	{name: "UTF-16", src: "\xff\xfem\x00e\x00", err: "UTF-16"},
	{name: "no-break space", src: "memory =\u00a01\n", err: "no-break space"},
	{name: "form feed", src: "memory = 1\n\fmaxmem = 1\n", err: "form feed"},
	{name: "NUL", src: "memory = 1\n\x00\n", err: "NUL byte"},
	{name: "NUL in a string", src: "extra = 'a\x00b'\n", err: "NUL byte in a string"},
	{name: "capital key", src: "Memory = 1\n", err: "capital letter in a key"},
	{name: "capital inside a key", src: "maxMem = 1\n", err: "capital letter in a key"},
	{name: "key with a dash", src: "max-mem = 1\n", err: "- in a key"},
	{name: "capital hexadecimal", src: "memory = 0xFF\n", err: "capital letter in a number"},
	{name: "negative number", src: "rtc_timeoffset = -1\n", err: "negative number"},
	{name: "number with a unit", src: "memory = 512m\n", err: `number followed by "m"`},
	{name: "number with a capital unit", src: "memory = 512M\n", err: "capital letter in a number"},
	{name: "True", src: "pae = True\n", err: "True is Python"},
	{name: "true", src: "pae = true\n", err: `unquoted word "true"`},
	{name: "unquoted path", src: "kernel = /boot/vmlinuz\n", err: "looks like an xm Python configuration"},
	{name: "umlaut outside a string", src: "extra = ä\n", err: "non-ASCII"},

	// Python.
	{name: "import", src: "import os\nmemory = 1\n", err: "looks like an xm Python configuration"},
	{name: "def", src: "def f():\n  return 1\n", err: "looks like an xm Python configuration"},
	{name: "if", src: "memory = 1\nif x == 1:\n  memory = 2\n", err: "looks like an xm Python configuration"},
	{name: "sum of strings", src: "disk = [ 'phy:' + '/x,xvda,w' ]\n", err: "looks like an xm Python configuration"},
	{name: "call", src: "name = str('a')\n", err: `unquoted word "str"`},
	{name: "tuple", src: "disk = ( 'phy:/x,xvda,w' )\n", err: "looks like an xm Python configuration"},
	{name: "product", src: "memory = 512*2\n", err: "looks like an xm Python configuration"},
	{name: "format operator", src: "name = 'vm%d' % 3\n", err: "looks like an xm Python configuration"},
	{name: "triple quotes", src: "extra = \"\"\"a\nb\"\"\"\n", err: "looks like an xm Python configuration"},
	{name: "import as a key", src: "import = 1\n"},

	// Statements.
	{name: "newline before the list", src: "disk =\n[ 'phy:/x,xvda,w' ]\n", err: "no value after ="},
	{name: "newline before equals", src: "disk\n= [ 'phy:/x,xvda,w' ]\n", err: "key without a value"},
	{name: "comment before the list", src: "disk = # here\n[ 'phy:/x,xvda,w' ]\n", err: "no value after ="},
	{name: "backslash continuation", src: "disk = \\\n[ 'phy:/x,xvda,w' ]\n", err: "continued with a backslash"},
	{name: "adjacent strings", src: "disk = [ 'phy:/x,' 'xvda,w' ]\n", err: "two strings in a row"},
	{name: "missing comma over lines", src: "disk = [ 'phy:/x,xvda,w'\n'phy:/y,xvdb,w' ]\n", err: "no comma between two list elements"},
	{name: "two commas", src: "disk = [ 'phy:/x,xvda,w',, ]\n", err: "nothing before the comma"},
	{name: "leading comma", src: "disk = [ , 'phy:/x,xvda,w' ]\n", err: "nothing before the comma"},
	{name: "string over two lines", src: "extra = 'a\nb'\n", err: "not closed on its line"},
	{name: "mixed quotes", src: "extra = 'a\"\n", err: "not closed on its line"},
	{name: "two statements on a line", src: "memory = 1 maxmem = 1\n", err: "second statement on one line"},
	{name: "semicolon is no comment", src: "memory = 1 ; the memory\n", err: "= or += should be"},
	{name: "value without a key", src: "'a'\n", err: "a key should be"},
	{name: "stray bracket", src: "]\n", err: "a key should be"},
	{name: "double equals", src: "memory == 1\n", err: "a value should be"},
	{name: "word as a list element", src: "disk = [ none ]\n", err: `unquoted word "none"`},

	// Escapes.
	{name: "escaped quote", src: `disk = [ 'phy:/it\'s,xvda,w' ]` + "\n", want: []string{"xvda=/it's raw rw"}},
	{name: "escaped backslash", src: `disk = [ 'phy:/a\\b,xvda,w' ]` + "\n", want: []string{`xvda=/a\b raw rw`}},
	{name: "escaped letters", src: `extra = "\a\b\f\n\r\t\v"` + "\n"},
	{name: "octal vanishes", src: `disk = [ 'phy:/x,xv\0123da,w' ]` + "\n", want: x},
	{name: "octal of one digit", src: `extra = 'a\0b'` + "\n", err: "too few digits"},
	{name: "octal is read in base ten", src: `disk = [ 'phy:/x,xv\099da,w' ]` + "\n", want: x},
	{name: "octal with blank and sign", src: `disk = [ 'phy:/x,xv\0 1da\7+9,w' ]` + "\n", want: x},
	{name: "octal at the end", src: `disk = [ 'phy:/x,xvda,w\0012' ]` + "\n", want: x},
	{name: "hexadecimal escape", src: `extra = 'a\x41b'` + "\n", err: `\x escapes are refused`},
	{name: "unknown escape", src: `extra = 'C:\qemu'` + "\n", err: `unknown escape \q`},
	{name: "escaped slash", src: `disk = [ 'phy:\/x,xvda,w' ]` + "\n", err: `unknown escape \/`},
	{name: "escaped end of string", src: `extra = 'a\'` + "\n", err: "not closed on its line"},
}
