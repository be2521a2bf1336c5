package xlcfg

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// specError is why a disk string is refused: the text that is wrong is at
// offset pos of the string.
type specError struct {
	pos       int
	msg, hint string
}

// parseSpec reads one disk string as xlu_disk_parse does.
func parseSpec(spec string) (Disk, []specToken, *specError) {
	s := specReader{disk: Disk{Spec: spec}}
	for pos := 0; pos < len(spec); {
		tok := nextSpecToken(spec, pos)
		if err := s.apply(&tok, spec); err != nil {
			return s.disk, nil, err
		}
		s.tokens = append(s.tokens, tok)
		pos = tok.end
	}
	d := &s.disk
	if d.Format == "" {
		d.Format = Raw
	}
	if d.CDROM {
		d.ReadOnly = true
		if d.Target == "" {
			d.Format = Empty
		}
	}
	switch {
	case !s.vdevSet:
		return *d, nil, &specError{len(spec), "no vdev", "name the guest's device, as in vdev=xvda"}
	case !s.targetSet && !d.CDROM:
		return *d, nil, &specError{len(spec), "no target", "name the image or device, as in target=/dev/vg0/vm3"}
	}
	return *d, s.tokens, nil
}

// specReader is the state between two pieces of a disk string. An empty target
// or vdev counts as given, yet may be given again.
type specReader struct {
	disk               Disk
	tokens             []specToken
	prefixed           bool
	targetSet, vdevSet bool
	accessSet          bool
}

func (s *specReader) apply(tok *specToken, spec string) *specError {
	fail := func(msg, hint string) *specError { return &specError{tok.start, msg, hint} }
	text := strings.TrimSuffix(spec[tok.start:tok.end], ",")
	switch tok.kind {
	case specFlag:
		s.flag(tok.name)
	case specKeyed:
		if msg := s.keyed(tok.name, tok.value); msg != "" {
			return fail(msg, "")
		}
	case specTarget:
		if msg := set(&s.disk.Target, tok.value, "target"); msg != "" {
			return fail(msg, "")
		}
		s.targetSet = true
	case specPrefix:
		s.prefixed = true
		var msg string
		if slices.Contains(formatPrefixes[:], tok.name) {
			msg = s.format(tok.name)
		} else if slices.Contains(scriptPrefixes[:], tok.name) {
			msg = set(&s.disk.Script, "block-"+tok.name, "script")
		}
		if msg != "" {
			return fail(msg, "")
		}
	case specPositional:
		msg, hint := s.positional(tok)
		if msg != "" {
			return fail(msg, hint)
		}
	case specBadKey:
		return fail("unknown parameter "+strconv.Quote(tok.name), "")
	case specBadPrefix:
		return fail("unknown prefix "+strconv.Quote(tok.name+":"), "give a path with a colon as target=")
	case specStray:
		if tok.end < len(spec) {
			return fail("bad disk syntax at "+strconv.Quote(text), "")
		}
	}
	return nil
}

func (s *specReader) flag(name string) {
	o := &s.disk.options
	switch name {
	case "cdrom", "devtype=cdrom":
		s.disk.CDROM = true
	case "devtype=disk":
		s.disk.CDROM = false
	case "direct-io-safe":
		s.disk.DirectIOSafe = true
	case "discard":
		o.discard = on
	case "no-discard":
		o.discard = off
	case "colo":
		o.colo = on
	case "no-colo":
		o.colo = off
	case "trusted":
		o.trusted = on
	case "untrusted":
		o.trusted = off
	case "grant_usage=1":
		o.grantUsage = on
	case "grant_usage=0":
		o.grantUsage = off
	}
}

