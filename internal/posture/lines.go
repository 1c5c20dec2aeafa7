// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"bufio"
	"io"
	"strings"

	"security-exporter/internal/hostfs"
)

// configLines scans the lines of a file, however long: the file was capped
// when it was read, and bufio's own 64 KiB would end the scan in the middle.
func configLines(r io.Reader) *bufio.Scanner {
	s := bufio.NewScanner(r)
	s.Buffer(nil, hostfs.DefaultLimit+1)
	return s
}

// containsLine is whether one of the lines of text is line.
func containsLine(text, line string) bool {
	for l := range strings.Lines(text) {
		if strings.TrimRight(l, "\n") == line {
			return true
		}
	}
	return false
}
