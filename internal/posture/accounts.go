// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"bytes"
	"context"
	"errors"
	"path"
	"slices"
	"strconv"
	"strings"

	"security-exporter/internal/hostfs"
	"security-exporter/internal/metric"
)

// Reads /etc/passwd (passwd(5)), /etc/group (group(5)), /etc/shells
// (shells(5)), /etc/nsswitch.conf (nsswitch.conf(5)), /etc/shadow (shadow(5))
// and, for has_sudo, what the collector sudo reads. Accounts of other sources,
// such as LDAP, are not listed; account_source_info says that there are some.

// The values of the label state: those that passwd(5) tells by itself, those
// that need shells(5) and those that need shadow(5).
var (
	passwdStates = []string{"uid0", "duplicate_name", "duplicate_uid"}
	shellStates  = []string{"login_shell", "unlisted_shell"}
	shadowStates = []string{"empty_password", "locked", "no_password", "expired", "must_change"}
)

type accountsMetrics struct {
	info, accounts, groups, source *metric.Metric
}

func accountsCollector() Spec {
	m := accountsMetrics{
		info: metric.NewLegacy("linux_security_account_info", "Account of passwd; always 1.",
			metric.Open("username", "Name."), metric.Open("home_dir", "Home directory."), metric.Open("shell", "Shell, empty for /bin/sh."),
			metric.Open("primary_group", "Name of the primary group, its number if it has none."),
			metric.Open("other_groups", "Comma list of the other groups of group(5)."),
			metric.Open("has_sudo", "true if sudoers allows at least one command, false, or unknown if a source that is not read decides.")),
		accounts: metric.New(metric.Gauge, "linux_security_accounts",
			"Accounts of passwd in a state: uid0; login_shell (one that shells(5) lists); unlisted_shell (another one, but for nologin, false, sync, halt, shutdown and /dev/null); "+
				"duplicate_name and duplicate_uid (an earlier line has it); empty_password (none needed); locked (with a !); no_password (no password fits); "+
				"expired (account, or password beyond its grace); must_change (at the next login). Those that need a file which cannot be read are absent.",
			metric.Closed("state", slices.Concat(passwdStates, shellStates, shadowStates)...)),
		groups: metric.New(metric.Gauge, "linux_security_groups",
			"Lines of group with a name or number that an earlier line has.", metric.Closed("state", "duplicate_name", "duplicate_gid")),
		source: metric.NewState("linux_security_account_source_info",
			"Source of accounts in nsswitch.conf; those other than files, compat and systemd are not looked into. Always 1.",
			metric.Closed("database", "passwd", "group", "shadow", "sudoers"), metric.Open("source", "Name as in nsswitch.conf(5).")),
	}
	return Spec{
		Name:    "accounts",
		Help:    "Accounts, groups, shells and who may use sudo.",
		Metrics: []*metric.Metric{m.info, m.accounts, m.groups, m.source},
		Watch:   append([]string{passwdFile, groupFile, "/etc/shells", "/etc/nsswitch.conf", shadowFile}, sudoersWatch...),
		Collect: m.collect,
	}
}

func (m *accountsMetrics) collect(ctx context.Context, in *Input, out *metric.Batch) error {
	db, err := readAccounts(ctx, in.Rootfs)
	if db == nil {
		return err
	}
	problems := []error{err}
	for _, database := range m.source.Labels[0].Values {
		for _, s := range db.sources[database] {
			out.Add(m.source, 1, database, s)
		}
	}
	shells, err := readShells(ctx, in.Rootfs)
	problems = append(problems, err)
	states := db.states(shells)
	m.addStates(passwdStates, states, out)
	if err == nil {
		m.addStates(shellStates, states, out)
	}
	if !db.noGroups {
		name, gid := db.duplicateGroups()
		out.Add(m.groups, float64(name), "duplicate_name")
		out.Add(m.groups, float64(gid), "duplicate_gid")
	}

	shadow, _, err := readShadow(ctx, in.Rootfs)
	if errors.Is(err, hostfs.ErrNotExist) {
		shadow, err = []shadowEntry{}, nil
	}
	problems = append(problems, err)
	if shadow != nil {
		m.addStates(shadowStates, db.secretStates(shadow, in.Now().Unix()/secondsOfDay), out)
	}
	sudo, err := readSudo(ctx, in, db)
	if sudo.policy != nil || !errors.Is(err, hostfs.ErrNotExist) {
		problems = append(problems, err)
	}
	if err := m.addInfo(ctx, db, sudo, out); err != nil {
		return err
	}
	return Partial(errors.Join(problems...))
}

