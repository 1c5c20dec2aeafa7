// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// sudoersParser reads the entries of one file into out. include is called at
// each include line, so that entries come out in the order that counts.
type sudoersParser struct {
	sudoersText
	file    string
	out     *sudoers
	include func(name string, dir bool) error
}

// parseSudoers adds the entries of one file to out. An entry with a fault is
// left out, as sudo(8) does since 1.9.3, and named in the error.
func parseSudoers(file, text string, out *sudoers, include func(name string, dir bool) error) error {
	p := &sudoersParser{sudoersText: sudoersText{src: text, line: 1}, file: file, out: out, include: include}
	problems := fileProblems{file: file}
	for p.pos < len(p.src) {
		line := p.line
		p.blanks()
		var err error
		if dir, ok := p.includes(); ok {
			err = p.includeLine(dir)
		} else if !p.atEnd() {
			err = p.entry()
		}
		if err != nil {
			problems.add(line, err)
		}
		p.nextLine()
	}
	return problems.err()
}

var (
	errSudoSyntax = errors.New("is no sudoers entry: correct it with visudo")
	errSudoMember = errors.New("has a list with an empty or malformed member")
	errSudoQuote  = errors.New("has a double quote without its pair")
)

var sudoAliasKinds = []struct {
	keyword string
	kind    sudoAliasKind
}{
	{"User_Alias", userAlias}, {"Runas_Alias", runasAlias}, {"Host_Alias", hostAlias},
	{"Cmnd_Alias", commandAlias}, {"Cmd_Alias", commandAlias},
}

func (p *sudoersParser) entry() error {
	if strings.HasPrefix(p.src[p.pos:], "@include") {
		return errSudoSyntax
	}
	if p.keyword("Defaults", " \t@:!>\\") {
		return p.defaultsEntry()
	}
	for _, k := range sudoAliasKinds {
		if p.keyword(k.keyword, " \t\\") {
			return p.aliasEntry(k.kind)
		}
	}
	return p.rule()
}

// keyword moves over a word that one of the characters follows.
func (p *sudoersParser) keyword(word, follow string) bool {
	after, ok := strings.CutPrefix(p.src[p.pos:], word)
	if !ok || after == "" || strings.IndexByte(follow, after[0]) < 0 {
		return false
	}
	p.pos += len(word)
	return true
}

// includes moves over the word of an include line. With # it is one only if a
// blank follows; else it is a comment.
func (p *sudoersParser) includes() (dir, ok bool) {
	for _, k := range []struct {
		word, follow string
		dir          bool
	}{
		{"@includedir", " \t\"\\", true}, {"@include", " \t\"\\", false},
		{"#includedir", " \t", true}, {"#include", " \t", false},
	} {
		if p.keyword(k.word, k.follow) {
			return k.dir, true
		}
	}
	return false, false
}

func (p *sudoersParser) includeLine(dir bool) error {
	p.blanks()
	var name string
	if p.peek() == '"' {
		var ok bool
		if name, ok = p.quoted(); !ok {
			return errSudoQuote
		}
	} else {
		name = p.word("")
	}
	if name == "" || !p.atEnd() {
		return errSudoSyntax
	}
	return p.include(name, dir)
}

// aliasEntry reads NAME = list, and more of them behind colons.
func (p *sudoersParser) aliasEntry(kind sudoAliasKind) error {
	for {
		p.blanks()
		name := p.aliasName()
		p.blanks()
		if name == "" || name == "ALL" || !p.accept('=') {
			return errSudoSyntax
		}
		members, err := p.list(aliasMember[kind])
		if err != nil {
			return err
		}
		key := sudoAliasKey{kind, name}
		if _, again := p.out.aliases[key]; again {
			return fmt.Errorf("defines the alias %q again: the earlier definition stays", name)
		}
		if len(p.out.aliases) == maxSudoAliases {
			return fmt.Errorf("is above the limit of %d aliases", maxSudoAliases)
		}
		p.out.aliases[key] = members
		if p.atEnd() {
			return nil
		}
		if !p.accept(':') {
			return errSudoSyntax
		}
	}
}

var aliasMember = [...]func(*sudoersParser) (sudoMember, error){
	userAlias: (*sudoersParser).userMember, runasAlias: (*sudoersParser).userMember,
	hostAlias: (*sudoersParser).hostMember, commandAlias: (*sudoersParser).commandMember,
}

// aliasName reads a word of capitals, digits and _, "" if none is next.
func (p *sudoersParser) aliasName() string {
	end := p.pos
	for end < len(p.src) && isAliasByte(p.src[end], end > p.pos) {
		end++
	}
	name := p.src[p.pos:end]
	p.pos = end
	return name
}

func isAliasByte(c byte, inside bool) bool {
	return c >= 'A' && c <= 'Z' || inside && (c == '_' || isDigit(c))
}

func isAliasName(s string) bool {
	for i := range len(s) {
		if !isAliasByte(s[i], i > 0) {
			return false
		}
	}
	return s != ""
}

// list reads members between commas.
func (p *sudoersParser) list(member func(*sudoersParser) (sudoMember, error)) ([]sudoMember, error) {
	var members []sudoMember
	for {
		m, err := p.one(member)
		if err != nil {
			return nil, err
		}
		members = append(members, m)
		p.blanks()
		if !p.accept(',') {
			return members, nil
		}
	}
}

// one reads a member with the exclamation marks before it.
func (p *sudoersParser) one(member func(*sudoersParser) (sudoMember, error)) (sudoMember, error) {
	p.blanks()
	negated := p.not()
	p.blanks()
	m, err := member(p)
	if err == nil && negated && m.digest != "" {
		return m, errSudoMember
	}
	m.negated = m.negated != negated
	return m, err
}

