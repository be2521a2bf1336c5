package lvm

import (
	"context"
	"errors"
	"testing"

	"xenlvm/lib/run"
	"xenlvm/lib/units"
)

func TestParsePool(t *testing.T) {
	// dmsetup status of pools with chunks of 64 KiB.
	for _, tt := range []struct {
		status string
		want   Pool
		room   units.Bytes
		full   bool
	}{
		{"0 2097152 thin-pool 1 128/1024 1638/16384 - rw discard_passdown queue_if_no_space - 1024", Pool{Usage{1638 << 16, 1 << 30}, Usage{128 << 12, 4 << 20}}, (1<<30)/100*95 - 1638<<16, false},
		{"0 2097152 thin-pool 1 128/1024 15600/16384 - rw no_discard_passdown error_if_no_space - 1024", Pool{Usage{15600 << 16, 1 << 30}, Usage{128 << 12, 4 << 20}}, 0, false},
		{"0 2097152 thin-pool 1 769/1024 10/16384 - rw discard_passdown queue_if_no_space - 1024", Pool{Usage{10 << 16, 1 << 30}, Usage{769 << 12, 4 << 20}}, 0, false},
		{"0 2097152 thin-pool 1 128/1024 16384/16384 - out_of_data_space discard_passdown queue_if_no_space - 1024", Pool{Usage{1 << 30, 1 << 30}, Usage{128 << 12, 4 << 20}}, 0, true},
		{"0 2097152 thin-pool 1 128/1024 10/16384 - ro discard_passdown queue_if_no_space needs_check 1024", Pool{Usage{10 << 16, 1 << 30}, Usage{128 << 12, 4 << 20}}, (1<<30)/100*95 - 10<<16, true},
		{"0 2097152 thin-pool Fail", Pool{}, 0, true},
		{"0 2097152 thin-pool Error", Pool{}, 0, true},
	} {
		got, err := ParsePool(tt.status)
		if got != tt.want || got.Room() != tt.room || errors.Is(err, ErrPoolFull) != tt.full || (err != nil) != tt.full {
			t.Errorf("ParsePool(%q) = %+v with room for %d, %v; want %+v, %d, full %v", tt.status, got, got.Room(), err, tt.want, tt.room, tt.full)
		}
	}
	for _, in := range []string{"", "0 1 linear 252:3 0", "0 1 thin-pool 1 x 1/2 - rw", "0 1 thin-pool 1 1/2 0/0 - rw", "x 1 thin-pool 1 1/2 1 - rw",
		"0 2097152 thin-pool 1 1/2 16385/16384 - rw", "0 -2097152 thin-pool 1 1/2 1/2 - rw", "0 1 thin-pool 1 1/2 0/16384 - rw"} {
		if p, err := ParsePool(in); err == nil || errors.Is(err, ErrPoolFull) {
			t.Errorf("ParsePool(%q) = %+v, %v; want an error that does not say full", in, p, err)
		}
	}
}

// Of large metadata, 4 MiB must be free, of small a quarter.
func TestMetadataLow(t *testing.T) {
	for _, tt := range []struct {
		used, size units.Bytes
		low        bool
	}{{3 << 20, 4 << 20, false}, {3<<20 + 4096, 4 << 20, true}, {1<<30 - 4<<20, 1 << 30, false}, {1<<30 - 4<<20 + 4096, 1 << 30, true}} {
		if p := (Pool{Metadata: Usage{tt.used, tt.size}}); p.MetadataLow() != tt.low {
			t.Errorf("%d of %d bytes used: low %v; want %v", tt.used, tt.size, p.MetadataLow(), tt.low)
		}
	}
}

// answer is a Runner that answers all that is asked.
type answer string

func (a answer) Run(context.Context, run.Cmd) (run.Result, error) {
	return run.Result{Stdout: []byte(a)}, nil
}

func TestFindPool(t *testing.T) {
	row := func(s string) answer { return answer(`{"report":[{"lv":[` + s + `]}]}`) }
	got, err := FindPool(t.Context(), row(`{"lv_size":"1000", "data_percent":"4.80", "lv_metadata_size":"4194304", "metadata_percent":"25.00"}`), "vg0", "pool")
	if want := (Pool{Usage{48, 1000}, Usage{1 << 20, 4 << 20}}); err != nil || got != want {
		t.Errorf("FindPool = %+v, %v; want %+v", got, err, want)
	}
	for name, a := range map[string]answer{
		"none":             row(""),
		"inactive":         row(`{"lv_size":"1000", "data_percent":"", "lv_metadata_size":"4194304", "metadata_percent":""}`),
		"not a number":     row(`{"lv_size":"1000", "data_percent":"NaN", "lv_metadata_size":"4194304", "metadata_percent":"25.00"}`),
		"more than all":    row(`{"lv_size":"1000", "data_percent":"4.80", "lv_metadata_size":"4194304", "metadata_percent":"100.01"}`),
		"without metadata": row(`{"lv_size":"1000", "data_percent":"4.80", "lv_metadata_size":"", "metadata_percent":"25.00"}`),
	} {
		if p, err := FindPool(t.Context(), a, "vg0", "pool"); err == nil {
			t.Errorf("%s: FindPool = %+v; want an error", name, p)
		}
	}
}
