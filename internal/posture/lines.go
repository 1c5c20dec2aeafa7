// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"bufio"
	"io"

	"security-exporter/internal/hostfs"
)

// configLines scans the lines of a file, however long: the file was capped
// when it was read, and bufio's own 64 KiB would end the scan in the middle.
func configLines(r io.Reader) *bufio.Scanner {
	s := bufio.NewScanner(r)
	s.Buffer(nil, hostfs.DefaultLimit+1)
	return s
}
