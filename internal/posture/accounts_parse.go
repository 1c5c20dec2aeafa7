// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// passwdEntry is one account of passwd(5).
type passwdEntry struct {
	line        int
	name        string
	uid, gid    uint32
	home, shell string
	// secret is what the second field says; secretElsewhere sends to shadow(5).
	secret secret
}

// groupEntry is one group of group(5). The group password is not kept.
type groupEntry struct {
	line    int
	name    string
	gid     uint32
	members []string
}

// compatEntry is a line that starts with + or -: an order to the compat
// source of nsswitch.conf(5) to take in, or leave out, accounts from elsewhere.
type compatEntry struct {
	file string
	line int
}

// fileProblems gathers what is wrong with the lines of one file. It never
// holds their text: that may be a hash. maxProblems are named, the others
// counted.
type fileProblems struct {
	file string
	errs []error
	more int
}

const maxProblems = 10

func (p *fileProblems) add(line int, err error) {
	if len(p.errs) == maxProblems {
		p.more++
		return
	}
	p.errs = append(p.errs, fmt.Errorf("%s line %d: %w", p.file, line, err))
}

func (p *fileProblems) err() error {
	if p.more > 0 {
		return errors.Join(append(p.errs, fmt.Errorf("%s: %d further lines with errors", p.file, p.more))...)
	}
	return errors.Join(p.errs...)
}

// accountLines calls use with every line that is an entry, as
// the files source of glibc sees them: leading blanks dropped, empty lines and
// comments skipped. Lines of compat are returned apart.
func accountLines(file string, r io.Reader, use func(line int, text string) error) ([]compatEntry, error) {
	problems := fileProblems{file: file}
	var compat []compatEntry
	lines := configLines(r)
	n := 0
	for lines.Scan() {
		n++
		line := strings.TrimLeft(lines.Text(), " \t\r\v\f")
		if line == "" || line[0] == '#' {
			continue
		}
		if line[0] == '+' || line[0] == '-' {
			compat = append(compat, compatEntry{file, n})
			continue
		}
		if err := checkAccountLine(line); err != nil {
			problems.add(n, err)
			continue
		}
		if err := use(n, line); err != nil {
			problems.add(n, err)
		}
	}
	if err := lines.Err(); err != nil {
		problems.add(n+1, err)
	}
	return compat, problems.err()
}

var (
	errBinaryLine  = errors.New("holds a NUL byte: the file is damaged")
	errNoEntryName = errors.New("has no name")
	errFewFields   = errors.New("has too few fields separated by colons")
)

func checkAccountLine(line string) error {
	switch {
	case strings.IndexByte(line, 0) >= 0:
		return errBinaryLine
	case line[0] == ':':
		return errNoEntryName
	}
	return nil
}

// parsePasswd reads passwd(5). With an error, the entries are those of the
// lines that are right.
func parsePasswd(r io.Reader) ([]passwdEntry, []compatEntry, error) {
	var entries []passwdEntry
	compat, err := accountLines(passwdFile, r, func(line int, text string) error {
		f := strings.SplitN(text, ":", 7)
		if len(f) < 4 {
			return errFewFields
		}
		f = append(f, "", "", "")
		e := passwdEntry{line: line, name: f[0], secret: parseSecret(f[1], true), home: f[5], shell: f[6]}
		var err error
		if e.uid, err = parseID("user id", f[2]); err != nil {
			return err
		}
		if e.gid, err = parseID("group id", f[3]); err != nil {
			return err
		}
		entries = append(entries, e)
		return nil
	})
	return entries, compat, err
}

// parseGroup reads group(5). With an error, the entries are those of the
// lines that are right.
func parseGroup(r io.Reader) ([]groupEntry, []compatEntry, error) {
	var entries []groupEntry
	compat, err := accountLines(groupFile, r, func(line int, text string) error {
		f := append(strings.SplitN(text, ":", 4), "")
		if len(f) < 4 {
			return errFewFields
		}
		gid, err := parseID("group id", f[2])
		if err != nil {
			return err
		}
		e := groupEntry{line: line, name: f[0], gid: gid}
		for m := range strings.SplitSeq(f[3], ",") {
			if m = strings.TrimLeft(m, " \t"); m != "" {
				e.members = append(e.members, m)
			}
		}
		entries = append(entries, e)
		return nil
	})
	return entries, compat, err
}

// parseID reads a number as glibc does (strtoul): blanks and a sign before it
// count for nothing, so that " +0" and "-0" are root as well.
func parseID(what, text string) (uint32, error) {
	text = strings.TrimLeft(text, " \t\r\v\f")
	digits, negative := strings.CutPrefix(text, "-")
	if !negative {
		digits = strings.TrimPrefix(text, "+")
	}
	n, err := strconv.ParseUint(digits, 10, 32)
	if err != nil || negative && n != 0 {
		return 0, fmt.Errorf("%s is not a number from 0 to 4294967295", what)
	}
	return uint32(n), nil
}

// parseShells reads shells(5): a path on each line, the rest of the line and
// comments ignored.
func parseShells(r io.Reader) ([]string, error) {
	var shells []string
	lines := configLines(r)
	for lines.Scan() {
		line, _, _ := strings.Cut(lines.Text(), "#")
		slash := strings.IndexByte(line, '/')
		if slash < 0 {
			continue
		}
		if f := strings.Fields(line[slash:]); len(f) > 0 {
			shells = append(shells, f[0])
		}
	}
	return shells, lines.Err()
}

// parseNSSwitch reads nsswitch.conf(5): the sources of each data base, their
// order kept, the [actions] dropped. Of two lines for one data base the last
// wins.
func parseNSSwitch(r io.Reader) (map[string][]string, error) {
	sources := make(map[string][]string)
	lines := configLines(r)
	for lines.Scan() {
		line, _, _ := strings.Cut(lines.Text(), "#")
		name, list, ok := strings.Cut(line, ":")
		if name = strings.TrimSpace(name); !ok || name == "" {
			continue
		}
		sources[name] = nil
		for list != "" {
			before, rest, _ := strings.Cut(list, "[")
			sources[name] = append(sources[name], strings.Fields(before)...)
			_, list, _ = strings.Cut(rest, "]")
		}
	}
	return sources, lines.Err()
}
