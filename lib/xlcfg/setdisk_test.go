package xlcfg

import (
	"bytes"
	"strings"
	"testing"
)

// lv is what most rewrites point to.
const lv = "/dev/vg0/vm-xvda"

// A rewriteCase is one string literal, quotes included, before and after its
// disk was pointed to target.
type rewriteCase struct {
	name   string
	before string
	vdev   string // xvda if empty
	target string // lv if empty
	after  string
	err    string // part of the refusal
	since  string // the first Xen that accepts the result, if later than 4.17
}

var rewriteCases = []rewriteCase{
	// Prefixes become phy:, which has no format slot either.
	{name: "file", before: `"file:/srv/x.img,xvda,w"`, after: `"phy:/dev/vg0/vm-xvda,xvda,w"`},
	{name: "quote character stays", before: `'file:/srv/x.img,xvda,w'`, after: `'phy:/dev/vg0/vm-xvda,xvda,w'`},
	{name: "phy", before: `"phy:/dev/vg1/x,xvda,w"`, after: `"phy:/dev/vg0/vm-xvda,xvda,w"`},
	{name: "raw prefix stays", before: `"raw:/srv/x.img,xvda,w"`, after: `"raw:/dev/vg0/vm-xvda,xvda,w"`},
	{name: "tap aio", before: `"tap:aio:/srv/x.img,xvda,w"`, after: `"phy:/dev/vg0/vm-xvda,xvda,w"`},
	{name: "tap2 qcow2", before: `"tap2:qcow2:/srv/x,xvda,w"`, after: `"phy:/dev/vg0/vm-xvda,xvda,w"`},
	{name: "tap2 tapdisk vhd with blanks", before: `"tap2: tapdisk: vhd: /srv/x, xvda, w"`, after: `"phy: /dev/vg0/vm-xvda, xvda, w"`},
	{name: "phy file", before: `"phy:file:/srv/x,xvda,w"`, after: `"phy:/dev/vg0/vm-xvda,xvda,w"`},
	{name: "ioemu at the vdev stays", before: `"file:/srv/x,ioemu:hda,w"`, vdev: "hda", after: `"phy:/dev/vg0/vm-xvda,ioemu:hda,w"`},
	{name: "only ioemu", before: `"/srv/x,ioemu:hda,w"`, vdev: "hda", after: `"/dev/vg0/vm-xvda,ioemu:hda,w"`},
	{name: "format prefix at the vdev", before: `"/srv/x,qcow2:hda,w"`, vdev: "hda", after: `"/dev/vg0/vm-xvda,phy:hda,w"`},
	{name: "prefix and format key", before: `"tap:qcow2:/srv/x,xvda,w,format=qcow2"`, after: `"phy:/dev/vg0/vm-xvda,xvda,w,format=raw"`},
	{name: "empty target", before: `"file:,xvda,w"`, after: `"phy:/dev/vg0/vm-xvda,xvda,w"`},

	// The format slot.
	{name: "raw slot", before: `"/srv/x,raw,xvda,w"`, after: `"/dev/vg0/vm-xvda,raw,xvda,w"`},
	{name: "empty slot", before: `"/srv/x,,xvda,w"`, after: `"/dev/vg0/vm-xvda,,xvda,w"`},
	{name: "qcow2 slot", before: `"/srv/x,qcow2,xvda,w"`, after: `"/dev/vg0/vm-xvda,raw,xvda,w"`},
	{name: "spacing stays", before: `" /srv/x,  qcow2,	xvda, w, "`, after: `" /dev/vg0/vm-xvda,  raw,	xvda, w, "`},
	{name: "slot and key", before: `"/srv/x,qcow2,xvda,w,format=qcow2"`, after: `"/dev/vg0/vm-xvda,raw,xvda,w,format=raw"`},
	{name: "format key in front", before: `"format=vhd,/srv/x,xvda,w"`, after: `"format=raw,/dev/vg0/vm-xvda,xvda,w"`},
	{name: "already there", before: `"phy:/dev/vg0/vm-xvda,xvda,w"`, after: `"phy:/dev/vg0/vm-xvda,xvda,w"`},

	// Keys.
	{name: "keys", before: `"format=qcow2, vdev=xvda, access=rw, target=/srv/x"`, after: `"format=raw, vdev=xvda, access=rw, target=/dev/vg0/vm-xvda"`},
	{name: "target with a comma", before: `"vdev=xvda,target=/srv/a,b.img"`, after: `"vdev=xvda,target=/dev/vg0/vm-xvda"`},
	{name: "target with a trailing comma", before: `"vdev=xvda,target=/srv/x,"`, after: `"vdev=xvda,target=/dev/vg0/vm-xvda"`},
	{name: "target with a useless prefix", before: `"vdev=xvda,target=phy:/dev/x"`, after: `"vdev=xvda,target=/dev/vg0/vm-xvda"`},
	{name: "target behind a prefix", before: `"tap:qcow2:vdev=xvda,target=/srv/x"`, after: `"phy:vdev=xvda,target=/dev/vg0/vm-xvda"`},
	{name: "target behind an empty place", before: `",qcow2,xvda,w,target=/srv/a,b"`, after: `",raw,xvda,w,target=/dev/vg0/vm-xvda"`},
	{name: "two empty targets", before: `",raw,xvda,w,target="`, after: `",raw,xvda,w,target=/dev/vg0/vm-xvda"`},
	{name: "target before a newline", before: `"target=/srv/x\nvdev=xvda"`, after: `"target=/dev/vg0/vm-xvda\nvdev=xvda"`},
	{name: "place between keys", before: `"vdev=xvda, /srv/x , access=r"`, after: `"vdev=xvda, /dev/vg0/vm-xvda, access=r"`},

	// Parameters that stay and parameters that go.
	{name: "discard stays", before: `"file:/srv/x,xvda,w,discard"`, after: `"phy:/dev/vg0/vm-xvda,xvda,w,discard"`},
	{name: "untrusted stays", before: `"untrusted,file:/srv/x,xvda,w"`, after: `"untrusted,phy:/dev/vg0/vm-xvda,xvda,w"`, since: "4.18"},
	{name: "grant_usage stays", before: `"file:/srv/x,xvda,w,grant_usage=0"`, after: `"phy:/dev/vg0/vm-xvda,xvda,w,grant_usage=0"`, since: "4.19"},
	{name: "read-only stays", before: `"file:/srv/x,xvda,r"`, after: `"phy:/dev/vg0/vm-xvda,xvda,r"`},
	{name: "devtype stays", before: `"file:/srv/x,hda:disk,w"`, vdev: "hda", after: `"phy:/dev/vg0/vm-xvda,hda:disk,w"`},
	{name: "backendtype=phy stays", before: `"backendtype=phy,vdev=xvda,target=/srv/x"`, after: `"backendtype=phy,vdev=xvda,target=/dev/vg0/vm-xvda"`},
	{name: "qdisk goes, last", before: `"file:/srv/x,xvda,w,backendtype=qdisk"`, after: `"phy:/dev/vg0/vm-xvda,xvda,w"`},
	{name: "qdisk goes, last with a comma", before: `"file:/srv/x,xvda,w, backendtype=qdisk,"`, after: `"phy:/dev/vg0/vm-xvda,xvda,w,"`},
	{name: "qdisk goes, first", before: `"backendtype=qdisk, vdev=xvda, target=/srv/x"`, after: `"vdev=xvda, target=/dev/vg0/vm-xvda"`},
	{name: "tap goes, in the middle", before: `"/srv/x, vhd, xvda, backendtype=tap, w"`, after: `"/dev/vg0/vm-xvda, raw, xvda, w"`},
	{name: "direct-io-safe goes", before: `"/srv/x,raw,xvda,w,direct-io-safe"`, after: `"/dev/vg0/vm-xvda,raw,xvda,w"`},
	{name: "both go", before: `"direct-io-safe,backendtype=qdisk,/srv/x,qcow2,xvda,w"`, after: `"/dev/vg0/vm-xvda,raw,xvda,w"`},
	{name: "both go from the end", before: `"/srv/x,qcow2,xvda,w, direct-io-safe, backendtype=qdisk"`, after: `"/dev/vg0/vm-xvda,raw,xvda,w"`},
	{name: "stray equals sign goes", before: `"/srv/x,raw,xvda="`, after: `"/dev/vg0/vm-xvda,raw,xvda"`},
	{name: "default script stays", before: `"script=block,vdev=xvda,target=/srv/x"`, after: `"script=block,vdev=xvda,target=/dev/vg0/vm-xvda"`},
	{name: "dom0 as backend stays", before: `"file:/srv/x,xvda,w,backend=0"`, after: `"phy:/dev/vg0/vm-xvda,xvda,w,backend=0"`},
	{name: "escapes elsewhere stay", before: `"file:/srv/x,xv\0123da,w"`, after: `"phy:/dev/vg0/vm-xvda,xv\0123da,w"`},

	// Names of the disk.
	{name: "by number", before: `"file:/srv/x,xvda,w"`, vdev: "51712", after: `"phy:/dev/vg0/vm-xvda,xvda,w"`},
	{name: "by hexadecimal number", before: `"file:/srv/x,xvda,w"`, vdev: "0xca00", after: `"phy:/dev/vg0/vm-xvda,xvda,w"`},
	{name: "by d0p0", before: `"file:/srv/x,51712,w"`, vdev: "d0p0", after: `"phy:/dev/vg0/vm-xvda,51712,w"`},
	{name: "partition", before: `"file:/srv/x,xvda1,w"`, vdev: "xvda1", after: `"phy:/dev/vg0/vm-xvda,xvda1,w"`},

	// Targets.
	{name: "comma in the path", before: `"file:/srv/x,xvda,w"`, target: "/dev/a,b", after: `"phy:,xvda,w,target=/dev/a,b"`},
	{name: "comma in the path, slots", before: `"/srv/x, qcow2, xvda, w"`, target: "/dev/a,b", after: `", raw, xvda, w,target=/dev/a,b"`},
	{name: "comma in the path, trailing comma", before: `"/srv/x,,xvda,"`, target: "/dev/a,b", after: `",,xvda,target=/dev/a,b"`},
	{name: "comma in the path, place last", before: `"vdev=xvda,/srv/x"`, target: "/dev/a,b", after: `"vdev=xvda,target=/dev/a,b"`},
	{name: "comma in the path, qdisk goes", before: `"/srv/x,qcow2,xvda,w,backendtype=qdisk"`, target: "/dev/a,b", after: `",raw,xvda,w,target=/dev/a,b"`},
	{name: "comma in the path, trailing blank", before: `"/srv/x,raw,xvda,w,	"`, target: "/dev/a,b", after: `",raw,xvda,w,	target=/dev/a,b"`},
	{name: "comma in the path, prefix last", before: `"/srv/x,raw,xvda,w,phy:"`, target: "/dev/a,b", after: `",raw,xvda,w,phy:target=/dev/a,b"`},
	{name: "comma in the path, flag without a comma", before: `"grant_usage=1/srv/x,raw,xvda"`, target: "/dev/a,b", after: `"grant_usage=1,,raw,xvda,target=/dev/a,b"`, since: "4.19"},
	{name: "comma at the end of the path", before: `"vdev=xvda,target=/srv/x"`, target: "/dev/a,", after: `"vdev=xvda,target=/dev/a,,"`},
	{name: "equals sign in the path", before: `"file:/srv/x,xvda,w"`, target: "/dev/a=b", after: `"phy:,xvda,w,target=/dev/a=b"`},
	{name: "colon in the path", before: `"file:/srv/x,xvda,w"`, target: "/dev/disk/by-path/pci-0000:00:1f.2-ata-1", after: `"phy:/dev/disk/by-path/pci-0000:00:1f.2-ata-1,xvda,w"`},
	{name: "quote in the path", before: `"file:/srv/x,xvda,w"`, target: `/dev/a"b'c`, after: `"phy:/dev/a\"b'c,xvda,w"`},
	{name: "other quote in the path", before: `'file:/srv/x,xvda,w'`, target: `/dev/a"b'c`, after: `'phy:/dev/a"b\'c,xvda,w'`},
	{name: "backslash in the path", before: `"file:/srv/x,xvda,w"`, target: `/dev/mapper/a\x20b`, after: `"phy:/dev/mapper/a\\x20b,xvda,w"`},
	{name: "hash and blank in the path", before: `"file:/srv/x,xvda,w"`, target: "/dev/a #b", after: `"phy:/dev/a #b,xvda,w"`},
	{name: "UTF-8 in the path", before: `"file:/srv/x,xvda,w"`, target: "/dev/ü", after: `"phy:/dev/ü,xvda,w"`},

	// Refusals.
	{name: "relative path", before: `"file:/srv/x,xvda,w"`, target: "vg0/x", err: "not absolute"},
	{name: "too long a path", before: `"file:/srv/x,xvda,w"`, target: "/" + strings.Repeat("x", maxPath), err: "too long"},
	{name: "newline in the path", before: `"file:/srv/x,xvda,w"`, target: "/dev/a\nb", err: "control character"},
	{name: "invalid UTF-8 in the path", before: `"file:/srv/x,xvda,w"`, target: "/dev/a\xff", err: "not valid UTF-8"},
	{name: "no such disk", before: `"file:/srv/x,xvda,w"`, vdev: "xvdb", err: "it has xvdy, xvda, xvdz, hdd"},
	{name: "empty vdev", before: `"/srv/x,raw,,w"`, vdev: "0", err: "its vdev is empty"},
	{name: "cdrom", before: `"file:/srv/x,hdc:cdrom,r"`, vdev: "hdc", err: "it is a CD-ROM"},
	{name: "no medium", before: `",empty,hdc,r"`, vdev: "hdc", err: "it has no medium"},
	{name: "drbd", before: `"drbd:r0,xvda,w"`, err: "script block-drbd"},
	{name: "own script", before: `"file:/srv/x,xvda,w,script=block-own"`, err: "script block-own"},
	{name: "driver domain", before: `"file:/srv/x,xvda,w,backend=storage"`, err: "served by the domain storage"},
	{name: "virtio", before: `"specification=virtio,vdev=xvda,target=/srv/x"`, err: "virtio"},
	{name: "bad spec", before: `"/srv/x,xvda,w"`, err: `unknown format "xvda"`},
	{name: "one device twice", before: `"file:/srv/x,xvda,w", "file:/srv/y,d0p0,w"`, err: "are one device"},
}

