// Mdmirror mirrors the disks of a domain onto logical volumes while it writes to
// them. Its manual is mdmirror.8 in this directory.
package main

import (
	"os"

	"xenlvm/lib/cli"
)

func main() { os.Exit(cli.Main(newCommand().tool())) }
