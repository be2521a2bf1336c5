package blockcopy

import (
	"fmt"
	"slices"

	"xenlvm/lib/directio"
	"xenlvm/lib/fault"
)

// holePlaces is how many places of the holes are read: those that lie usually do so
// in long runs, and to read a true hole costs no disk anything.
const holePlaces = 64

// CheckHoles reads some random places of what src, which no Mask may hide, calls
// holes, and refuses src if there is data: a copy would have zeros instead, and no
// reading back would show it.
func CheckHoles(src Source) error { return checkHoles(src, holePlaces) }

func checkHoles(src Source, n int) error {
	data, err := src.Data()
	if err != nil {
		return fmt.Errorf("cannot find the data of source: %w", err)
	}
	buf := directio.Buffer(sampleSize)
	for r := range data.Complement(src.Size()).Sample(n, sampleSize).Chunks(sampleSize) {
		b := buf[:r.Len]
		if err := readFull(src, b, r.Off); err != nil {
			return err
		}
		if !isZero(b) {
			at := r.Off + int64(slices.IndexFunc(b, func(c byte) bool { return c != 0 }))
			return fault.Hint(fault.Refuse("cannot trust source: its file system says that there is a hole at %d, and there is data", at),
				"cat reads all of it, holes or not: cat IMAGE >COPY; then convert that, and look for a newer kernel")
		}
	}
	return nil
}
