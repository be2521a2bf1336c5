package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"xenlvm/lib/blkdev"
	"xenlvm/lib/blockcopy"
	"xenlvm/lib/cli"
	"xenlvm/lib/extent"
	"xenlvm/lib/fault"
	"xenlvm/lib/loopdev"
	"xenlvm/lib/run"
)

// An interrupted copy onto a volume goes on as long as the volume has its tag.
func TestRootResumeVolume(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	image := noise(t, dir+"/a.img", 24<<20)
	from := attach(t, dir+"/a.img", loopdev.Options{ReadOnly: true})
	must(t, os.WriteFile(dir+"/b.img", make([]byte, len(image)), 0o600))
	loop := attach(t, dir+"/b.img", loopdev.Options{})
	dev, err := blkdev.Stat(loop)
	must(t, err)
	o := options{stateDir: t.TempDir()}
	e := &cli.Env{Tool: "imgconv", Stderr: io.Discard, Runner: run.Host{}}
	attempt := func(ctx context.Context, tags string, rate int64) (outcome, error) {
		t.Helper()
		src := openImage(t, from)
		fakeHost(t, fmt.Sprintf(`{"devices": {%q: {"lv": "vg0/b", "uuid": "u", "major": %d, "minor": %d, "tags": [%s]}}}`, loop, dev.Number.Major, dev.Number.Minor, tags))
		to, err := openTarget(loop, src, false)
		must(t, err)
		defer to.close()
		must(t, to.findVolume(ctx, run.Host{}))
		done, err := o.copyPlain(ctx, e, src, to, rate)
		return done, err
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		for {
			left, _ := filepath.Glob(o.stateDir + "/imgconv-*.digests")
			for _, name := range left {
				if info, err := os.Stat(name); err == nil && info.Size() > 1<<10 { // not only begun
					cancel(fault.ErrInterrupted)
					return
				}
			}
			time.Sleep(50 * time.Millisecond)
		}
	}()
	if _, err := attempt(ctx, "", 6<<20); !errors.Is(err, fault.ErrInterrupted) {
		t.Fatalf("%v; want an interruption", err)
	}
	if _, err := attempt(t.Context(), "", 0); fault.StatusOf(err) != fault.Refused {
		t.Errorf("without the tag: %v; want a refusal", err)
	}
	done, err := attempt(t.Context(), `"xenlvm.incomplete"`, 0)
	if err != nil || !done.resumed || done.BytesWritten == 0 || done.BytesWritten >= int64(len(image)) {
		t.Errorf("%v, %+v; want the rest", err, done)
	}
	if b, err := os.ReadFile(dir + "/b.img"); err != nil || !bytes.Equal(b, image) {
		t.Errorf("not equal, %v", err)
	}
	if left, _ := os.ReadDir(o.stateDir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// What is damaged, or about something else, is not believed.
func TestProgressOfAnother(t *testing.T) {
	dir := t.TempDir()
	noise(t, dir+"/a.img", 1<<20)
	noise(t, dir+"/b.img", 1<<20)
	src := openImage(t, dir+"/a.img")
	to, err := openTarget(dir+"/b.img", src, false)
	must(t, err)
	defer to.close()
	o := options{stateDir: t.TempDir()}
	p, err := o.newProgress(src, to)
	must(t, err)
	if p == nil {
		t.Skip("the file system of " + dir + " does not say when a file was made")
	}
	sums, err := blockcopy.Scan(t.Context(), to.f, src.Size(), blockcopy.Options{})
	must(t, err)
	var said bytes.Buffer
	load := func() (found, same bool) {
		said.Reset()
		was := p.load(&cli.Env{Tool: "imgconv", Stderr: &said})
		return was != nil && was.done != nil, was != nil && was.same
	}
	if found, _ := load(); found || said.Len() > 0 {
		t.Errorf("nothing is there: %v, %s", found, &said)
	}
	must(t, p.save(sums))
	if found, same := load(); !found || !same {
		t.Errorf("its own: %v, same %v: %s", found, same, &said)
	}
	text, err := os.ReadFile(p.path)
	must(t, err)
	for what, damaged := range map[string][]byte{
		"a flipped bit": append(append(bytes.Clone(text[:len(text)/2]), text[len(text)/2]^1), text[len(text)/2+1:]...),
		"cut":           text[:len(text)-1], "no line": []byte("digests"), "empty": nil,
	} {
		must(t, os.WriteFile(p.path, damaged, 0o600))
		if found, _ := load(); found || !strings.Contains(said.String(), "cannot continue an earlier copy: "+p.path) {
			t.Errorf("%s: %v, %s", what, found, &said)
		}
	}
	must(t, os.WriteFile(p.path, text, 0o600))
	was := p.ends
	p.ends.State = "0 bytes"
	if found, same := load(); !found || same {
		t.Errorf("the source was written to: %v, same %v", found, same)
	}
	for _, other := range []ends{{"file 1/2", was.State, was.Destination}, {was.Source, was.State, "volume u"}} {
		p.ends = other
		if found, _ := load(); found || said.Len() > 0 {
			t.Errorf("%v: found, %s", other, &said)
		}
	}
}

// What is known of one copy is forgotten before another one writes there.
func TestProgressIsForgotten(t *testing.T) {
	dir := t.TempDir()
	noise(t, dir+"/a.img", 1<<20)
	noise(t, dir+"/other.img", 1<<20)
	noise(t, dir+"/b.img", 1<<20)
	o := options{stateDir: t.TempDir(), overwrite: true}
	attempt := func(from string, do func(*progress, *source, *target)) {
		t.Helper()
		src := openImage(t, from)
		to, err := openTarget(dir+"/b.img", src, false)
		must(t, err)
		defer to.close()
		p, err := o.newProgress(src, to)
		must(t, err)
		if p == nil {
			t.Skip("the file system of " + dir + " does not say when a file was made")
		}
		do(p, src, to)
	}
	attempt(dir+"/a.img", func(p *progress, src *source, to *target) {
		sums, err := blockcopy.Scan(t.Context(), to.f, src.Size(), blockcopy.Options{})
		must(t, errors.Join(err, p.save(sums)))
	})
	attempt(dir+"/other.img", func(p *progress, src *source, to *target) {
		e := &cli.Env{Tool: "imgconv", Stderr: io.Discard, Runner: run.Host{}}
		ctx, cancel := context.WithCancel(t.Context())
		disturb(src, func() {
			if to.written {
				cancel()
			}
		})
		if done, err := o.copyPlain(ctx, e, src, to, 0); err == nil || done.resumed {
			t.Errorf("%v, %+v; want an interruption", err, done)
		}
		if was := p.load(e); was == nil || was.done != nil {
			t.Errorf("%+v; want only that it has begun", was)
		}
	})
}

// A copy that was killed before anything was known of it begins anew by itself, where
// nothing but its own can be lost. One that turns out to be complete is forgotten.
func TestBegunOnly(t *testing.T) {
	dir := t.TempDir()
	image := noise(t, dir+"/a.img", 24<<20)
	half := make([]byte, len(image))
	copy(half[300<<10:], image[300<<10:400<<10+512]) // half a chunk, half a page
	for what, c := range map[string]struct {
		there []byte
		at    int // of a byte that is neither's, 0: nowhere
		want  fault.Status
	}{
		"half": {there: half}, "all": {there: image}, "nothing": {there: make([]byte, len(image))},
		"other data in its middle": {half, 13<<20 + 700, fault.Refused},
		"other data at its begin":  {half, 1000, fault.Refused}, "other data at its end": {half, len(image) - 1, fault.Refused},
		"other data": {noise(t, dir+"/other.img", len(image)), 0, fault.Refused},
	} {
		path := dir + "/b.img"
		there := bytes.Clone(c.there)
		if c.at > 0 {
			there[c.at] = image[c.at] ^ 1
		}
		must(t, os.WriteFile(path, there, 0o600))
		src := openImage(t, dir+"/a.img")
		to, err := openTarget(path, src, false)
		must(t, err)
		o := options{stateDir: t.TempDir()}
		p, err := o.newProgress(src, to)
		must(t, err)
		if p == nil {
			t.Skip("the file system of " + dir + " does not say when a file was made")
		}
		must(t, p.save(nil))
		_, err = o.copyPlain(t.Context(), &cli.Env{Tool: "imgconv", Stderr: io.Discard, Runner: run.Host{}}, src, to, 0)
		if fault.StatusOf(err) != c.want {
			t.Errorf("%s: %v; want status %d", what, err, c.want)
		}
		want := image
		if c.want != fault.Done {
			want = there
		}
		if b, err := os.ReadFile(path); err != nil || !bytes.Equal(b, want) {
			t.Errorf("%s: the destination is not what it should be, %v", what, err)
		}
		if left, _ := os.ReadDir(o.stateDir); c.want == fault.Done && len(left) > 0 {
			t.Errorf("%s: left: %v", what, left)
		}
		must(t, to.close())
	}
}

// A source is another one as soon as it was written to, or other parts of it are
// copied; a destination when it was made anew under its name.
func TestIdentity(t *testing.T) {
	path := t.TempDir() + "/a.img"
	noise(t, path, 1<<20)
	src := openImage(t, path)
	from, state := src.identity()
	check := func(what string, s *source, same bool) {
		t.Helper()
		if f, st := s.identity(); f != from || st == state != same {
			t.Errorf("%s: %s, %s; the first: %s, %s", what, f, st, from, state)
		}
	}
	check("opened again", openImage(t, path), true)
	must(t, os.Chtimes(path, time.Time{}, time.Unix(1, 0)))
	check("written to", openImage(t, path), false)
	src.used = src.used.Subtract(src.used)
	check("other parts", src, false)
	made := func() string {
		to, err := openTarget(path+".to", src, false)
		must(t, err)
		defer to.close()
		id, err := to.identity()
		must(t, err)
		return id
	}
	one := made()
	if two := made(); two != one {
		t.Errorf("%s became %s", one, two)
	}
	must(t, os.Remove(partial(path+".to")))
	if two := made(); one != "" && two == one {
		t.Error("made anew")
	}
}

// What of a new file is worth keeping after an error stays, with what is known of it.
func TestStays(t *testing.T) {
	dir := t.TempDir()
	noise(t, dir+"/a.img", 1<<20)
	src := openImage(t, dir+"/a.img")
	for _, c := range []struct {
		err   error
		known bool // how far it is
		want  fault.Status
		stays bool
	}{
		{fault.ErrInterrupted, true, fault.Interrupted, true},
		{fault.ErrInterrupted, false, fault.Interrupted, false},
		{fmt.Errorf("cannot read source at 0: %w", unix.EIO), true, fault.Left, true},
		{fmt.Errorf("cannot write destination at 0: %w", unix.ENOSPC), true, fault.Failed, false},
		{fault.With(fault.Mismatch, errors.New("destination differs")), true, fault.Mismatch, false},
	} {
		to, err := openTarget(dir+"/b.img", src, false)
		must(t, err)
		o := options{stateDir: t.TempDir()}
		to.progress, err = o.newProgress(src, to)
		must(t, err)
		if to.progress == nil {
			t.Skip("the file system of " + dir + " does not say when a file was made")
		}
		must(t, to.begin(t.Context(), run.Host{}, filled{src, src.Size()}, content{}))
		if c.known {
			must(t, to.progress.save(nil))
		}
		err = to.failed(c.err)
		must(t, to.close())
		said := fmt.Sprintln(err, fault.Hints(err))
		if got := fault.StatusOf(err); got != c.want || strings.Contains(said, "goes on; to give it up: rm") != c.stays {
			t.Errorf("%v: status %d: %s; want status %d", c.err, got, said, c.want)
		}
		if c.want == fault.Mismatch && !strings.Contains(said, "so "+partial(dir+"/b.img")+" was removed") {
			t.Errorf("%v: %s; want that it was removed", c.err, said)
		}
		if os.Remove(partial(dir+"/b.img")) == nil != c.stays {
			t.Errorf("%v: stays: %v; want %v", c.err, !c.stays, c.stays)
		}
	}
}

// What an earlier run left is not lost because a later one ends before its first write.
func TestStaysUntouched(t *testing.T) {
	dir := t.TempDir()
	image := noise(t, dir+"/a.img", 1<<20)
	src := openImage(t, dir+"/a.img")
	must(t, os.WriteFile(partial(dir+"/b.img"), image[:4096], 0o600))
	to, err := openTarget(dir+"/b.img", src, false)
	must(t, err)
	defer to.close()
	for _, e := range []error{fault.ErrInterrupted, fault.Refuse("cannot copy")} {
		if err := to.failed(e); err != e { // nothing is known of it, so nothing goes on
			t.Errorf("%v became %v", e, err)
		}
	}
	if b, err := os.ReadFile(partial(dir + "/b.img")); err != nil || !bytes.Equal(b, image[:4096]) {
		t.Errorf("it has %d bytes, %v", len(b), err)
	}
}

// What is read back differently after an interruption may be somebody else's doing;
// --overwrite is for a destination that is still there then.
func TestMismatchAfterInterruption(t *testing.T) {
	dir := t.TempDir()
	noise(t, dir+"/a.img", 1<<20)
	noise(t, dir+"/b.img", 1<<20)
	a, err := os.Open(dir + "/a.img")
	must(t, err)
	defer a.Close()
	sums, err := blockcopy.Scan(t.Context(), a, 1<<20, blockcopy.Options{})
	must(t, err)
	b, err := os.OpenFile(dir+"/b.img", os.O_RDWR, 0)
	must(t, err)
	defer b.Close()
	for made, want := range map[bool]string{
		true: "if somebody wrote to it after the interruption: run it again", false: "if somebody wrote to it after the interruption: run it again, with --overwrite",
	} {
		_, err := (&options{}).readBack(t.Context(), &target{f: b, made: made}, sums, extent.Set{}, content{resumed: true}, blockcopy.Options{})
		if hints := fault.Hints(err); fault.StatusOf(err) != fault.Mismatch || len(hints) != 2 || hints[0] != want {
			t.Errorf("a new file %v: %v, %q; want %q", made, err, hints, want)
		}
	}
}
