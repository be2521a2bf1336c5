package main

import (
	"testing"

	"xenlvm/internal/mantest"
)

func TestManPage(t *testing.T) { mantest.Check(t, newCommand().tool(), "mdmirror.8") }
