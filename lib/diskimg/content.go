package diskimg

import (
	"bytes"
	"io"
)

// content fills in what disk holds: a filesystem before a partition table,
// because a boot sector of FAT passes for an empty MBR.
func (i *Info) content(disk io.ReaderAt) error {
	var err error
	if i.Signature, err = FindSignature(disk, i.Size); err != nil {
		return err
	}
	if i.Table, err = ReadTable(disk, i.Size); err != nil {
		return err
	}
	switch {
	case i.Signature != nil:
		i.Kind = Filesystem
		if i.Table != nil {
			i.Also, i.Table = i.Table.Type, nil
		}
		return nil
	case i.Table == nil:
		blank, err := isBlank(disk, i.Size)
		if blank {
			i.Kind = Blank
		}
		return err
	}
	i.Kind = Table
	for k := range i.Table.Partitions {
		p := &i.Table.Partitions[k]
		if p.Signature, err = FindSignature(io.NewSectionReader(disk, p.Start, p.Size), p.Size); err != nil {
			return err
		}
	}
	return nil
}

// isBlank reports whether the disk is zero wherever it is looked at: in its first
// and last MiB, where every filesystem, table and array keeps something, and in
// samples across the rest, because other data may lie anywhere.
func isBlank(disk io.ReaderAt, size int64) (bool, error) {
	const mib, samples, sample = 1 << 20, 512, 64 << 10
	zero := func(off, n int64) (bool, error) {
		b, err := readAt(disk, off, int(min(n, size-off)))
		return err == nil && len(bytes.TrimLeft(b, "\x00")) == 0, err
	}
	for _, off := range []int64{0, max(0, size-mib)} {
		if ok, err := zero(off, mib); !ok {
			return false, err
		}
	}
	step := max(size/samples/sample*sample, sample)
	for off := int64(mib); off < size-mib; off += step {
		if ok, err := zero(off, sample); !ok {
			return false, err
		}
	}
	return true, nil
}
