// Package archtest holds the code to the house that ARCHITECTURE.md draws. It is
// all tests.
package archtest
