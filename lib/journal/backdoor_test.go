package journal

import (
	"encoding/json"
	"testing"
)

// An image is half-written from the intent until the end of the same image's replay.
func TestHalfWritten(t *testing.T) {
	record := func(kind, path string) Record {
		data, err := json.Marshal(BackDoor{VDev: "xvda", Image: Image{Path: path}})
		if err != nil {
			t.Fatal(err)
		}
		return Record{Kind: kind, Data: data}
	}
	for name, c := range map[string]struct {
		records []Record
		half    bool
	}{
		"none":          {nil, false},
		"made":          {[]Record{record(KindBackDoor, "/i")}, false},
		"begun":         {[]Record{record(KindReplaying, "/i")}, true},
		"ended":         {[]Record{record(KindReplaying, "/i"), record(KindReplayed, "/i")}, false},
		"another ended": {[]Record{record(KindReplaying, "/i"), record(KindReplayed, "/j")}, true},
		"begun again":   {[]Record{record(KindReplaying, "/i"), record(KindReplayed, "/i"), record(KindReplaying, "/i")}, true},
	} {
		if b, half := HalfWritten(c.records)["/i"]; half != c.half || half && b.VDev != "xvda" {
			t.Errorf("%s: %t, %+v", name, half, b)
		}
	}
}
