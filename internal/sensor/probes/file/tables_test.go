// SPDX-License-Identifier: Apache-2.0

package file

import (
	"testing"

	"security-exporter/internal/bpf/abi"
)

// TestFold: inode numbers as ext4 gives them to new directories, at the start
// of block groups, must not share the bits of the filter.
func TestFold(t *testing.T) {
	t.Parallel()
	for _, step := range []uint64{1, 256, 8192, 16384, 65536, 1 << 32} {
		bits := map[uint64]bool{}
		for i := range uint64(256) {
			bits[fold(i*step)] = true
		}
		if len(bits) < 250 {
			t.Errorf("256 inode numbers %d apart share %d bits", step, len(bits))
		}
		for bit := range bits {
			if bit >= uint64(abi.WatchFilterBits) {
				t.Fatalf("bit %d is outside of the filter", bit)
			}
		}
	}
}
