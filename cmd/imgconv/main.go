// Imgconv copies disk images onto logical volumes, block devices or files; a
// second run copies only what changed. Its manual is imgconv.8 in this directory.
package main

import (
	"os"

	"xenlvm/lib/cli"
)

func main() { os.Exit(cli.Main(tool())) }
