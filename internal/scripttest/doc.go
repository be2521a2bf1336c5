// Package scripttest runs scripts/image-to-lv under every shell that Debian has
// as /bin/sh, with stand-ins for imgconv and domuswitch that fail, are
// interrupted or hang up the terminal where a test says so.
package scripttest
