// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"path"
	"strconv"
	"strings"
	"time"
)

// answer is no, unknown or yes, in that order: unknown where a source that is
// not read decides.
type answer uint8

const (
	answerNo answer = iota
	answerUnknown
	answerYes
)

// String is the value of the label has_sudo.
func (a answer) String() string { return [...]string{"false", "unknown", "true"}[a] }

// sudoMatch is what a list says about something: nothing, that it is in, that
// it is explicitly not, or that this cannot be told.
type sudoMatch uint8

const (
	matchNone sudoMatch = iota
	matchIn
	matchOut
	matchUnknown
)

func (m sudoMatch) negate() sudoMatch {
	switch m {
	case matchIn:
		return matchOut
	case matchOut:
		return matchIn
	}
	return m
}

func (m sudoMatch) answer() answer {
	switch m {
	case matchIn:
		return answerYes
	case matchUnknown:
		return answerUnknown
	}
	return answerNo
}

// sudoMatcher looks things up in lists, aliases included. seen holds what an
// alias was found to say, so that aliases of aliases cost their number and a
// loop ends: an alias inside itself is a word, as for sudo(8).
type sudoMatcher struct {
	policy *sudoers
	kind   sudoAliasKind
	// single answers for a member that is neither ALL nor an alias.
	single func(m sudoMember) answer
	seen   map[string]sudoMatch
}

// list returns what the last member that matches says.
func (m *sudoMatcher) list(members []sudoMember) sudoMatch {
	result := matchNone
	for _, member := range members {
		says := m.member(member)
		if member.negated {
			says = says.negate()
		}
		if says != matchNone {
			result = says
		}
	}
	return result
}

func (m *sudoMatcher) member(member sudoMember) sudoMatch {
	switch member.kind {
	case sudoAll:
		return matchIn
	case sudoAlias:
		if says, ok := m.seen[member.name]; ok {
			return says
		}
		members, ok := m.policy.aliases[sudoAliasKey{m.kind, member.name}]
		if !ok {
			break
		}
		if m.seen == nil {
			m.seen = make(map[string]sudoMatch)
		}
		m.seen[member.name] = matchNone
		says := m.list(members)
		m.seen[member.name] = says
		return says
	}
	switch m.single(member) {
	case answerYes:
		return matchIn
	case answerUnknown:
		return matchUnknown
	}
	return matchNone
}

// userMatcher looks up an account.
func (j *sudoJudge) userMatcher(u *passwdEntry) *sudoMatcher {
	groups := make(map[string]bool)
	gids := map[uint32]bool{u.gid: true}
	if i, ok := j.db.groupByID[u.gid]; ok {
		groups[j.groupName(j.db.groups[i].name)] = true
	}
	for _, i := range j.db.memberOf[u.name] {
		groups[j.groupName(j.db.groups[i].name)] = true
		gids[j.db.groups[i].gid] = true
	}
	return &sudoMatcher{policy: j.policy, kind: userAlias, single: func(m sudoMember) answer {
		switch m.kind {
		case sudoWord, sudoAlias:
			return yes(j.userName(m.name) == j.userName(u.name))
		case sudoID:
			n, err := strconv.ParseUint(m.name, 10, 32)
			return yes(err == nil && uint32(n) == u.uid)
		case sudoGroup:
			return j.group(groups[j.groupName(m.name)], m.name)
		case sudoGroupID:
			n, err := strconv.ParseUint(m.name, 10, 32)
			return yes(err == nil && gids[uint32(n)])
		}
		return answerUnknown
	}}
}

// group is the answer about membership in a group: where it is not one of the
// host's own, another source may know it.
func (j *sudoJudge) group(member bool, name string) answer {
	if _, local := j.localGroups[j.groupName(name)]; !member && !local && j.db.outside("group") {
		return answerUnknown
	}
	return yes(member)
}

func yes(b bool) answer {
	if b {
		return answerYes
	}
	return answerNo
}

// userName and groupName fold case as the policy wants it: on by default.
func (j *sudoJudge) userName(s string) string  { return fold(s, j.foldUsers) }
func (j *sudoJudge) groupName(s string) string { return fold(s, j.foldGroups) }

func fold(s string, on bool) string {
	if on {
		return strings.ToLower(s)
	}
	return s
}

// hostMatcher looks up this host under each of its names.
func (j *sudoJudge) hostMatcher() *sudoMatcher {
	return &sudoMatcher{policy: j.policy, kind: hostAlias, single: func(m sudoMember) answer {
		if m.kind != sudoWord && m.kind != sudoAlias {
			return answerUnknown
		}
		pattern := strings.ReplaceAll(strings.ToLower(m.name), "[!", "[^")
		for _, host := range j.hosts {
			host = strings.ToLower(host)
			if !strings.Contains(pattern, ".") {
				host, _, _ = strings.Cut(host, ".")
			}
			if ok, err := path.Match(pattern, host); ok && err == nil {
				return answerYes
			}
		}
		// With fqdn, sudo(8) asks the resolver for a name that is not here.
		if strings.Contains(pattern, ".") && j.policy.flag("fqdn", false) {
			return answerUnknown
		}
		return answerNo
	}}
}

// inTime tells whether a command with NOTBEFORE and NOTAFTER holds now.
func (c *sudoCommand) inTime(now time.Time) bool {
	if t, ok := generalizedTime(c.notBefore); ok && now.Before(t) {
		return false
	}
	if t, ok := generalizedTime(c.notAfter); ok && now.After(t) {
		return false
	}
	return true
}

// generalizedTime reads the times of sudoers(5), such as 20300102030405Z.
// Without a zone they are local; a clock in UTC is assumed.
func generalizedTime(text string) (time.Time, bool) {
	for _, layout := range []string{"20060102150405", "200601021504", "2006010215"} {
		for _, zone := range []string{"Z", "Z0700", ""} {
			if t, err := time.Parse(layout+zone, text); err == nil {
				return t, true
			}
		}
	}
	return time.Time{}, false
}
