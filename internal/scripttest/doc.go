// Package scripttest runs scripts/image-to-lv with programs that stand in for
// ours, under every shell there is, and interrupts it everywhere. It is all tests.
package scripttest
