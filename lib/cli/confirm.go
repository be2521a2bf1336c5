package cli

import (
	"bufio"
	"fmt"
	"os"
	"strings"

	"golang.org/x/term"

	"xenlvm/lib/fault"
)

// Confirm asks a question at the terminal. Only y or yes agrees. Without a terminal
// nobody can be asked, which is refused.
func (e *Env) Confirm(question string) (bool, error) {
	if f, ok := e.Stdin.(*os.File); !ok || !term.IsTerminal(int(f.Fd())) {
		return false, fault.Refuse("cannot ask: standard input is not a terminal")
	}
	fmt.Fprintf(e.Stderr, "%s: %s [y/N] ", e.Tool, Printable(question))
	line, err := bufio.NewReader(e.Stdin).ReadString('\n')
	if err != nil {
		return false, fault.Refuse("cannot ask: %w", err)
	}
	answer := strings.ToLower(strings.TrimSpace(line))
	return answer == "y" || answer == "yes", nil
}