// userMember reads a member of a list of users or groups.
func (p *sudoersParser) userMember() (sudoMember, error) {
	text := ""
	switch c := p.peek(); {
	case c == '"':
		var ok bool
		if text, ok = p.quoted(); !ok {
			return sudoMember{}, errSudoQuote
		}
		return prefixed(text, true)
	case c == '#' && !p.comment():
		p.pos++
		text = "#" + p.number()
	case c == '%':
		p.pos++
		text = "%"
		if p.accept(':') {
			text = "%:"
		}
		if p.accept('#') {
			text += "#" + p.number()
		} else {
			text += p.word(nameStop)
		}
	default:
		text = p.word(nameStop)
	}
	return prefixed(text, false)
}

// prefixed tells by its prefix what a name stands for.
func prefixed(text string, quoted bool) (sudoMember, error) {
	m := sudoMember{name: text}
	switch {
	case text == "":
		return m, errSudoMember
	case strings.HasPrefix(text, "%:"):
		m.kind, m.name = sudoOtherGroup, text[2:]
	case strings.HasPrefix(text, "%#"):
		m.kind, m.name = sudoGroupID, text[2:]
	case text[0] == '%':
		m.kind, m.name = sudoGroup, text[1:]
	case text[0] == '+':
		m.kind, m.name = sudoNetgroup, text[1:]
	case text[0] == '#' && isDigits(text[1:]):
		m.kind, m.name = sudoID, text[1:]
	case quoted:
	case text == "ALL":
		m.kind = sudoAll
	case isAliasName(text):
		m.kind = sudoAlias
	}
	if m.name == "" || m.kind == sudoOtherGroup && m.name == "#" {
		return m, errSudoMember
	}
	return m, nil
}

func (p *sudoersParser) hostMember() (sudoMember, error) {
	if n := p.network(); n != "" {
		return sudoMember{kind: sudoNetwork, name: n}, nil
	}
	m, err := p.userMember()
	if err == nil && m.kind != sudoWord && m.kind != sudoAll && m.kind != sudoAlias && m.kind != sudoNetgroup {
		return m, errSudoMember
	}
	return m, err
}

// groupMember reads a member of the groups of runas, which have no prefix.
func (p *sudoersParser) groupMember() (sudoMember, error) {
	m, err := p.userMember()
	if err == nil && m.kind != sudoWord && m.kind != sudoAll && m.kind != sudoAlias && m.kind != sudoID {
		return m, errSudoMember
	}
	return m, err
}

// sudoDigest is a checksum before a command, in hexadecimal or base64.
var sudoDigest = regexp.MustCompile(`^sha(224|256|384|512)[ \t]*:[ \t]*([0-9A-Fa-f]{56,128}|[A-Za-z0-9+/]{38,86}={0,2})`)

// commandMember reads a command. Its checksums stand in front of the
// exclamation marks.
func (p *sudoersParser) commandMember() (sudoMember, error) {
	var digests []string
	for {
		d := sudoDigest.FindString(p.src[p.pos:])
		if d == "" {
			break
		}
		p.pos += len(d)
		digests = append(digests, strings.ReplaceAll(strings.ReplaceAll(d, " ", ""), "\t", ""))
		p.blanks()
		if p.accept(',') {
			p.blanks()
		}
	}
	negated := len(digests) > 0 && p.not()
	p.blanks()
	m, err := p.command()
	m.negated = negated
	slices.Sort(digests)
	m.digest = strings.Join(digests, ",")
	return m, err
}

func (p *sudoersParser) command() (sudoMember, error) {
	m := sudoMember{kind: sudoPath}
	if name := p.aliasName(); name != "" {
		m.name, m.kind = name, sudoAlias
		if name == "ALL" {
			m.kind = sudoAll
		}
		return m, nil
	}
	switch {
	case p.peek() == '^':
		m.name = p.regex()
	case p.peek() == '/':
		m.name = p.path()
	case p.rest("sudoedit"):
		m.name = "sudoedit"
	case p.rest("list"):
		m.name = "list"
	}
	if m.name == "" || m.name == "/" {
		return m, errors.New("has a command that is not a full path")
	}
	if !strings.HasSuffix(m.name, "/") {
		var ok bool
		if m.args, m.hasArgs, ok = p.arguments(); !ok {
			return m, errors.New("has a regular expression without its $")
		}
	}
	return m, nil
}

// rest moves over a word that ends there.
func (p *sudoersParser) rest(word string) bool {
	if p.src[p.pos:] == word {
		p.pos = len(p.src)
		return true
	}
	return p.keyword(word, " \t,:\r\n\\")
}

// rule reads users and, behind colons, what they may do on which hosts.
func (p *sudoersParser) rule() error {
	r := sudoRule{file: p.file, line: p.line}
	var err error
	if r.users, err = p.list((*sudoersParser).userMember); err != nil {
		return err
	}
	for {
		g := sudoGrant{}
		if g.hosts, err = p.list((*sudoersParser).hostMember); err != nil {
			return err
		}
		if !p.accept('=') {
			return errSudoSyntax
		}
		if g.commands, err = p.commands(); err != nil {
			return err
		}
		r.grants = append(r.grants, g)
		if p.atEnd() {
			break
		}
		if !p.accept(':') {
			return errSudoSyntax
		}
	}
	if len(p.out.rules) == maxSudoersRules {
		return fmt.Errorf("is above the limit of %d rules", maxSudoersRules)
	}
	p.out.rules = append(p.out.rules, r)
	return nil
}
