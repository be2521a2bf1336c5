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
	if i.Table, err = readTable(disk, i.Size); err != nil {
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

// isBlank reports whether the first and the last MiB of the disk are zero,
// where every filesystem, table and array keeps something.
func isBlank(disk io.ReaderAt, size int64) (bool, error) {
	const mib = 1 << 20
	for _, off := range []int64{0, max(0, size-mib)} {
		b, err := readAt(disk, off, int(min(mib, size)))
		if err != nil || len(bytes.TrimLeft(b, "\x00")) != 0 {
			return false, err
		}
	}
	return true, nil
}
