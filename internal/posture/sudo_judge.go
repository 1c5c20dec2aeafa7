// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"encoding/binary"
	"fmt"
	"strings"
	"time"
)

// sudoVerdict is what the rules allow an account.
type sudoVerdict struct {
	// any is whether there is a command that it may run, all whether it may
	// run every command as some other user, nopasswd whether there is one that
	// it may run without a password.
	any, all, nopasswd, nopasswdAll answer
}

// sudoJudge applies a policy to the accounts of the host. It is not safe for
// concurrent use.
type sudoJudge struct {
	policy *sudoers
	db     *accountDB
	hosts  []string
	// otherwise is the answer where no rule of the files allows anything.
	otherwise answer

	foldUsers, foldGroups bool
	runasDefault          string
	localGroups           map[string]struct{}
	rules                 []judgedRule
	// scopes are what the Defaults about authenticate are limited to, by index.
	scopes map[int]judgedScope
	// steps counts the aliases and commands that were looked at.
	steps    int
	verdicts map[string]sudoVerdict
}

// judgedRule is a rule as it stands on this host.
type judgedRule struct {
	users  []sudoMember
	grants []judgedGrant
}

type judgedScope struct {
	items  []sudoItem
	target sudoTarget
}

type judgedGrant struct {
	host  answer
	items []sudoItem
}

// newSudoJudge prepares a policy for a host with these names at this time.
// With an error, the rules above the limit are left out.
func newSudoJudge(policy *sudoers, db *accountDB, hosts []string, now time.Time) (*sudoJudge, error) {
	j := &sudoJudge{
		policy: policy, db: db, hosts: hosts,
		foldUsers: policy.flag("case_insensitive_user", true), foldGroups: policy.flag("case_insensitive_group", true),
		runasDefault: "root", localGroups: make(map[string]struct{}), verdicts: make(map[string]sudoVerdict), scopes: make(map[int]judgedScope),
	}
	if name, on, set := policy.global("runas_default"); set && on && name != "" {
		j.runasDefault = name
	}
	if db.outside("sudoers") {
		j.otherwise = answerUnknown
	}
	for _, g := range db.groups {
		j.localGroups[j.groupName(g.name)] = struct{}{}
	}
	return j, j.prepare(now)
}

func (j *sudoJudge) prepare(now time.Time) error {
	hosts := j.hostMatcher()
	for i, d := range j.policy.defaults {
		if d.name != "authenticate" {
			continue
		}
		switch d.scope {
		case scopeCommand:
			j.scopes[i] = judgedScope{items: j.expandAll(d.members)}
		case scopeRunas:
			j.scopes[i] = judgedScope{target: j.target(&sudoRunas{users: d.members})}
		}
	}
	for _, rule := range j.policy.rules {
		r := judgedRule{users: rule.users}
		for _, grant := range rule.grants {
			g := judgedGrant{host: hosts.list(grant.hosts).answer()}
			if g.host == answerNo {
				continue
			}
			for _, c := range grant.commands {
				if c.inTime(now) {
					item := sudoItem{target: j.target(c.runas), nopasswd: c.nopasswd}
					g.items = j.expand(g.items, c.member, item, false, make(map[string]bool))
				}
				if j.steps > maxSudoSteps {
					return fmt.Errorf("%s line %d: more than %d commands and aliases: this and later rules are left out", rule.file, rule.line, maxSudoSteps)
				}
			}
			r.grants = append(r.grants, g)
		}
		j.rules = append(j.rules, r)
	}
	return nil
}

// user returns the verdict on an account of passwd(5). Accounts that match
// the same rules share one.
func (j *sudoJudge) user(name string) sudoVerdict {
	i, ok := j.db.userByName[name]
	if !ok || j.policy == nil {
		return sudoVerdict{j.otherwise, j.otherwise, j.otherwise, j.otherwise}
	}
	u := &j.db.users[i]
	m := j.userMatcher(u)
	var items []judgedItem
	var key []byte
	for r, rule := range j.rules {
		says := m.list(rule.users).answer()
		if says == answerNo {
			continue
		}
		key = binary.AppendUvarint(key, uint64(r)<<1|uint64(says>>1))
		for g := range rule.grants {
			items = append(items, judgedItem{min(says, rule.grants[g].host), rule.grants[g].items})
		}
	}
	password := j.passwordDefaults(m)
	key = binary.AppendUvarint(key, uint64(len(j.rules))<<1)
	for _, d := range password {
		key = binary.AppendUvarint(key, uint64(d.index)<<1|uint64(d.says>>1))
	}
	if v, ok := j.verdicts[string(key)]; ok {
		return v
	}
	v := j.judge(flatten(items), password)
	j.verdicts[string(key)] = v
	return v
}

// judgedItem is what a grant gives to one account, and whether it does.
type judgedItem struct {
	applies answer
	items   []sudoItem
}

