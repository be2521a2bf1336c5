package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"xenlvm/lib/cli"
	"xenlvm/lib/convert"
	"xenlvm/lib/journal"
	"xenlvm/lib/lvm"
	"xenlvm/lib/mirror"
	"xenlvm/lib/step"
	"xenlvm/lib/xl"
	"xenlvm/lib/xlcfg"
)

// looking is status at work. Each part is asked for by itself: a host that needs its
// status may be one where a disk hangs, or half of the files are gone.
type looking struct {
	c         *command
	e         *cli.Env
	volumes   []lvm.LV
	noVolumes error // why they could not be read
}

// answer is what ask finds out, unless that takes longer than limit. What hangs then is
// left to itself: it only asks.
func answer[T any](ctx context.Context, limit time.Duration, ask func(context.Context) (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no answer within %v", limit))
	defer cancel()
	done := make(chan result, 1)
	go func() {
		v, err := ask(ctx)
		done <- result{v, err}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		var nothing T
		return nothing, context.Cause(ctx)
	}
}

// view is what can be seen of one domain.
type view struct {
	*looking
	ctx     context.Context
	d       *domain // without a file where its configuration cannot be read
	now     *present
	holder  *journal.Holder
	copies  []convert.Known
	mirrors []mirrorView
	unread  []string
}

// mirrorView is a mirror as the journal and the kernel have it.
type mirrorView struct {
	mirror.Known
	now mirror.State
}

// see is answer for one part of a view. What cannot be read is noted.
func see[T any](v *view, what string, ask func(context.Context) (T, error)) T {
	value, err := answer(v.ctx, v.c.quick, ask)
	if err != nil && v.ctx.Err() == nil {
		v.unread = append(v.unread, fmt.Sprintf("cannot read %s: %v", what, err))
	}
	return value
}

// domain looks at one domain. Its error says that nobody knows of it, or that we were
// interrupted.
func (l *looking) domain(ctx context.Context, name string) (statusJSON, error) {
	v := &view{looking: l, ctx: ctx, d: &domain{name: name, boot: l.c.bootID()}}
	var err error
	if v.d.journal, err = l.c.journalOf(name, nil); err != nil {
		return statusJSON{}, err
	}
	v.d.records = see(v, "the journal", func(context.Context) ([]journal.Record, error) { return v.d.journal.Read() })
	if err := v.configuration(); err != nil {
		return statusJSON{}, err
	}
	v.ask()
	s := statusJSON{Domain: name, State: "unknown", Run: v.holder, Left: v.left(), Kept: v.kept()}
	s.Disks = append([]diskStatus{}, see(v, "the disks", func(context.Context) ([]diskStatus, error) { return v.disks(), nil })...)
	if v.d.file != nil {
		s.Config = v.d.file.Path
	}
	if v.now != nil {
		s.State = "stopped"
		if v.now.up {
			s.State = string(v.now.State)
		}
	}
	next := see(v, "what comes next", func(context.Context) (goingOn, error) { return v.next(s), nil })
	s.Next, s.Todo = next.command, next.todo
	s.Unread = append([]string{}, v.unread...)
	return s, context.Cause(ctx)
}

// ask finds out what runs, what is mirrored, and what was copied.
func (v *view) ask() {
	v.holder = see(v, "the lock", func(context.Context) (*journal.Holder, error) { return v.d.journal.Holder() })
	v.now = v.present()
	if v.noVolumes != nil {
		v.unread = append(v.unread, fmt.Sprintf("cannot read the volumes: %v", v.noVolumes))
	}
	v.copies = convert.Remember(v.d.records)
	for _, k := range mirror.Remember(v.d.name, v.d.records) {
		s := see(v, "the mirror of "+k.Disk.String(), func(context.Context) (*mirror.State, error) {
			s, err := v.c.mirrorState(k.Disk)
			if err != nil {
				return nil, err
			}
			return &s, nil
		})
		if s != nil {
			v.mirrors = append(v.mirrors, mirrorView{k, *s})
		}
	}
}

// present is the domain as it is, nil if that cannot be told. What its QEMU does not
// say, xenstore does, perhaps wrongly.
func (v *view) present() *present {
	ask := func(look func(context.Context) (present, error)) *present {
		return see(v, "the state of the domain", func(ctx context.Context) (*present, error) {
			now, err := look(ctx)
			if err != nil {
				return nil, err
			}
			return &now, nil
		})
	}
	now := ask(func(ctx context.Context) (present, error) { return look(ctx, v.e.Runner, v.d.name) })
	if now != nil && slices.ContainsFunc(now.disks, func(d xl.Disk) bool { return d.Kind == qdisk }) {
		if said := ask(func(ctx context.Context) (present, error) { return v.c.look(ctx, v.e, v.d.name) }); said != nil {
			now = said
		}
	}
	return now
}

// configuration reads it. A domain without one is known by its journal or its volumes
// alone, or not at all.
func (v *view) configuration() error {
	type opened struct {
		d   *domain
		err error
	}
	o := see(v, "the configuration", func(context.Context) (opened, error) {
		d, err := v.c.open(v.d.name)
		if errors.Is(err, xl.ErrNoConfig) { // said below, or no fault
			return opened{nil, err}, nil
		}
		return opened{d, err}, err
	})
	switch {
	case o.d != nil:
		o.d.records = v.d.records
		v.d = o.d
	case errors.Is(o.err, xl.ErrNoConfig) && len(v.d.records) == 0 && !slices.ContainsFunc(v.volumes, v.ours):
		return o.err
	}
	return nil
}

func (v *view) ours(lv lvm.LV) bool { return lv.Tagged(lvm.TagDomain(v.d.name)) }

// volume is the volume VG/LV, nil if there is none, or none could be read.
func (v *view) volume(spec string) *lvm.LV {
	i := slices.IndexFunc(v.volumes, func(lv lvm.LV) bool { return lv.Spec() == spec })
	if i < 0 {
		return nil
	}
	return &v.volumes[i]
}

// left is what is left over. While a run is at work, it is that run's.
func (v *view) left() []leftover {
	left := []leftover{}
	if v.holder != nil {
		return left
	}
	var plan step.Plan
	if len(v.d.rehearsals()) > 0 || slices.ContainsFunc(v.volumes, func(lv lvm.LV) bool { return v.ours(lv) && lv.Tagged(lvm.TagRehearsal) }) {
		plan = see(v, "what a rehearsal left", func(ctx context.Context) (step.Plan, error) { return v.c.clearance(ctx, v.e, v.d) })
	}
	if v.noVolumes == nil {
		plan = append(plan, see(v, "what is left", func(ctx context.Context) (step.Plan, error) {
			return convert.Reclaim(ctx, v.e.Runner, v.d.name, v.d.records)
		})...)
	}
	for _, s := range plan {
		one := leftover{s.What, s.Line}
		if s.Line != "" && !slices.Contains(left, one) {
			left = append(left, one)
		}
	}
	return left
}

// kept is what is kept on purpose.
func (v *view) kept() []kept {
	all := []kept{}
	var bases []string
	if v.noVolumes == nil {
		bases = see(v, "the bases", func(ctx context.Context) ([]string, error) {
			return convert.Bases(ctx, v.e.Runner, v.d.name, v.d.records)
		})
	}
	for _, name := range bases {
		k := kept{Kind: "base", Name: name}
		if lv := v.volume(name); lv != nil {
			k.Size, k.Used = int64(lv.COW), lv.Used
		}
		all = append(all, k)
	}
	var doors []doorState
	if v.d.file != nil && v.noVolumes == nil {
		doors = see(v, "the back doors", func(ctx context.Context) ([]doorState, error) { return v.c.backDoorsOf(ctx, v.e.Runner, v.d) })
	}
	for _, s := range doors {
		k := kept{Kind: "back door", Name: s.Snapshot, Size: int64(s.usage.Size), Used: s.usage.Percent()}
		if s.lost != nil {
			k.Note = fmt.Sprintf("of no use: %v", s.lost)
		}
		all = append(all, k)
	}
	return append(all, see(v, "what is kept", func(context.Context) ([]kept, error) { return v.keptElsewhere(), nil })...)
}

// keptElsewhere is what is no snapshot.
func (v *view) keptElsewhere() []kept {
	var all []kept
	for _, image := range v.leftImages() {
		if info, err := os.Stat(image); err == nil {
			all = append(all, kept{Kind: "image", Name: image, Size: info.Size()})
		}
	}
	backups, _ := filepath.Glob(v.d.journal.Path("config.*")) // it is a pattern
	for _, path := range backups {
		if info, err := os.Stat(path); err == nil {
			all = append(all, kept{Kind: "backup", Name: path, Size: info.Size()})
		}
	}
	for _, m := range v.mirrors {
		if m.Ended && m.now.Phase != mirror.Absent {
			all = append(all, kept{Kind: "device", Name: m.Path(), Note: "of a mirror that is over; it goes when the domain is restarted"})
		}
	}
	if p, over := v.d.suspension(); p != nil && !over && p.saved() {
		all = append(all, kept{Kind: "memory", Name: p.memory()})
	}
	_, given, finished := convert.Volumes(v.volumes, v.d.name, v.d.records)
	for _, lv := range slices.Concat(given, finished) {
		if !v.isDisk(lv) {
			all = append(all, kept{Kind: "volume", Name: lv.Spec(), Size: int64(lv.Size), Note: "tags " + fmt.Sprint(lv.Tags)})
		}
	}
	return all
}

// leftImages are the image files that the domain has left, oldest first.
func (v *view) leftImages() []string {
	var all []string
	for _, l := range v.d.movesMade() {
		info, err := os.Stat(l.Source)
		if err == nil && info.Mode().IsRegular() && !slices.Contains(all, l.Source) {
			all = append(all, l.Source)
		}
	}
	return all
}

// isDisk says whether the configuration has the volume as a disk.
func (v *view) isDisk(lv lvm.LV) bool {
	return slices.ContainsFunc(v.d.disks, func(k xlcfg.Disk) bool { return v.c.same(k.Target, lv.Path) })
}
