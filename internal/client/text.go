// SPDX-License-Identifier: Apache-2.0

package client

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/width"
)

// clean makes any bytes safe for a terminal: what does not print, control and
// direction characters among it, becomes U+FFFD.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return utf8.RuneError
		}
		return r
	}, s)
}

// cells is how many columns of a terminal a clean character takes.
func cells(r rune) int {
	if unicode.In(r, unicode.Mn, unicode.Me) {
		return 0
	}
	if k := width.LookupRune(r).Kind(); k == width.EastAsianWide || k == width.EastAsianFullwidth {
		return 2
	}
	return 1
}

// fit cleans a text and cuts it to at most limit columns; a cut is marked.
func fit(s string, limit int) string {
	s = clean(s)
	columns, cut := 0, 0 // cut is where the text ends if one column is left for the mark
	for i, r := range s {
		w := cells(r)
		if columns+w > limit {
			return s[:cut] + "~"[:min(1, max(0, limit))]
		}
		columns += w
		if columns <= limit-1 {
			cut = i + utf8.RuneLen(r)
		}
	}
	return s
}

// pad fits a text and fills it up with spaces to exactly limit columns.
func pad(s string, limit int) string {
	s = fit(s, limit)
	columns := 0
	for _, r := range s {
		columns += cells(r)
	}
	return s + strings.Repeat(" ", max(0, limit-columns))
}
