// Domuswitch shows, stops and starts a Xen domain, and moves its disks in its
// configuration from image files onto block devices. See domuswitch(8).
package main

import (
	"os"

	"xenlvm/lib/cli"
)

func main() { os.Exit(cli.Main(newCommand().tool())) }
