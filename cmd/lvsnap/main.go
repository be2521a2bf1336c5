// Lvsnap makes, mounts, lists, watches and removes LVM snapshots, and tells what
// changed since they were taken. Its manual is lvsnap.8 in this directory.
package main

import (
	"os"

	"xenlvm/lib/cli"
)

func main() { os.Exit(cli.Main(tool())) }
