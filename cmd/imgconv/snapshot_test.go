package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"xenlvm/lib/cli"
	"xenlvm/lib/convert"
	"xenlvm/lib/fault"
	"xenlvm/lib/journal"
	"xenlvm/lib/lvm"
	"xenlvm/lib/mapping"
	"xenlvm/lib/run"
	"xenlvm/lib/step"
)

// cramped is a conversion whose plans end in errs, one after the other.
type cramped struct {
	errs    []error
	bases   int
	removed int
}

func (c *cramped) Plan(context.Context) (copying, commit step.Plan, err error) {
	err, c.errs = c.errs[0], c.errs[1:]
	return step.Plan{{What: "copy"}}, nil, err
}

func (c *cramped) GiveUpBases() (step.Plan, error) {
	plan := make(step.Plan, c.bases)
	for i := range plan {
		plan[i] = step.Step{What: "remove the base", Do: func(context.Context) error { c.removed++; return nil }}
	}
	c.bases = 0
	return plan, nil
}

// A base is given up only for want of room, and what is refused behind that is a
// failure: something was touched.
func TestPlanGivesUpBases(t *testing.T) {
	other, noRoom := fault.Refuse("it exists"), lvm.NoRoom(fault.Refuse("the group is full"))
	for _, c := range []struct {
		what    string
		errs    []error
		bases   int
		dry     bool
		removed int
		want    fault.Status
	}{
		{"room", []error{nil}, 1, false, 0, fault.Done},
		{"another refusal", []error{other}, 1, false, 0, fault.Refused},
		{"no room, and no base", []error{noRoom}, 0, false, 0, fault.Refused},
		{"no room, a dry run", []error{noRoom}, 1, true, 0, fault.Refused},
		{"room without the base", []error{noRoom, nil}, 1, false, 1, fault.Done},
		{"no room without the base", []error{noRoom, noRoom}, 1, false, 1, fault.Failed},
		{"another refusal without the base", []error{noRoom, other}, 1, false, 1, fault.Failed},
	} {
		var said bytes.Buffer
		p := &cramped{errs: c.errs, bases: c.bases}
		copying, _, err := planIn(t.Context(), &cli.Env{Tool: "imgconv", Stderr: &said, Stdout: &said, DryRun: c.dry}, p)
		if fault.StatusOf(err) != c.want || p.removed != c.removed || err == nil && len(copying) == 0 {
			t.Errorf("%s: %v, %d removed; want status %d, %d removed", c.what, err, p.removed, c.want, c.removed)
		}
		if told := strings.Contains(said.String(), "the group is full: removing the base of the last pass"); told != (c.removed > 0) {
			t.Errorf("%s: said %s", c.what, &said)
		}
		if len(p.errs) > 0 || errors.Is(err, lvm.ErrNoRoom) && !strings.Contains(err.Error(), "the group is full") {
			t.Errorf("%s: %v, not planned: %v", c.what, err, p.errs)
		}
	}
}

// volumes answers lvs, and remembers the changes.
type volumes struct {
	rows string // JSON
	made []string
}

func (v *volumes) Run(_ context.Context, c run.Cmd) (run.Result, error) {
	if c.Effect == run.Change {
		v.made = append(v.made, c.Line())
		v.rows = ""
	}
	return run.Result{Stdout: []byte(`{"report":[{"lv":[` + v.rows + `]}]}`)}, nil
}

// A base that no disk can use any more goes in the same run, and the result says that
// something changed.
func TestBaseWithoutDisks(t *testing.T) {
	for rows, want := range map[string]string{
		"": "imgconv: nothing to do: vm3 has no disk on an image file\n",
		`{"vg_name":"vg0","lv_name":"images-base-vm3","lv_uuid":"u","origin":"images","segtype":"linear","lv_tags":"xenlvm.snapshot,xenlvm.base,xenlvm.domain.vm3"}`: "nothing to do but to remove the base of the last pass: vm3 has no disk on an image file\n",
	} {
		var said bytes.Buffer
		v := &volumes{rows: rows}
		e := &cli.Env{Tool: "imgconv", Stderr: &said, Stdout: &said, Runner: v}
		j, err := journal.Open(t.TempDir(), "vm3", "imgconv")
		must(t, err)
		c := &convert.Conversion{}
		must(t, dropUnneeded(t.Context(), e, j, c))
		if !strings.HasSuffix(said.String(), want) {
			t.Errorf("said %s; want %s", &said, want)
		}
		removed := slices.Equal(v.made, []string{"lvremove --yes vg0/images-base-vm3"})
		object, _ := json.Marshal(result(c, mapping.Copied, nil, 0))
		if changed := strings.Contains(string(object), `"changed":true`); removed != (rows != "") || changed != removed {
			t.Errorf("changes: %q: %s", v.made, object)
		}
	}
}