type appliedItem struct {
	*sudoItem
	applies answer
}

func flatten(grants []judgedItem) []appliedItem {
	var out []appliedItem
	for _, g := range grants {
		for i := range g.items {
			out = append(out, appliedItem{&g.items[i], g.applies})
		}
	}
	return out
}

// judge goes from the last command, which has the final word, to the first.
func (j *sudoJudge) judge(items []appliedItem, password []passwordDefault) sudoVerdict {
	v := sudoVerdict{j.otherwise, j.otherwise, j.otherwise, j.otherwise}
	for i := len(items) - 1; i >= 0; i-- {
		it := items[i]
		if !it.allowed || it.target.void() {
			continue
		}
		free := j.withoutPassword(it.sudoItem, password)
		every := answerNo
		if it.command.kind == sudoAll {
			every = answerYes
		}
		if v.any == answerYes && v.all >= every && v.nopasswd >= free && v.nopasswdAll >= min(every, free) {
			continue
		}
		may := j.stands(items, i, func(later *sudoItem) answer { return yes(!later.allowed) })
		bare := min(free, j.stands(items, i, func(later *sudoItem) answer {
			if !later.allowed {
				return answerYes
			}
			return answerYes - j.withoutPassword(later, password)
		}))
		v.any, v.nopasswd = max(v.any, may), max(v.nopasswd, bare)
		v.all, v.nopasswdAll = max(v.all, min(may, every)), max(v.nopasswdAll, min(bare, every))
	}
	return v
}

// stands tells whether item i applies to some user although later ones, where
// they apply, take over. taken tells whether one that matches whatever i does
// would change the answer.
func (j *sudoJudge) stands(items []appliedItem, i int, taken func(later *sudoItem) answer) answer {
	it := items[i]
	sure, maybe := newSudoRest(&it.target), newSudoRest(&it.target)
	for _, later := range items[i+1:] {
		if !coversCommand(later.command, it.command) || !later.target.holdsGroups(&it.target) {
			continue
		}
		switch min(taken(later.sudoItem), later.applies) {
		case answerYes:
			sure.cut(&later.target)
			maybe.cut(&later.target)
		case answerUnknown:
			maybe.cut(&later.target)
		}
		if sure.empty() {
			return answerNo
		}
	}
	if maybe.empty() {
		return min(it.applies, answerUnknown)
	}
	return it.applies
}

// passwordDefault is a Defaults entry that may spare an account its password.
type passwordDefault struct {
	index int
	says  answer
}

// passwordDefaults are the settings authenticate and exempt_group that may
// apply to the account, in their order.
func (j *sudoJudge) passwordDefaults(m *sudoMatcher) []passwordDefault {
	var out []passwordDefault
	for i := range j.policy.defaults {
		d := &j.policy.defaults[i]
		says := answerYes
		switch d.scope {
		case scopeUser:
			says = m.list(d.members).answer()
		case scopeHost:
			says = j.hostMatcher().list(d.members).answer()
		}
		if d.name == "exempt_group" && d.op == '=' {
			says = min(says, m.single(sudoMember{kind: sudoGroup, name: strings.TrimPrefix(d.value, "%")}))
		} else if d.name != "authenticate" {
			continue
		}
		if says != answerNo {
			out = append(out, passwordDefault{i, says})
		}
	}
	return out
}

// withoutPassword tells whether a command needs none. A tag counts before
// Defaults, exempt_group before both. Defaults for a command or runas user
// count where they may meet the item.
func (j *sudoJudge) withoutPassword(it *sudoItem, password []passwordDefault) answer {
	free, exempt := answerNo, answerNo
	for _, p := range password {
		d := &j.policy.defaults[p.index]
		if d.name == "exempt_group" {
			exempt = p.says
			continue
		}
		if !j.meets(p.index, it) {
			continue
		}
		if p.says == answerYes {
			free = yes(d.off)
		} else if d.off != (free == answerYes) {
			free = answerUnknown
		}
	}
	switch it.nopasswd {
	case tagOn:
		free = answerYes
	case tagOff:
		free = answerNo
	}
	return max(free, exempt)
}

// meets tells whether a Defaults entry for commands or runas users is about
// the item: any part of it where it spares the password, all of it where it
// asks for one.
func (j *sudoJudge) meets(index int, it *sudoItem) bool {
	d, scope := &j.policy.defaults[index], j.scopes[index]
	switch d.scope {
	case scopeCommand:
		for _, m := range scope.items {
			if m.allowed && (coversCommand(m.command, it.command) || d.off && coversCommand(it.command, m.command)) {
				return true
			}
		}
		return false
	case scopeRunas:
		return scope.target.covers(&it.target) || d.off && it.target.meets(&scope.target)
	}
	return true
}
