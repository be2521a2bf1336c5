package record

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// build returns the bytes of a log of n records that were acknowledged one by one, and the offset of each.
func build(n, size int) (log []byte, offsets []int) {
	var sum uint64
	for i := range n {
		offsets = append(offsets, len(log))
		log, sum = Append(log, Record{Number: uint64(i + 1), Durable: uint64(i), Time: 1700000000000000000, Boot: 3, Prev: sum, Size: size})
	}
	return log, append(offsets, len(log))
}

func verify(t *testing.T, log []byte) Report {
	t.Helper()
	rep, err := Verify(bytes.NewReader(log), int64(len(log)))
	if err != nil {
		t.Fatal(err)
	}
	return rep
}

func TestRoundTrip(t *testing.T) {
	path := filepath.Join(t.TempDir(), "records.log")
	var rep Report
	for boot := range uint64(3) {
		l, err := Open(path, rep, boot+1, 100)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range []int{1, 7, 1} {
			first, last, err := l.Commit(n, 1)
			if err != nil {
				t.Fatal(err)
			}
			if int(last-first)+1 != n || last != l.Last() {
				t.Fatalf("Commit(%d) acknowledged %d-%d, Last %d", n, first, last, l.Last())
			}
		}
		if live, err := l.Verify(); err != nil || live.Last != 9*(boot+1) {
			t.Fatalf("live verify: %v, %v", live, err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if rep, err = VerifyFile(path); err != nil {
			t.Fatal(err)
		}
		want := 9 * (boot + 1)
		if rep.Records != want || rep.Last != want || rep.Boot != boot+1 || rep.Reason != "" || rep.Lost(want) != 0 {
			t.Fatalf("boot %d: %+v", boot+1, rep)
		}
		if rep.Lost(want+5) != 5 {
			t.Errorf("5 records acknowledged elsewhere are not missed: %d", rep.Lost(want+5))
		}
	}
}

func TestMissingLogIsEmpty(t *testing.T) {
	rep, err := VerifyFile(filepath.Join(t.TempDir(), "none"))
	if err != nil || rep != (Report{}) {
		t.Fatalf("%+v, %v", rep, err)
	}
	if rep.Lost(4) != 4 {
		t.Errorf("a vanished log of 4 acknowledged records lost %d", rep.Lost(4))
	}
}

// Every single flipped bit of every byte must end the intact part at exactly the record that holds it.
func TestFlippedBitAnywhere(t *testing.T) {
	const n = 6
	log, offsets := build(n, 37)
	for at := range log {
		hit := slices.IndexFunc(offsets, func(o int) bool { return o > at }) - 1
		for bit := range 8 {
			bad := slices.Clone(log)
			bad[at] ^= 1 << bit
			rep := verify(t, bad)
			if int(rep.Last) != hit || rep.Reason == "" {
				t.Fatalf("bit %d of byte %d, in record %d: %+v", bit, at, hit+1, rep)
			}
			if rep.Lost(n) != 1 {
				t.Fatalf("byte %d: lost %d of one damaged acknowledged record", at, rep.Lost(n))
			}
			// Without outside knowledge the last record is a torn tail; every other is proven by the one behind it.
			want := uint64(1)
			if hit == n-1 {
				want = 0
			}
			if rep.Lost(0) != want {
				t.Fatalf("byte %d in record %d: lost %d without outside knowledge, want %d", at, hit+1, rep.Lost(0), want)
			}
		}
	}
}

func TestCutAnywhereIsATornTail(t *testing.T) {
	log, offsets := build(5, 37)
	for cut := range log {
		rep := verify(t, log[:cut])
		whole := slices.IndexFunc(offsets, func(o int) bool { return o > cut }) - 1
		if int(rep.Last) != whole || rep.Bytes != int64(offsets[whole]) || rep.Lost(uint64(whole)) != 0 {
			t.Fatalf("cut at %d: %+v", cut, rep)
		}
		if rep.Lost(5) != uint64(5-whole) {
			t.Fatalf("cut at %d: lost %d of %d", cut, rep.Lost(5), 5-whole)
		}
	}
}

func TestDamage(t *testing.T) {
	log, o := build(8, 64)
	rec := func(i int) []byte { return log[o[i-1]:o[i]] }
	other, _ := Append(nil, Record{Number: 4, Durable: 3, Time: 99, Boot: 9, Prev: 12345, Size: 64})
	tests := []struct {
		name  string
		log   []byte
		last  uint64
		lost0 uint64 // without outside knowledge
		lost8 uint64 // with 8 known acknowledged
	}{
		{"record 4 missing", slices.Concat(log[:o[3]], log[o[4]:]), 3, 1, 1},
		{"4 and 5 swapped", slices.Concat(log[:o[3]], rec(5), rec(4), log[o[5]:]), 3, 1, 1},
		{"record 3 twice", slices.Concat(log[:o[3]], rec(3), log[o[3]:]), 3, 1, 1},
		{"record 4 of another history", slices.Concat(log[:o[3]], other, log[o[4]:]), 3, 1, 1},
		{"3 to 6 zeroed", slices.Concat(log[:o[2]], make([]byte, o[6]-o[2]), log[o[6]:]), 2, 3, 4},
		{"first missing", log[o[1]:], 0, 1, 1},
		{"all zero", make([]byte, len(log)), 0, 0, 8},
		{"zeros behind", slices.Concat(log, make([]byte, 300)), 8, 0, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			rep := verify(t, tt.log)
			if rep.Last != tt.last || rep.Lost(0) != tt.lost0 || rep.Lost(8) != tt.lost8 {
				t.Errorf("last %d, lost %d and %d, want %d, %d, %d: %v", rep.Last, rep.Lost(0), rep.Lost(8), tt.last, tt.lost0, tt.lost8, rep)
			}
			if rep.Reason == "" {
				t.Error("no reason given")
			}
		})
	}
}

// A batch that never was acknowledged may reach the disk in any order.
func TestHalfWrittenBatchIsNoLoss(t *testing.T) {
	var log []byte
	var sum uint64
	for i := range uint64(6) {
		durable := min(i, 3) // 4, 5 and 6 are one batch
		log, sum = Append(log, Record{Number: i + 1, Durable: durable, Prev: sum, Size: 16})
	}
	clear(log[4*72 : 5*72])
	rep := verify(t, log)
	if rep.Last != 4 || rep.After != 1 || rep.Lost(3) != 0 || rep.Lost(5) != 1 {
		t.Errorf("%+v", rep)
	}
}

// The search behind a bad spot must not miss a record that spans its read windows.
func TestSearchAcrossWindows(t *testing.T) {
	log, _ := build(9, MaxPayload)
	log[10] ^= 1
	if rep := verify(t, log); rep.After != 8 || rep.Durable != 8 {
		t.Errorf("%+v", rep)
	}
}

func TestTornTailIsCutOff(t *testing.T) {
	path := filepath.Join(t.TempDir(), "records.log")
	log, o := build(4, 64)
	if err := os.WriteFile(path, log[:o[3]+20], 0o644); err != nil {
		t.Fatal(err)
	}
	rep, err := VerifyFile(path)
	if err != nil || rep.Last != 3 || rep.Tail != 20 {
		t.Fatalf("%+v, %v", rep, err)
	}
	l, err := Open(path, rep, 4, 64)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, last, err := l.Commit(2, 1); err != nil || last != 5 {
		t.Fatalf("last %d, %v", last, err)
	}
	if rep, err := VerifyFile(path); err != nil || rep.Last != 5 || rep.Reason != "" || rep.Boot != 4 {
		t.Errorf("%+v, %v", rep, err)
	}
}

// A closed file stands for a disk that fails: nothing may be acknowledged any more.
func TestErrorIsNeverAcknowledged(t *testing.T) {
	l, err := Open(filepath.Join(t.TempDir(), "records.log"), Report{}, 1, 8)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	for range 2 {
		if first, last, err := l.Commit(1, 1); err == nil || first != 0 || last != 0 {
			t.Fatalf("acknowledged %d-%d, %v", first, last, err)
		}
	}
	if l.Last() != 0 {
		t.Errorf("Last = %d", l.Last())
	}
}

func TestOpenRefusesPayload(t *testing.T) {
	for _, size := range []int{-1, MaxPayload + 1} {
		if l, err := Open(filepath.Join(t.TempDir(), "x"), Report{}, 1, size); err == nil {
			l.Close()
			t.Errorf("size %d accepted", size)
		}
	}
}
