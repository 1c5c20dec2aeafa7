// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"bytes"
	"context"
	"errors"
	"slices"

	"security-exporter/internal/hostfs"
)

const (
	passwdFile = "/etc/passwd"
	groupFile  = "/etc/group"
)

// accountDB is what the host itself says about accounts: passwd(5), group(5)
// and nsswitch.conf(5). Nothing outside, such as LDAP, is asked.
type accountDB struct {
	users  []passwdEntry
	groups []groupEntry
	compat []compatEntry
	// sources are those of nsswitch.conf by data base.
	sources map[string][]string
	// noGroups is set where group(5) is there but cannot be read.
	noGroups bool

	// The first entry of a name or number counts.
	userByName  map[string]int
	userByID    map[uint32]int
	groupByName map[string]int
	groupByID   map[uint32]int
	memberOf    map[string][]int
}

// localSources have nothing beyond the files that are read here: systemd(8)
// adds root, nobody and users of running units.
var localSources = []string{"files", "compat", "systemd"}

// readAccounts reads the data base. With an error it holds what could be
// read, nil without a passwd file.
func readAccounts(ctx context.Context, root *hostfs.Tree) (*accountDB, error) {
	b, err := root.ReadFile(ctx, passwdFile)
	if err != nil {
		return nil, err
	}
	db := &accountDB{}
	var problems []error
	db.users, db.compat, err = parsePasswd(bytes.NewReader(b))
	problems = append(problems, err)

	b, err = readOptional(ctx, root, groupFile)
	problems = append(problems, err)
	db.noGroups = err != nil
	groups, compat, err := parseGroup(bytes.NewReader(b))
	problems = append(problems, err)
	db.groups = groups
	db.compat = append(db.compat, compat...)

	b, err = readOptional(ctx, root, "/etc/nsswitch.conf", "/usr/etc/nsswitch.conf")
	problems = append(problems, err)
	db.sources, err = parseNSSwitch(bytes.NewReader(b))
	problems = append(problems, err)
	db.index()
	return db, errors.Join(problems...)
}

// readOptional reads the first of the files that exists; none is no content
// and no error.
func readOptional(ctx context.Context, root *hostfs.Tree, files ...string) ([]byte, error) {
	for _, f := range files {
		b, err := root.ReadFile(ctx, f)
		if !errors.Is(err, hostfs.ErrNotExist) {
			return b, err
		}
	}
	return nil, nil
}

func (db *accountDB) index() {
	db.userByName, db.userByID = make(map[string]int, len(db.users)), make(map[uint32]int, len(db.users))
	for i, u := range slices.Backward(db.users) {
		db.userByName[u.name], db.userByID[u.uid] = i, i
	}
	db.groupByName, db.groupByID = make(map[string]int, len(db.groups)), make(map[uint32]int, len(db.groups))
	for i, g := range slices.Backward(db.groups) {
		db.groupByName[g.name], db.groupByID[g.gid] = i, i
	}
	db.memberOf = make(map[string][]int)
	for i, g := range db.groups {
		for _, m := range g.members {
			if of := db.memberOf[m]; len(of) == 0 || of[len(of)-1] != i {
				db.memberOf[m] = append(of, i)
			}
		}
	}
}

// outside tells whether a data base of nsswitch.conf(5) has a source that is
// not read here, so that what the files do not say may still be so.
func (db *accountDB) outside(database string) bool {
	if database == "group" && db.noGroups {
		return true
	}
	for _, s := range db.sources[database] {
		if !slices.Contains(localSources, s) || s == "compat" && len(db.compat) > 0 {
			return true
		}
	}
	return false
}

// otherGroups are the groups that list the user, in the order of group(5),
// the primary one left out.
func (db *accountDB) otherGroups(u *passwdEntry) []string {
	var names []string
	for _, i := range db.memberOf[u.name] {
		if db.groups[i].gid != u.gid {
			names = append(names, db.groups[i].name)
		}
	}
	return names
}