func (s *specReader) keyed(key, value string) (msg string) {
	d := &s.disk
	switch key {
	case "format":
		return s.format(value)
	case "devtype":
		return "unknown devtype " + strconv.Quote(value)
	case "access":
		return s.access(value)
	case "backend":
		return set(&d.BackendDomain, value, key)
	case "backendtype":
		return setEnum(&d.Backend, Backend(value), key, Phy, Tap, QDisk, Standalone)
	case "specification":
		return setEnum(&d.options.specification, value, key, "xen", "virtio")
	case "vdev":
		s.vdevSet = true
		return set(&d.VDev, value, key)
	case "script":
		return set(&d.Script, value, key)
	case "colo-host":
		return set(&d.options.coloHost, value, key)
	case "colo-port":
		if port, _, _ := strtoul(value, 10); uint32(port) == 0 { // an int in C
			return "unknown colo-port " + strconv.Quote(value)
		}
		d.options.coloPort = value
	case "colo-export":
		return set(&d.options.coloExport, value, key)
	case "active-disk":
		return set(&d.options.activeDisk, value, key)
	case "hidden-disk":
		return set(&d.options.hiddenDisk, value, key)
	}
	return ""
}

// positional gives tok the first of target, format, vdev and access that is
// still free. A prefix anywhere before it takes the format out of that row.
func (s *specReader) positional(tok *specToken) (msg, hint string) {
	d := &s.disk
	switch {
	case !s.targetSet:
		tok.slot, s.targetSet = slotTarget, true
		d.Target = tok.value
	case !s.prefixed && d.Format == "":
		// "hdc:cdrom" behind an empty target is a drive without a medium.
		if d.Target == "" && strings.Contains(tok.value, ":") {
			tok.slot, d.Format = slotVDev, Empty
			return s.vdev(tok.value), ""
		}
		tok.slot = slotFormat
		if msg = s.format(tok.value); msg != "" {
			if _, ok := DevID(tok.value); ok {
				hint = fmt.Sprintf("without a prefix the second field is the format: %s,,%s", d.Target, tok.value)
			}
			return msg, hint
		}
	case !s.vdevSet:
		tok.slot = slotVDev
		return s.vdev(tok.value), ""
	case !s.accessSet:
		tok.slot, s.accessSet = slotAccess, true
		return s.access(tok.value), "xl takes r, ro, w and rw"
	default:
		return "too many parameters at " + strconv.Quote(tok.value), ""
	}
	return "", ""
}

// vdev reads a positional VDEV or the old VDEV:DEVTYPE.
func (s *specReader) vdev(value string) (msg string) {
	if i := strings.LastIndexByte(value, ':'); i >= 0 {
		switch devtype := value[i+1:]; devtype {
		case "cdrom":
			s.disk.CDROM = true
		case "disk":
			s.disk.CDROM = false
		default:
			return "unknown devtype " + strconv.Quote(devtype)
		}
		value = value[:i]
	}
	s.vdevSet = true
	return set(&s.disk.VDev, value, "vdev")
}

func (s *specReader) format(value string) (msg string) {
	if value == "" {
		value = string(Raw)
	}
	return setEnum(&s.disk.Format, Format(value), "format", Raw, QCOW, QCOW2, VHD, QED, Empty)
}

func (s *specReader) access(value string) (msg string) {
	switch value {
	case "r", "ro":
		s.disk.ReadOnly = true
	case "w", "rw", "":
		s.disk.ReadOnly = false
	default:
		return "unknown access " + strconv.Quote(value)
	}
	return ""
}

// set gives a text parameter its value; a second time only if it was empty.
func set(to *string, value, name string) (msg string) {
	if *to != "" {
		return name + " given twice"
	}
	*to = value
	return ""
}

// setEnum gives a parameter one of a few values; again only the same one.
func setEnum[T ~string](to *T, value T, name string, allowed ...T) (msg string) {
	switch {
	case !slices.Contains(allowed, value):
		return "unknown " + name + " " + strconv.Quote(string(value))
	case *to != "" && *to != value:
		return fmt.Sprintf("%s given twice: %s and %s", name, *to, value)
	}
	*to = value
	return ""
}
