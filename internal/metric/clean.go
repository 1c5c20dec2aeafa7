// SPDX-License-Identifier: Apache-2.0

package metric

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxValueBytes is the longest label value, in bytes of UTF-8.
const MaxValueBytes = 128

// Clean makes any bytes fit to be a label value: valid UTF-8, control and
// other unprintable characters replaced by U+FFFD, at most MaxValueBytes
// bytes, cut between characters. A clean string is returned as it is.
func Clean(s string) string {
	if isClean(s) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if r != utf8.RuneError && !unicode.IsPrint(r) {
			r = utf8.RuneError
		}
		if b.Len()+utf8.RuneLen(r) > MaxValueBytes {
			break
		}
		b.WriteRune(r)
	}
	return b.String()
}

func isClean(s string) bool {
	if len(s) > MaxValueBytes {
		return false
	}
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}
