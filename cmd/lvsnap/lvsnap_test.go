package main

import (
	"testing"

	"xenlvm/internal/mantest"
)

func TestManPage(t *testing.T) { mantest.Check(t, tool(), "lvsnap.8") }
