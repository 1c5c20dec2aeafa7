// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"errors"
	"fmt"
	"strings"

	"security-exporter/internal/hostfs"
)

// countUsers counts the accounts that are bad. With an error of some lines,
// the others are looked at.
func (h *checkHost) countUsers(bad func(db *accountDB, u *passwdEntry) bool) (findings int, err error) {
	db, err := h.accounts()
	if db == nil {
		return 0, err
	}
	for i := range db.users {
		if bad(db, &db.users[i]) {
			findings++
		}
	}
	return findings, err
}

func checkRootOnly(h *checkHost) (int, error) {
	return h.countUsers(func(_ *accountDB, u *passwdEntry) bool { return u.uid == 0 && u.name != "root" })
}

func checkRootGroup(h *checkHost) (int, error) {
	return h.countUsers(func(_ *accountDB, u *passwdEntry) bool { return u.name == "root" && u.gid != 0 })
}

func checkEmptyPassword(h *checkHost) (int, error) {
	db, err := h.accounts()
	if db == nil {
		return 0, err
	}
	shadow, errShadow := h.shadow()
	if errors.Is(errShadow, hostfs.ErrNotExist) {
		errShadow = nil
	}
	return db.secretStates(shadow.entries, h.today())["empty_password"], errors.Join(err, errShadow)
}

func checkCompatEntries(h *checkHost) (int, error) {
	db, err := h.accounts()
	if db == nil {
		return 0, err
	}
	shadow, errShadow := h.shadow()
	if errors.Is(errShadow, hostfs.ErrNotExist) {
		errShadow = nil
	}
	return len(db.compat) + len(shadow.compat), errors.Join(err, errShadow)
}

func checkPrimaryGroup(h *checkHost) (int, error) {
	return h.countUsers(func(db *accountDB, u *passwdEntry) bool {
		_, ok := db.groupByID[u.gid]
		return !ok && !db.outside("group")
	})
}

func checkUnique(h *checkHost) (int, error) {
	db, err := h.accounts()
	if db == nil {
		return 0, err
	}
	states := db.states(nil)
	name, gid := db.duplicateGroups()
	return states["duplicate_name"] + states["duplicate_uid"] + name + gid, err
}

func checkSystemLogin(h *checkHost) (int, error) {
	least, _, errDefs := h.uidRange()
	shells, errShells := readShells(h.ctx, h.in.Rootfs)
	findings, err := h.countUsers(func(_ *accountDB, u *passwdEntry) bool {
		return u.uid != 0 && u.uid < least && loginShell(u.shell, shells) != shellNone
	})
	return findings, joinUnlessMissing(err, errDefs, errShells)
}

// maxHomes is how many homes are looked at: each may be on a server.
// maxHungHomes is after how many that do not answer no other is tried, because
// each costs hostfs.CallTimeout.
const (
	maxHomes     = 1024
	maxHungHomes = 2
)

func checkHomes(h *checkHost) (int, error) {
	least, most, errDefs := h.uidRange()
	shells, errShells := readShells(h.ctx, h.in.Rootfs)
	problems := []error{errDefs, errShells}
	seen, hung := 0, 0
	findings, err := h.countUsers(func(_ *accountDB, u *passwdEntry) bool {
		if u.uid < least || u.uid > most || loginShell(u.shell, shells) == shellNone {
			return false
		}
		if seen++; seen > maxHomes || hung == maxHungHomes {
			return false
		}
		st, err := h.homes.Stat(h.ctx, "/"+strings.TrimLeft(u.home, "/"))
		if errors.Is(err, hostfs.ErrHung) {
			if hung++; hung == maxHungHomes {
				err = fmt.Errorf("%w: no further home is looked at", err)
			}
		}
		switch {
		case unlessMissing(err) != nil:
			problems = append(problems, err)
			return false
		case err != nil:
			return true
		}
		return !st.Mode.IsDir() || st.UID != u.uid || st.Perm&0o022 != 0
	})
	if seen > maxHomes {
		problems = append(problems, errors.New("more homes than are looked at (1024)"))
	}
	return findings, joinUnlessMissing(err, problems...)
}