// surroundings is a file with a hole for the literal. Everything around it has
// to stay, a dead list with the same disk included.
const surroundings = "# vm\nname = \"vm\"  ; memory=512\ndisk = [ 'file:/srv/x.img,xvda,w' ]\n" +
	"disk=[\t'phy:/dev/b,xvdy,w' , # root's neighbour\r\n%s,\n\n  \"/c,qcow2,xvdz,r\", ]\n" +
	"disk += [ 'file:/d,hdd:cdrom,r' ]\nextra = 'root=/dev/xvda #'\n# end\n"

func TestSetDisk(t *testing.T) {
	for _, c := range rewriteCases {
		t.Run(c.name, func(t *testing.T) {
			if c.vdev == "" {
				c.vdev = "xvda"
			}
			if c.target == "" {
				c.target = lv
			}
			before := strings.Replace(surroundings, "%s", c.before, 1)
			f, err := Parse("vm.cfg", []byte(before))
			if err != nil {
				t.Fatal(err)
			}
			edited, err := f.SetDisk(c.vdev, c.target)
			if string(f.Bytes()) != before {
				t.Errorf("SetDisk changed its receiver")
			}
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Fatalf("got %v, want a refusal with %q", err, c.err)
				}
				if strings.Contains(err.Error(), "internal") {
					t.Errorf("a refusal should not be an internal error: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			want := strings.Replace(surroundings, "%s", c.after, 1)
			if got := string(edited.Bytes()); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
			d, err := edited.Disk(c.vdev)
			if err != nil {
				t.Fatal(err)
			}
			if d.Target != c.target || d.Format != Raw {
				t.Errorf("the disk is now %s", show(d))
			}
			again, err := edited.SetDisk(c.vdev, c.target)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(again.Bytes(), edited.Bytes()) {
				t.Errorf("a second SetDisk changed the file again:\n%s", again.Bytes())
			}
		})
	}
}
