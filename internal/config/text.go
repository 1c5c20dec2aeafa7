// SPDX-License-Identifier: Apache-2.0

package config

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxShown is the most bytes of a bad value that a message repeats.
const maxShown = 200

// shorten cuts a value that is too long to be repeated in a message.
func shorten(s string) string {
	if len(s) <= maxShown {
		return s
	}
	n := maxShown
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "..."
}

// printable returns s, quoted if it would disturb a terminal or the line.
func printable(s string) string {
	s = shorten(s)
	if strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) >= 0 || !utf8.ValidString(s) {
		return strconv.Quote(s)
	}
	return s
}

// oneLine makes a library's message fit on one line.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
