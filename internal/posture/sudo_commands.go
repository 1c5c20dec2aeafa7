// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"maps"
	"path"
	"strings"
)

// sudoItem is one command of a grant with its aliases replaced.
type sudoItem struct {
	command sudoMember
	target  sudoTarget
	allowed bool
	// nopasswd is whether the rules ask for no password; unknown where no tag
	// and only Defaults say so.
	nopasswd sudoTag
}

// sudoTarget is whom a command may run as. A target that nobody is in makes
// the command void.
type sudoTarget struct {
	// all is everyone but those in except; otherwise it is just users.
	all           bool
	except, users map[string]bool
	groups        map[string]bool
	anyGroup      bool
}

const (
	// maxSudoSteps bounds the commands of a policy with its aliases replaced:
	// aliases of aliases may double at each level.
	maxSudoSteps = 200_000
	// sudoCaller is the user who calls, as a member of sudoTarget.users.
	sudoCaller = "\x00caller"
)

// expand appends the commands that m stands for. negated turns them round;
// inside holds the aliases that are being replaced.
func (j *sudoJudge) expand(items []sudoItem, m sudoMember, c sudoItem, negated bool, inside map[string]bool) []sudoItem {
	if j.steps++; j.steps > maxSudoSteps {
		return items
	}
	negated = negated != m.negated
	if m.kind == sudoAlias {
		members, ok := j.policy.aliases[sudoAliasKey{commandAlias, m.name}]
		if !ok || inside[m.name] {
			return items
		}
		inside[m.name] = true
		for _, member := range members {
			items = j.expand(items, member, c, negated, inside)
		}
		delete(inside, m.name)
		return items
	}
	if m.kind == sudoPath && m.name == "list" {
		return items
	}
	c.command, c.allowed = m, !negated
	c.command.negated = false
	c.command.name = mergedPath(m.name)
	for _, t := range c.target.split() {
		c.target = t
		items = append(items, c)
	}
	return items
}

// mergedPath gives /bin/x and /usr/bin/x one name: they are one file where
// /bin is a link, which sudo(8) tells by the inode.
func mergedPath(name string) string {
	for _, dir := range []string{"/bin/", "/sbin/", "/lib/"} {
		if rest, ok := strings.CutPrefix(name, "/usr"+dir); ok {
			return dir + rest
		}
	}
	return name
}

func (j *sudoJudge) expandAll(members []sudoMember) []sudoItem {
	var items []sudoItem
	for _, m := range members {
		items = j.expand(items, m, sudoItem{}, false, make(map[string]bool))
	}
	return items
}

// target works out whom (users : groups) allows.
func (j *sudoJudge) target(r *sudoRunas) sudoTarget {
	t := sudoTarget{users: make(map[string]bool), except: make(map[string]bool), groups: make(map[string]bool)}
	switch {
	case r == nil:
		t.users[j.userName(j.runasDefault)] = true
	case len(r.users) == 0:
		t.users[sudoCaller] = true
	default:
		j.addTarget(&t, r.users, false, make(map[string]bool))
	}
	if r != nil {
		groups := sudoTarget{users: t.groups, except: make(map[string]bool)}
		j.addTarget(&groups, r.groups, false, make(map[string]bool))
		t.anyGroup = groups.all
	}
	return t
}

// addTarget applies a list in its order, so that the last word wins.
func (j *sudoJudge) addTarget(t *sudoTarget, members []sudoMember, negated bool, inside map[string]bool) {
	for _, m := range members {
		out := negated != m.negated
		if m.kind == sudoAlias && !inside[m.name] {
			if list, ok := j.policy.aliases[sudoAliasKey{runasAlias, m.name}]; ok {
				inside[m.name] = true
				j.addTarget(t, list, out, inside)
				// Not removed: a second time adds what is there already, and
				// aliases of aliases would double at each level.
				continue
			}
		}
		switch name := j.targetName(m); {
		case m.kind == sudoAll:
			t.all = !out
			clear(t.users)
			clear(t.except)
		case out && t.all:
			t.except[name] = true
		case out:
			delete(t.users, name)
		case t.all:
			delete(t.except, name)
		default:
			t.users[name] = true
		}
	}
}

