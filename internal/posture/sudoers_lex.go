// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"net/netip"
	"strings"
)

// sudoersText is the text of one file and a place in it. What a character
// means depends on where it stands, so the parser asks for what it expects.
type sudoersText struct {
	src  string
	pos  int
	line int
}

// peek returns the next character, 0 at the end of the file. A NUL in the
// file is taken for its end, as sudo does.
func (t *sudoersText) peek() byte { return t.at(0) }

func (t *sudoersText) at(n int) byte {
	if t.pos+n < len(t.src) {
		return t.src[t.pos+n]
	}
	return 0
}

// accept moves over a character if it is the next one.
func (t *sudoersText) accept(c byte) bool {
	if t.peek() != c {
		return false
	}
	t.pos++
	return true
}

// blanks moves over blanks and over line ends behind a backslash.
func (t *sudoersText) blanks() {
	for {
		if c := t.peek(); c == ' ' || c == '\t' {
			t.pos++
		} else if n := t.continuation(); n > 0 {
			t.pos += n
			t.line++
		} else {
			return
		}
	}
}

// continuation is the length of a backslash, blanks and a line end, 0 if
// something else is next.
func (t *sudoersText) continuation() int {
	if t.peek() != '\\' {
		return 0
	}
	n := 1
	for t.at(n) == ' ' || t.at(n) == '\t' {
		n++
	}
	if t.at(n) == '\r' {
		n++
	}
	if t.at(n) != '\n' {
		return 0
	}
	return n + 1
}

// comment tells whether a comment is next: # begins one unless a number, a
// user id, follows.
func (t *sudoersText) comment() bool {
	if t.peek() != '#' {
		return false
	}
	n := 1
	if t.at(n) == '-' {
		n++
	}
	return !isDigit(t.at(n))
}

// atEnd tells whether nothing more of the entry follows.
func (t *sudoersText) atEnd() bool {
	t.blanks()
	c := t.peek()
	return c == 0 || c == '\n' || c == '\r' && t.at(1) == '\n' || t.comment()
}

// nextLine moves to the line after the entry, whatever is left of it. A
// comment ends at the line end even behind a backslash.
func (t *sudoersText) nextLine() {
	for t.pos < len(t.src) {
		if n := t.continuation(); n > 0 {
			t.pos += n
			t.line++
			continue
		}
		if t.comment() {
			if n := strings.IndexByte(t.src[t.pos:], '\n'); n >= 0 {
				t.pos += n
			} else {
				t.pos = len(t.src)
			}
			continue
		}
		c := t.src[t.pos]
		t.pos++
		if c == '\n' {
			t.line++
			return
		}
	}
}

// not moves over exclamation marks and tells whether their number is odd.
func (t *sudoersText) not() bool {
	start := t.pos
	for t.accept('!') {
	}
	return (t.pos-start)%2 == 1
}

// word reads a name up to a blank or a character of stop, escapes removed; ""
// if there is none.
func (t *sudoersText) word(stop string) string {
	var b strings.Builder
	for {
		c := t.peek()
		if c == '\\' && t.continuation() == 0 && t.at(1) != 0 && t.at(1) != '\n' && t.at(1) != '\t' {
			b.WriteByte(t.at(1))
			t.pos += 2
			continue
		}
		if c == 0 || c == '\\' || strings.IndexByte(" \t\r\n\"", c) >= 0 || strings.IndexByte(stop, c) >= 0 {
			return b.String()
		}
		b.WriteByte(c)
		t.pos++
	}
}

// number reads digits behind an optional minus sign.
func (t *sudoersText) number() string {
	start := t.pos
	t.accept('-')
	for isDigit(t.peek()) {
		t.pos++
	}
	return t.src[start:t.pos]
}

// nameStop are the characters that end a name of a user, host or group.
const nameStop = "#>!=:,()"

// quoted reads a string in double quotes; ok is false if it has no end on
// its line.
func (t *sudoersText) quoted() (text string, ok bool) {
	var b strings.Builder
	for t.pos++; ; {
		switch c := t.peek(); {
		case c == '"':
			t.pos++
			return b.String(), true
		case c == 0 || c == '\n':
			return "", false
		case t.continuation() > 0:
			t.blanks()
			continue
		case c == '\\' && t.at(1) == '"':
			b.WriteByte('"')
			t.pos += 2
		default:
			b.WriteByte(c)
			t.pos++
		}
	}
}

