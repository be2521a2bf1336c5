package md

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// FuzzStatus holds of whatever the attributes of an array may say: it is refused, or
// no count is negative, and only a member that says in_sync and not faulty is in sync.
func FuzzStatus(f *testing.F) {
	f.Add("recover", "clean", "96 / 98304", "0", "1000 (system)", "in_sync", "0")
	f.Add("check", "read-auto", "none", "128", "0", "faulty,write_error", "none")
	a := fake(f, nil)
	member := a.attribute("dev-loop1")
	if err := os.MkdirAll(member, 0o755); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, action, state, completed, mismatches, speed, memberState, slot string) {
		for path, text := range map[string]string{
			a.attribute("sync_action"): action, a.attribute("array_state"): state, a.attribute("sync_completed"): completed,
			a.attribute("mismatch_cnt"): mismatches, a.attribute("sync_speed"): speed,
			filepath.Join(member, "state"): memberState, filepath.Join(member, "slot"): slot,
		} {
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		s, err := a.Status()
		if err != nil {
			return
		}
		if s.Done < 0 || s.Total < 0 || s.Speed < 0 || s.Mismatches < 0 || len(s.Members) != 1 {
			t.Errorf("%+v", s)
		}
		if m := s.Members[0]; m.InSync() && (!strings.Contains(memberState, "in_sync") || m.Faulty()) {
			t.Errorf("%q counts as in sync", memberState)
		}
		if differ, err := a.Checked(); err == nil && (differ < 0 || (differ == 0) != (s.Mismatches == 0)) {
			t.Errorf("%q: %d bytes differ", mismatches, differ)
		}
	})
}
