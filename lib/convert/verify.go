package convert

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"xenlvm/lib/blockcopy"
	"xenlvm/lib/extent"
	"xenlvm/lib/fault"
)

// Verify is how much of a destination is to be read back and compared.
type Verify string

// By default all of it is compared after a first copy, and what was written after a
// delta.
const (
	VerifyDefault Verify = ""
	VerifyFull    Verify = "full"
	VerifySample  Verify = "sample"
	VerifyNone    Verify = "none"
)

// Check refuses what is none of them.
func (v Verify) Check() error {
	if !slices.Contains([]Verify{VerifyDefault, VerifyFull, VerifySample, VerifyNone}, v) {
		return fault.BadUsage("unknown --verify %q: want full, sample or none", string(v))
	}
	return nil
}

// Verified is how much of a destination was read back and compared.
type Verified string

// Of a delta what was written is compared, as the rest did not change.
const (
	VerifiedFull    Verified = "full"
	VerifiedWritten Verified = "written"
	VerifiedSample  Verified = "sample"
	VerifiedNone    Verified = "none"
)

// String is it for people.
func (v Verified) String() string {
	return map[Verified]string{
		VerifiedFull:    "all of it verified",
		VerifiedWritten: "what was written verified",
		VerifiedSample:  "only a sample verified",
		VerifiedNone:    "NOT verified: nothing was read back",
	}[v]
}

// sampleBlocks is how many blocks a sample has.
const sampleBlocks = 512

// ReadBack compares what the device has with the digests of what was copied to it;
// after a delta, written is what was written. A difference has the status Mismatch.
func (v Verify) ReadBack(ctx context.Context, dst *os.File, sums *blockcopy.Digests, written *extent.Set, o blockcopy.Options) (done Verified, err error) {
	switch {
	case v == VerifyNone:
		return VerifiedNone, nil
	case v == VerifySample:
		done, err = VerifiedSample, blockcopy.Sample(ctx, dst, sums, sampleBlocks, o)
	case v == VerifyDefault && written != nil:
		done, err = VerifiedWritten, blockcopy.Verify(ctx, dst, sums, written, o)
	default:
		done, err = VerifiedFull, blockcopy.Verify(ctx, dst, sums, nil, o)
	}
	var m *blockcopy.MismatchError
	if errors.As(err, &m) {
		err = fault.Hint(fault.With(fault.Mismatch, fmt.Errorf("cannot trust %s: %w", dst.Name(), err)),
			"the volume or the disk below it does not keep what is written to it: check its hardware before anything else")
	}
	return done, err
}
