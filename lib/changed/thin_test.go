package changed

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"xenlvm/lib/extent"
	"xenlvm/lib/fault"
	"xenlvm/lib/run"
)

// deltaXML is in the form of thin_delta 0.9.0.
const deltaXML = `<superblock uuid="" time="1" transaction="2" data_block_size="128" nr_data_blocks="8192" metadata_snap="11">
  <diff left="2" right="1">
    <same begin="0" length="16"/>
    <different begin="16" length="2"/>
    <same begin="18" length="3"/>
    <left_only begin="21" length="1"/>
    <right_only begin="40" length="4"/>
  </diff>
</superblock>
`

func TestThinDelta(t *testing.T) {
	const block = 64 << 10
	want := extent.Of(extent.Range{Off: 16 * block, Len: 2 * block}, extent.Range{Off: 21 * block, Len: block}, extent.Range{Off: 40 * block, Len: 3 * block})
	got, err := ThinDelta(strings.NewReader(deltaXML), 43*block)
	if err != nil || !got.Equal(want) {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
	nothing := `<superblock data_block_size="128"><diff left="1" right="2"></diff></superblock>`
	if got, err := ThinDelta(strings.NewReader(nothing), block); err != nil || !got.Empty() {
		t.Errorf("nothing: %v, %v", got, err)
	}
}

func TestBadThinDelta(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":          "",
		"no comparison":    `<superblock data_block_size="128"></superblock>`,
		"cut":              deltaXML[:strings.Index(deltaXML, "<left_only")],
		"cut in a word":    deltaXML[:len(deltaXML)-10],
		"no size":          strings.Replace(deltaXML, "data_block_size", "size", 1),
		"no blocks":        strings.Replace(deltaXML, `"128"`, `"0"`, 1),
		"odd blocks":       strings.Replace(deltaXML, `"128"`, `"127"`, 1),
		"huge blocks":      strings.Replace(deltaXML, `"128"`, `"4194304"`, 1),
		"outside":          `<diff left="1" right="2"><same begin="0" length="1"/></diff>`,
		"negative":         strings.Replace(deltaXML, `begin="40"`, `begin="-1"`, 1),
		"too far":          strings.Replace(deltaXML, `begin="40"`, `begin="9223372036854775807"`, 1),
		"too long":         strings.Replace(deltaXML, `length="4"`, `length="9223372036854775807"`, 1),
		"no length":        strings.Replace(deltaXML, ` length="4"`, ``, 1),
		"an unknown thing": strings.Replace(deltaXML, "<right_only", "<moved", 1),
		"no XML":           "Metadata snapshot not found",
	} {
		if got, err := ThinDelta(strings.NewReader(text), 1<<30); err == nil {
			t.Errorf("%s: got %v", name, got)
		}
	}
}

// scripted answers commands by their last word but one, and remembers them.
type scripted struct {
	calls []string
	fail  string // the command whose line has this fails
	after func() // is called after thin_delta
}

func (s *scripted) Run(ctx context.Context, c run.Cmd) (run.Result, error) {
	if ctx.Err() != nil {
		return run.Result{}, ctx.Err()
	}
	s.calls = append(s.calls, c.Line())
	if s.fail != "" && strings.Contains(c.Line(), s.fail) {
		return run.Result{}, errors.New("it failed")
	}
	if c.Name == "thin_delta" && s.after != nil {
		s.after()
	}
	return run.Result{Stdout: []byte(deltaXML)}, nil
}

// TestMetadataAreReleased whatever happens in between.
func TestMetadataAreReleased(t *testing.T) {
	d := delta{pool: "/dev/mapper/vg0-pool-tpool", metadata: "/dev/dm-3", left: 2, right: 1, size: 1 << 30}
	all := []string{
		"dmsetup message /dev/mapper/vg0-pool-tpool 0 reserve_metadata_snap",
		"thin_delta -m --snap1 2 --snap2 1 /dev/dm-3",
		"dmsetup message /dev/mapper/vg0-pool-tpool 0 release_metadata_snap",
	}
	ctx, cancel := context.WithCancel(t.Context())
	for name, c := range map[string]struct {
		ctx    context.Context
		s      scripted
		calls  []string
		status fault.Status
	}{
		"all goes well":       {t.Context(), scripted{}, all, fault.Done},
		"reserving fails":     {t.Context(), scripted{fail: "reserve"}, all[:1], fault.Failed},
		"thin_delta fails":    {t.Context(), scripted{fail: "thin_delta"}, all, fault.Failed},
		"releasing fails":     {t.Context(), scripted{fail: "release"}, all, fault.Left},
		"interrupted in time": {ctx, scripted{after: cancel}, all, fault.Done},
	} {
		set, err := d.run(c.ctx, &c.s)
		if fault.StatusOf(err) != c.status || !slices.Equal(c.s.calls, c.calls) {
			t.Errorf("%s: %v, ran %q", name, err, c.s.calls)
		}
		if err == nil && set.Bytes() != 7*64<<10 {
			t.Errorf("%s: got %d bytes", name, set.Bytes())
		}
	}
}
