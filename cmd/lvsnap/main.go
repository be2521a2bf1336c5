// Lvsnap makes, mounts, lists, watches and removes LVM snapshots. Its manual is
// lvsnap.8 in this directory.
package main

import (
	"os"

	"xenlvm/lib/cli"
)

func main() { os.Exit(cli.Main(tool())) }