// joinUnlessMissing keeps the main error as it is where it says that the host
// has no such thing.
func joinUnlessMissing(main error, others ...error) error {
	if errors.Is(main, hostfs.ErrNotExist) {
		return main
	}
	return errors.Join(append(others, main)...)
}

// ageCheck looks at a setting of login.defs(5), unless key is empty, and at
// each account that a password opens.
func (h *checkHost) ageCheck(key string, good func(days int64) bool, days func(*shadowEntry) int64) (findings int, err error) {
	var problems []error
	if key != "" {
		settings, err := h.loginDefs()
		problems = append(problems, err)
		if settings != nil {
			n, ok := loginDefsNumber(settings[key])
			if !ok {
				n = noDays
			}
			if !good(n) {
				findings++
			}
		}
	}
	entries, err := h.withPassword()
	problems = append(problems, err)
	for i := range entries {
		if !good(days(&entries[i])) {
			findings++
		}
	}
	return findings, errors.Join(problems...)
}

func checkMaxAge(h *checkHost) (int, error) {
	return h.ageCheck("PASS_MAX_DAYS", func(d int64) bool { return d > 0 && d <= 365 }, func(e *shadowEntry) int64 { return e.maxAge })
}

func checkMinAge(h *checkHost) (int, error) {
	return h.ageCheck("PASS_MIN_DAYS", func(d int64) bool { return d >= 1 }, func(e *shadowEntry) int64 { return e.minAge })
}

func checkWarning(h *checkHost) (int, error) {
	return h.ageCheck("PASS_WARN_AGE", func(d int64) bool { return d >= 7 }, func(e *shadowEntry) int64 { return e.warning })
}

func checkInactive(h *checkHost) (int, error) {
	return h.ageCheck("", func(d int64) bool { return d >= 0 && d <= 45 }, func(e *shadowEntry) int64 { return e.inactive })
}

func checkChangePast(h *checkHost) (int, error) {
	return h.ageCheck("", func(d int64) bool { return d <= h.today() }, func(e *shadowEntry) int64 { return e.lastChange })
}

// strongHashes are the schemes that are slow to guess.
var strongHashes = map[string]bool{
	"yescrypt": true, "gost_yescrypt": true, "sm3_yescrypt": true, "scrypt": true, "bcrypt": true, "sha512crypt": true,
}

func checkHash(h *checkHost) (findings int, err error) {
	entries, err := h.withPassword()
	for _, e := range entries {
		if !strongHashes[e.secret.scheme] {
			findings++
		}
	}
	return findings, err
}

// sudoGlobal looks at a setting for everyone.
func (h *checkHost) sudoGlobal(good func(value string, on, set bool) bool, name string) (int, error) {
	judge, err := h.sudo()
	if judge == nil {
		return 0, err
	}
	if !good(judge.policy.global(name)) {
		return 1, err
	}
	return 0, err
}

func checkUsePty(h *checkHost) (int, error) {
	return h.sudoGlobal(func(_ string, on, set bool) bool { return set && on }, "use_pty")
}

func checkSudoLogfile(h *checkHost) (int, error) {
	return h.sudoGlobal(func(value string, on, set bool) bool { return set && on && value != "" }, "logfile")
}

func checkNopasswdAll(h *checkHost) (findings int, err error) {
	judge, err := h.sudo()
	if judge == nil {
		return 0, err
	}
	problems := []error{err}
	unknown := 0
	for i := range judge.db.users {
		u := &judge.db.users[i]
		if u.uid == 0 {
			continue
		}
		if i%1024 == 0 && h.ctx.Err() != nil {
			return findings, h.ctx.Err()
		}
		switch judge.user(u.name).nopasswdAll {
		case answerYes:
			findings++
		case answerUnknown:
			unknown++
		}
	}
	if unknown > 0 {
		problems = append(problems, errors.New("a source of sudoers that is not read decides for some accounts"))
	}
	return findings, errors.Join(problems...)
}
