// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"strconv"
	"unicode"
	"unicode/utf8"
)

// object appends the members of one flat JSON object to a buffer. Numbers are
// appended as they are, strings by appendString.
type object struct {
	buf []byte
}

func (o *object) key(name string) {
	if o.buf[len(o.buf)-1] != '{' {
		o.buf = append(o.buf, ',')
	}
	o.buf = append(o.buf, '"')
	o.buf = append(o.buf, name...)
	o.buf = append(o.buf, '"', ':')
}

func (o *object) uint(name string, v uint64) {
	o.key(name)
	o.buf = strconv.AppendUint(o.buf, v, 10)
}

// idString is a number too large for what most readers of JSON hold exactly.
func (o *object) idString(name string, v uint64) {
	o.key(name)
	o.buf = append(o.buf, '"')
	o.buf = strconv.AppendUint(o.buf, v, 10)
	o.buf = append(o.buf, '"')
}

// hex is a set of bits, 16 digits.
func (o *object) hex(name string, v uint64) {
	o.key(name)
	o.buf = append(o.buf, '"')
	for shift := 60; shift >= 0; shift -= 4 {
		o.buf = append(o.buf, hexDigits[v>>shift&0xf])
	}
	o.buf = append(o.buf, '"')
}

func (o *object) text(name string, s string) {
	o.key(name)
	o.buf = appendString(o.buf, s)
}

// known is text that is left out when it is empty.
func (o *object) known(name string, s string) {
	if s != "" {
		o.text(name, s)
	}
}

func (o *object) bytes(name string, b []byte) {
	if len(b) > 0 {
		o.key(name)
		o.buf = appendString(o.buf, b)
	}
}

const hexDigits = "0123456789abcdef"

// appendString appends any bytes as a JSON string of valid UTF-8 on one line.
// A byte that is no UTF-8 becomes U+FFFD. Whatever does not print (control
// characters, line separators, direction overrides) is escaped, so that it
// survives and a terminal that shows the line takes no command from it.
func appendString[T string | []byte](buf []byte, s T) []byte {
	buf = append(buf, '"')
	for i := 0; i < len(s); {
		plain := i
		for i < len(s) && isPlain(s[i]) {
			i++
		}
		buf = append(buf, s[plain:i]...)
		if i == len(s) {
			break
		}
		if c := s[i]; c < utf8.RuneSelf {
			i++
			if c == '"' || c == '\\' {
				buf = append(buf, '\\', c)
			} else {
				buf = appendEscape(buf, rune(c))
			}
			continue
		}
		// Four bytes hold any character.
		var next [utf8.UTFMax]byte
		r, size := utf8.DecodeRune(next[:copy(next[:], s[i:])])
		i += size
		switch {
		case r == utf8.RuneError:
			buf = utf8.AppendRune(buf, utf8.RuneError)
		case unicode.IsPrint(r):
			buf = utf8.AppendRune(buf, r)
		case r > 0xffff:
			r -= 0x10000
			buf = appendEscape(appendEscape(buf, 0xd800+r>>10), 0xdc00+r&0x3ff)
		default:
			buf = appendEscape(buf, r)
		}
	}
	return append(buf, '"')
}

// isPlain says that a byte stands for itself.
func isPlain(c byte) bool { return c >= ' ' && c < 0x7f && c != '"' && c != '\\' }

func appendEscape(buf []byte, r rune) []byte {
	return append(buf, '\\', 'u', hexDigits[r>>12&0xf], hexDigits[r>>8&0xf], hexDigits[r>>4&0xf], hexDigits[r&0xf])
}
