package convert

import (
	"xenlvm/lib/blkdev"
	"xenlvm/lib/loopdev"
	"xenlvm/lib/xl"
)

// HasDisk says whether a running domain's disk is the file or block device at path:
// by its own path, or by what its device is, or is built on.
func HasDisk(l xl.Disk, path string) bool {
	return blkdev.SameFile(l.Path, path) || leadsTo(l, path)
}

// runsOn says whether a running domain's disk is the image as it is now: by the
// file behind its device, where it has one, because a path may lead to another
// file by now.
func runsOn(l xl.Disk, image string) bool {
	if l.HasDevice {
		return leadsTo(l, image)
	}
	return HasDisk(l, image)
}

// leadsTo says whether the device of a domain's disk is the one at path, a loop
// device of the file there, or a mirror of either.
func leadsTo(l xl.Disk, path string) bool {
	live := blkdev.Device{Number: l.Number()}
	if !l.HasDevice { // QEMU serves it
		var err error
		if live, err = blkdev.Stat(l.Path); err != nil {
			return false
		}
	}
	return loopdev.LeadsTo(live, path)
}