// network reads an IP address or network, "" if there is none.
func (t *sudoersText) network() string {
	end := t.pos
	for end < min(len(t.src), t.pos+maxNetwork) && strings.IndexByte("0123456789abcdefABCDEF:./", t.src[end]) >= 0 {
		end++
	}
	text := t.src[t.pos:end]
	for !isNetwork(text) {
		// The colon may be the one that begins the next alias.
		end := strings.LastIndexByte(text, ':')
		if end < 0 {
			return ""
		}
		text = text[:end]
	}
	if next := t.at(len(text)); next != 0 && strings.IndexByte(" \t\r\n\\,=:#", next) < 0 {
		return ""
	}
	t.pos += len(text)
	return text
}

// maxNetwork is more than an address and a mask take, in bytes.
const maxNetwork = 128

func isNetwork(text string) bool {
	addr, mask, slash := strings.Cut(text, "/")
	if _, err := netip.ParseAddr(addr); err != nil {
		return false
	}
	if !slash {
		return true
	}
	_, err := netip.ParsePrefix(text)
	_, maskErr := netip.ParseAddr(mask)
	return err == nil || maskErr == nil
}

// path reads the path of a command, escapes of separators removed, those of
// patterns kept.
func (t *sudoersText) path() string {
	var b strings.Builder
	for {
		c := t.peek()
		switch {
		case c == '\\' && t.continuation() == 0 && t.at(1) != 0 && t.at(1) != '\n':
			if strings.IndexByte(",:= \t#", t.at(1)) < 0 {
				b.WriteByte(c)
			}
			b.WriteByte(t.at(1))
			t.pos += 2
		case c == 0 || strings.IndexByte(",:=\\ \t\r\n#", c) >= 0:
			return b.String()
		default:
			b.WriteByte(c)
			t.pos++
		}
	}
}

// regex reads a command or argument of the form ^...$, which may hold
// separators; "" if there is no such end on the line.
func (t *sudoersText) regex() string {
	for end := t.pos + 1; end < len(t.src) && t.src[end] != '\n'; end++ {
		if t.src[end] == '\\' {
			end++
			continue
		}
		last := end+1 == len(t.src)
		if t.src[end] == '$' && (last || strings.IndexByte(" \t\r\n,:=#\\", t.src[end+1]) >= 0) {
			text := t.src[t.pos : end+1]
			t.pos = end + 1
			return text
		}
	}
	return ""
}

// arguments reads what follows a command, blanks reduced to one. A regular
// expression stands for all of them; ok is false if it has no end.
func (t *sudoersText) arguments() (text string, has, ok bool) {
	t.blanks()
	if t.peek() == '^' {
		text = t.regex()
		return text, true, text != ""
	}
	var args []string
	for arg := t.argument(); arg != ""; arg = t.argument() {
		args = append(args, arg)
		t.blanks()
	}
	text = strings.Join(args, " ")
	if text == `""` {
		return "", true, true
	}
	return text, len(args) > 0, true
}

func (t *sudoersText) argument() string {
	var b strings.Builder
	for {
		c := t.peek()
		switch {
		case c == '\\' && t.continuation() > 0:
			return b.String()
		case c == '\\' && t.at(1) != 0 && t.at(1) != '\n' && t.at(1) != '\r':
			if strings.IndexByte(":\\,= \t#", t.at(1)) < 0 {
				b.WriteByte(c)
			}
			b.WriteByte(t.at(1))
			t.pos += 2
		case c == 0 || strings.IndexByte("#:, \t\r\n", c) >= 0, c == '=' && b.Len() == 0 && (t.at(1) == 0 || strings.IndexByte("#\\:, \t\r\n", t.at(1)) >= 0):
			return b.String()
		default:
			b.WriteByte(c)
			t.pos++
		}
	}
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func isDigits(s string) bool {
	for i := range len(s) {
		if !isDigit(s[i]) {
			return false
		}
	}
	return s != ""
}
