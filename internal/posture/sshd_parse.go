// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"errors"
	"fmt"
	"io"
	"strings"
)

// sshdLine is one directive of sshd_config(5).
type sshdLine struct {
	// key is the keyword as sshd_config(5) spells it, or as the file does if
	// it is not known.
	key string
	// args are the arguments without quotes and comment, text the same part of
	// the line as it stands there.
	args []string
	text string
	// match is the condition of the Match block, empty outside of one.
	match string
	// file and line say where it is; flag is set for a flag of the daemon, and
	// only for -p, which makes the lines of the files void.
	file       string
	line       int
	flag, only bool
}

// value is the argument as one string: that which sshd itself keeps of the
// line.
func (l sshdLine) value() string {
	if sshdKeywords[strings.ToLower(l.key)].raw {
		return l.text
	}
	return strings.Join(l.args, " ")
}

// always is whether the line counts for every connection. Match all does not
// leave anyone out.
func (l sshdLine) always() bool { return l.match == "" || l.match == sshdMatchAll }

const (
	sshdMatchAll = "all"
	sshdBlank    = " \t\r\n"
)

var (
	errSSHDQuotes = errors.New("unbalanced quotes")
	errSSHDEmpty  = errors.New("no argument after the keyword")
)

// parseSSHD reads the lines of one file, Include and Match among them. A line
// that sshd would refuse is left out and is an error; the others count.
func parseSSHD(r io.Reader, file string) ([]sshdLine, error) {
	var out []sshdLine
	var problems []error
	lines := configLines(r)
	for n := 1; lines.Scan(); n++ {
		l, err := parseSSHDLine(lines.Text())
		if err != nil {
			problems = append(problems, fmt.Errorf("%s line %d: %w: sshd refuses the file", file, n, err))
			continue
		}
		if l.key != "" {
			l.file, l.line = file, n
			out = append(out, l)
		}
	}
	return out, errors.Join(append(problems, lines.Err())...)
}

// parseSSHDLine takes one line apart as process_server_config_line does. The
// key is empty for a line without a directive.
func parseSSHDLine(s string) (sshdLine, error) {
	s, _, _ = strings.Cut(s, "\x00")
	s = strings.TrimRight(strings.TrimLeft(s, sshdBlank), sshdBlank+"\f")
	key, rest, ok := sshdKeyword(s)
	if ok && key == "" {
		key, rest, ok = sshdKeyword(rest)
	}
	if !ok {
		return sshdLine{}, errSSHDQuotes
	}
	if key == "" || key[0] == '#' {
		return sshdLine{}, nil
	}
	if rest == "" {
		return sshdLine{}, fmt.Errorf("%.64q: %w", key, errSSHDEmpty)
	}
	args, ok := sshdSplit(rest)
	if !ok {
		return sshdLine{}, fmt.Errorf("%.64q: %w", key, errSSHDQuotes)
	}
	if known := sshdKeywords[strings.ToLower(key)]; known.name != "" {
		key = known.name
	}
	return sshdLine{key: key, args: args, text: rest}, nil
}

// sshdKeyword splits the keyword off: it ends at a blank, at one "=" with or
// without blanks around it, or with its quotes. It fails for a missing quote.
func sshdKeyword(s string) (key, rest string, ok bool) {
	i := strings.IndexAny(s, sshdBlank+`"=`)
	if i < 0 {
		return s, "", true
	}
	if s[i] == '"' {
		inner, rest, ok := strings.Cut(s[i+1:], `"`)
		return s[:i] + inner, strings.TrimLeft(rest, sshdBlank), ok
	}
	rest = strings.TrimLeft(s[i+1:], sshdBlank)
	if s[i] != '=' && strings.HasPrefix(rest, "=") {
		rest = strings.TrimLeft(rest[1:], sshdBlank)
	}
	return s[:i], rest, true
}

// sshdSplit splits arguments at blanks, with both kinds of quotes, a backslash
// before a quote, a backslash or a space, and a comment where a word could
// begin.
func sshdSplit(s string) (args []string, ok bool) {
	for i := 0; i < len(s); {
		if s[i] == ' ' || s[i] == '\t' {
			i++
			continue
		}
		if s[i] == '#' {
			break
		}
		word, n, ok := sshdWord(s[i:])
		if !ok {
			return nil, false
		}
		args = append(args, word)
		i += n
	}
	return args, true
}

// sshdWord is the first word of s and the bytes it takes.
func sshdWord(s string) (word string, n int, ok bool) {
	var b strings.Builder
	var quote byte
	i := 0
	for ; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '\\' && i+1 < len(s) && (strings.IndexByte(`'"\`, s[i+1]) >= 0 || quote == 0 && s[i+1] == ' '):
			i++
			b.WriteByte(s[i])
		case quote == 0 && (c == ' ' || c == '\t'):
			return b.String(), i, true
		case quote == 0 && (c == '"' || c == '\''):
			quote = c
		case quote != 0 && c == quote:
			quote = 0
		default:
			b.WriteByte(c)
		}
	}
	return b.String(), i, quote == 0
}

// sshdCondition is the condition of a Match line in one form: "all" or its
// words with single blanks.
func sshdCondition(text string) string {
	text, _, _ = strings.Cut(text, " #")
	words := strings.Fields(strings.ReplaceAll(text, "=", " "))
	if len(words) == 1 && strings.EqualFold(words[0], sshdMatchAll) {
		return sshdMatchAll
	}
	return strings.Join(words, " ")
}
