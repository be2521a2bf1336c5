package main

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"xenlvm/lib/cli"
	"xenlvm/lib/run"
	"xenlvm/lib/xl"
)

// shown is one disk. State is the domain's; Live is what the domain really has,
// empty when it has none.
type shown struct {
	Domain  string `json:"domain"`
	VDev    string `json:"vdev"`
	Source  string `json:"source"`
	Format  string `json:"format"`
	Backend string `json:"backend"`
	State   string `json:"state"`
	Live    string `json:"live"`
}

// show prints the disks of a domain, one a line, TAB-separated:
// DOMAIN VDEV SOURCE FORMAT BACKEND STATE LIVE.
func (c *command) show(ctx context.Context, e *cli.Env, args []string) error {
	d, err := c.open(args[0])
	if err != nil {
		return err
	}
	var now present
	state := "unknown"
	if !c.offline {
		if err := c.needXen("show domain " + d.name); err != nil {
			return err
		}
		if now, err = c.look(ctx, e, d.name); err != nil {
			return err
		}
		state = cmp.Or(string(now.State), "stopped")
		if d.records, err = d.journal.Read(); err != nil {
			return err
		}
		for _, h := range c.unclear(d) {
			e.Printf("%s: %v", d.name, h)
		}
	}
	list := []shown{}
	var text strings.Builder
	for _, k := range d.disks {
		s := shown{Domain: d.name, VDev: k.VDev, Source: k.Target, Format: string(k.Format), Backend: cmp.Or(string(k.Backend), "auto"), State: state}
		if l, ok := now.liveDisk(k.VDev); ok {
			s.Live, s.Backend = l.Path, backendName(l.Kind)
			if !c.runs(l, k.Target) {
				e.Infof("%s has %s as disk %s; the configuration says %s, from its next start on", d.name, l.Path, k.VDev, k.Target)
			}
		} else if now.up {
			e.Infof("%s runs without disk %s, which is in the configuration", d.name, k.VDev)
		}
		list = append(list, s)
		fields := []string{s.Domain, s.VDev, cmp.Or(s.Source, "-"), s.Format, s.Backend, s.State, cmp.Or(s.Live, "-")}
		for i := range fields {
			fields[i] = cli.Printable(fields[i])
		}
		fmt.Fprintln(&text, strings.Join(fields, "\t"))
	}
	if e.JSON {
		return e.Delivered(e.Emit(map[string]any{"changed": false, "domain": d.name, "config": d.file.Path, "state": state, "disks": list}))
	}
	_, err = fmt.Fprint(e.Stdout, text.String())
	return e.Delivered(err)
}

// backendName is what xl.cfg calls the backend that xenstore calls kind.
func backendName(kind string) string {
	switch kind {
	case "vbd":
		return "phy"
	case "vbd3":
		return "tap"
	}
	return kind
}

// needXen refuses to go on where xl cannot answer.
func (c *command) needXen(what string) error {
	for _, program := range []string{"xl", "xenstore-ls"} {
		if err := run.Missing(program); err != nil {
			return err
		}
	}
	return c.needRoot(what)
}

// alive says whether the domain is one that a guest runs in.
func alive(s xl.State) bool { return s == xl.Running || s == xl.Paused }