// targetName is the name of a user, by number as well, or of another member
// with its prefix.
func (j *sudoJudge) targetName(m sudoMember) string {
	switch m.kind {
	case sudoID:
		if id, err := parseID("", m.name); err == nil {
			if i, ok := j.db.userByID[id]; ok {
				return j.userName(j.db.users[i].name)
			}
		}
		return "#" + m.name
	case sudoGroup:
		return "%" + j.groupName(m.name)
	case sudoGroupID:
		return "%#" + m.name
	case sudoNetgroup:
		return "+" + m.name
	case sudoOtherGroup:
		return "%:" + m.name
	}
	return j.userName(m.name)
}

func (t *sudoTarget) void() bool { return !t.all && len(t.users) == 0 }

// split returns the target without groups and with each of its groups, so
// that each can be forbidden by itself.
func (t sudoTarget) split() []sudoTarget {
	groups, anyGroup := t.groups, t.anyGroup
	t.groups, t.anyGroup = nil, false
	var out []sudoTarget
	if !t.users[sudoCaller] || len(groups) == 0 && !anyGroup {
		out = append(out, t)
	}
	if anyGroup {
		t.anyGroup = true
		return append(out, t)
	}
	for g := range groups {
		t.groups = map[string]bool{g: true}
		out = append(out, t)
	}
	return out
}

// holdsGroups tells whether the groups of o are in t as well.
func (t *sudoTarget) holdsGroups(o *sudoTarget) bool {
	if t.anyGroup {
		return o.anyGroup || len(o.groups) > 0
	}
	for g := range o.groups {
		if !t.groups[g] {
			return false
		}
	}
	return !o.anyGroup && len(o.groups) == len(t.groups)
}

// holds tells whether a user is in t for sure: a group or netgroup that is
// left out may hold anybody.
func (t *sudoTarget) holds(user string) bool {
	if t.users[user] {
		return true
	}
	for e := range t.except {
		if e == user || strings.HasPrefix(e, "%") || strings.HasPrefix(e, "+") {
			return false
		}
	}
	return t.all
}

// meets tells whether t and o may have a user in common.
func (t *sudoTarget) meets(o *sudoTarget) bool {
	if t.all && o.all {
		return true
	}
	for u := range t.users {
		if o.users[u] || o.all && !o.except[u] {
			return true
		}
	}
	for u := range o.users {
		if t.all && !t.except[u] {
			return true
		}
	}
	return false
}

// covers tells whether everyone in o is in t for sure.
func (t *sudoTarget) covers(o *sudoTarget) bool {
	rest := newSudoRest(o)
	rest.cut(t)
	return rest.empty()
}

// sudoRest is what is left of a target when others have been cut from it.
type sudoRest struct {
	of *sudoTarget
	// others are all that are neither in of.except nor in cutOff. Without
	// others, left are those that remain, by name.
	others       bool
	left, cutOff map[string]bool
}

func newSudoRest(of *sudoTarget) *sudoRest {
	return &sudoRest{of: of, others: of.all, left: maps.Clone(of.users), cutOff: make(map[string]bool)}
}

func (r *sudoRest) empty() bool { return !r.others && len(r.left) == 0 }

func (r *sudoRest) cut(t *sudoTarget) {
	switch {
	case !r.others:
		maps.DeleteFunc(r.left, func(u string, _ bool) bool { return t.holds(u) })
	case !t.all:
		maps.Copy(r.cutOff, t.users)
	default:
		r.others, r.left = false, make(map[string]bool)
		for u := range t.except {
			if !r.of.except[u] && !r.cutOff[u] {
				r.left[u] = true
			}
		}
	}
}

// coversCommand tells whether c matches whatever o matches. In doubt it does
// not.
func coversCommand(c, o sudoMember) bool {
	if c.digest != "" && c.digest != o.digest {
		return false
	}
	if c.kind == sudoAll {
		return true
	}
	if o.kind == sudoAll {
		return false
	}
	if c.hasArgs && (!o.hasArgs || c.args != o.args) {
		return false
	}
	if c.name == o.name {
		return true
	}
	// A pattern never matches a slash, so its directory says enough.
	if dir, ok := strings.CutSuffix(c.name, "/"); ok && !strings.HasPrefix(o.name, "^") {
		return path.Dir(o.name) == dir
	}
	if strings.ContainsAny(o.name, `*?[\^`) || strings.HasPrefix(c.name, "^") {
		return false
	}
	ok, err := path.Match(strings.ReplaceAll(c.name, "[!", "[^"), o.name)
	return ok && err == nil
}