func (m *accountsMetrics) addStates(states []string, count map[string]int, out *metric.Batch) {
	for _, s := range states {
		out.Add(m.accounts, float64(count[s]), s)
	}
}

func (m *accountsMetrics) addInfo(ctx context.Context, db *accountDB, sudo *sudoJudge, out *metric.Batch) error {
	if out.SkipLegacy {
		return nil
	}
	for i := range db.users {
		if i%1024 == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		u := &db.users[i]
		primary := strconv.FormatUint(uint64(u.gid), 10)
		if g, ok := db.groupByID[u.gid]; ok {
			primary = db.groups[g].name
		}
		out.Add(m.info, 1, u.name, u.home, u.shell, primary, strings.Join(db.otherGroups(u), ","), sudo.user(u.name).any.String())
	}
	return nil
}

// states counts the accounts that are in each of passwdStates and shellStates.
func (db *accountDB) states(shells []string) map[string]int {
	count := make(map[string]int)
	for i, u := range db.users {
		if u.uid == 0 {
			count["uid0"]++
		}
		switch loginShell(u.shell, shells) {
		case shellListed:
			count["login_shell"]++
		case shellUnlisted:
			count["unlisted_shell"]++
		}
		if db.userByName[u.name] != i {
			count["duplicate_name"]++
		}
		if db.userByID[u.uid] != i {
			count["duplicate_uid"]++
		}
	}
	return count
}

func (db *accountDB) duplicateGroups() (name, gid int) {
	for i, g := range db.groups {
		if db.groupByName[g.name] != i {
			name++
		}
		if db.groupByID[g.gid] != i {
			gid++
		}
	}
	return name, gid
}

// secretStates counts the accounts that are in each of shadowStates on the
// given day since 1970-01-01. An account that is to be in shadow(5) but is
// not has no password that fits.
func (db *accountDB) secretStates(shadow []shadowEntry, today int64) map[string]int {
	byName := make(map[string]int, len(shadow))
	for i, e := range slices.Backward(shadow) {
		byName[e.name] = i
	}
	count := make(map[string]int)
	for _, u := range db.users {
		s := u.secret
		if i, ok := byName[u.name]; ok {
			if e := &shadow[i]; e.expired(today) {
				count["expired"]++
			} else if e.mustChange(today) {
				count["must_change"]++
			}
			if s.state == secretElsewhere {
				s = shadow[i].secret
			}
		}
		switch {
		case s.locked:
			count["locked"]++
		case s.state == secretEmpty:
			count["empty_password"]++
		case s.state != secretHash:
			count["no_password"]++
		}
	}
	return count
}

type shellKind uint8

const (
	shellNone shellKind = iota
	shellListed
	shellUnlisted
)

// notShells are the programs, in the directories of the system, that stand in
// place of a shell and let nobody work.
var notShells = []string{"nologin", "false", "sync", "halt", "shutdown"}

// loginShell tells whether a shell lets its user work. An empty one is
// /bin/sh. notShells do not, even where shells(5) lists them.
func loginShell(shell string, listed []string) shellKind {
	if shell == "" {
		shell = "/bin/sh"
	}
	dir, base := path.Split(strings.TrimPrefix(shell, "/usr"))
	switch {
	case (dir == "/bin/" || dir == "/sbin/") && slices.Contains(notShells, base), shell == "/dev/null":
		return shellNone
	case slices.Contains(listed, shell):
		return shellListed
	}
	return shellUnlisted
}

// readShells returns the shells of shells(5), or those of getusershell(3)
// where there is no such file.
func readShells(ctx context.Context, root *hostfs.Tree) ([]string, error) {
	b, err := readOptional(ctx, root, "/etc/shells", "/usr/etc/shells")
	if err != nil {
		return nil, err
	}
	if b == nil {
		return []string{"/bin/sh", "/bin/csh"}, nil
	}
	return parseShells(bytes.NewReader(b))
}
