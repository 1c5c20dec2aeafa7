// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"slices"
	"strings"
)

// commands reads the commands of a grant. Runas, options and tags hold from
// where they stand to the end of the grant, or until they are changed.
func (p *sudoersParser) commands() ([]sudoCommand, error) {
	var out []sudoCommand
	var c sudoCommand
	for {
		p.blanks()
		if p.accept('(') {
			runas, err := p.runas()
			if err != nil {
				return nil, err
			}
			c.runas = runas
		}
		if err := p.options(&c); err != nil {
			return nil, err
		}
		p.tags(&c)
		m, err := p.one((*sudoersParser).commandMember)
		if err != nil {
			return nil, err
		}
		c.member = m
		out = append(out, c)
		p.blanks()
		if !p.accept(',') {
			return out, nil
		}
	}
}

// runas reads (users), (users : groups), (: groups) or () behind its opening
// parenthesis.
func (p *sudoersParser) runas() (*sudoRunas, error) {
	r := &sudoRunas{}
	var err error
	p.blanks()
	if c := p.peek(); c != ':' && c != ')' {
		if r.users, err = p.list((*sudoersParser).userMember); err != nil {
			return nil, err
		}
	}
	p.blanks()
	if p.accept(':') {
		p.blanks()
		if p.peek() != ')' {
			if r.groups, err = p.list((*sudoersParser).groupMember); err != nil {
				return nil, err
			}
		}
	}
	p.blanks()
	if !p.accept(')') {
		return nil, errSudoSyntax
	}
	return r, nil
}

var sudoOptions = []string{
	"CWD", "CHROOT", "TIMEOUT", "NOTBEFORE", "NOTAFTER", "ROLE", "TYPE", "PRIVS", "LIMITPRIVS", "APPARMOR_PROFILE",
}

// options reads NAME=value, in front of the tags.
func (p *sudoersParser) options(c *sudoCommand) error {
	for {
		p.blanks()
		name, start, line := p.name(), p.pos, p.line
		p.pos += len(name)
		p.blanks()
		if !slices.Contains(sudoOptions, name) || !p.accept('=') {
			p.pos, p.line = start, line
			return nil
		}
		p.blanks()
		value := ""
		if p.peek() == '"' {
			var ok bool
			if value, ok = p.quoted(); !ok {
				return errSudoQuote
			}
		} else {
			value = p.word(",:()=#")
		}
		if value == "" {
			return errSudoSyntax
		}
		switch name {
		case "NOTBEFORE":
			c.notBefore = value
		case "NOTAFTER":
			c.notAfter = value
		}
	}
}

// tags reads NAME: as often as it comes. The colon tells a tag from an alias.
func (p *sudoersParser) tags(c *sudoCommand) {
	for {
		p.blanks()
		start, line := p.pos, p.line
		name := p.name()
		p.pos += len(name)
		p.blanks()
		if !c.tag(name) || !p.accept(':') {
			p.pos, p.line = start, line
			return
		}
	}
}

// name looks at the word of capitals and _ that is next.
func (p *sudoersParser) name() string {
	end := p.pos
	for end < len(p.src) && (p.src[end] >= 'A' && p.src[end] <= 'Z' || p.src[end] == '_') {
		end++
	}
	return p.src[p.pos:end]
}

// tag takes a tag in, and tells whether it is one.
func (c *sudoCommand) tag(name string) bool {
	on := tagOn
	short, no := strings.CutPrefix(name, "NO")
	if no {
		on = tagOff
	}
	switch short {
	case "PASSWD":
		c.nopasswd = tagOff
		if no {
			c.nopasswd = tagOn
		}
	case "EXEC":
		c.noexec = tagOff
		if no {
			c.noexec = tagOn
		}
	case "SETENV":
		c.setenv = on
	case "FOLLOW", "INTERCEPT", "LOG_INPUT", "LOG_OUTPUT", "MAIL":
	default:
		return false
	}
	return true
}

// defaultsEntry reads what follows the word Defaults. A scope stands directly
// behind it.
func (p *sudoersParser) defaultsEntry() error {
	d := sudoDefault{file: p.file, line: p.line, scope: scopeAll}
	member := (*sudoersParser).userMember
	switch s := sudoScope(p.peek()); s {
	case scopeHost:
		d.scope, member = s, (*sudoersParser).hostMember
	case scopeUser, scopeRunas:
		d.scope = s
	case scopeCommand:
		d.scope, member = s, (*sudoersParser).plainCommand
	}
	if d.scope != scopeAll {
		p.pos++
		if p.peek() == '\\' {
			return errSudoSyntax
		}
		var err error
		if d.members, err = p.list(adjacent(member)); err != nil {
			return err
		}
	}
	var entries []sudoDefault
	for {
		if err := p.setting(&d); err != nil {
			return err
		}
		entries = append(entries, d)
		if p.atEnd() {
			break
		}
		if !p.accept(',') {
			return errSudoSyntax
		}
	}
	p.out.defaults = append(p.out.defaults, entries...)
	return nil
}

// adjacent refuses a blank between an exclamation mark and its member, where
// sudo(8) takes the list for finished.
func adjacent(member func(*sudoersParser) (sudoMember, error)) func(*sudoersParser) (sudoMember, error) {
	return func(p *sudoersParser) (sudoMember, error) {
		if before := strings.TrimRight(p.src[:p.pos], " \t"); len(before) < p.pos && strings.HasSuffix(before, "!") {
			return sudoMember{}, errSudoMember
		}
		return member(p)
	}
}

// plainCommand is a command without arguments: in a Defaults entry the
// settings follow its blank.
func (p *sudoersParser) plainCommand() (sudoMember, error) {
	if p.peek() == '/' {
		if m := (sudoMember{kind: sudoPath, name: p.path()}); m.name != "/" {
			return m, nil
		}
		return sudoMember{}, errSudoMember
	}
	name := p.aliasName()
	switch {
	case name == "ALL":
		return sudoMember{kind: sudoAll, name: name}, nil
	case name != "":
		return sudoMember{kind: sudoAlias, name: name}, nil
	case p.rest("sudoedit"):
		return sudoMember{kind: sudoPath, name: "sudoedit"}, nil
	}
	return sudoMember{}, errSudoMember
}

// setting reads name, !name, name=value, name+=value or name-=value.
func (p *sudoersParser) setting(d *sudoDefault) error {
	p.blanks()
	d.off, d.op, d.value = p.not(), 0, ""
	p.blanks()
	end := p.pos
	for end < len(p.src) && (p.src[end] == '_' || p.src[end] >= 'a' && p.src[end] <= 'z') {
		end++
	}
	d.name = p.src[p.pos:end]
	p.pos = end
	if d.name == "" {
		return errSudoSyntax
	}
	p.blanks()
	c := p.peek()
	switch {
	case c == '=':
		p.pos++
	case (c == '+' || c == '-') && p.at(1) == '=':
		p.pos += 2
	default:
		return nil
	}
	if d.op = c; d.off {
		return errSudoSyntax
	}
	p.blanks()
	if p.peek() == '"' {
		var ok bool
		if d.value, ok = p.quoted(); !ok {
			return errSudoQuote
		}
		return nil
	}
	if p.peek() == '!' {
		return errSudoSyntax
	}
	if d.value = p.word("#=,"); d.value == "" {
		return errSudoSyntax
	}
	return nil
}
