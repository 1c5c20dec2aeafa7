// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"security-exporter/internal/hostfs"
)

// sudoers is what the files of sudoers(5) say, aliases not yet replaced.
type sudoers struct {
	// rules are the user specifications in the order in which they are read,
	// which counts: of two that match the last wins.
	rules    []sudoRule
	defaults []sudoDefault
	aliases  map[sudoAliasKey][]sudoMember
	// files are those that were read, in order, included ones after the file
	// that includes them.
	files []string
}

// sudoRule is one user specification: these users may, on the hosts of a
// grant, run its commands.
type sudoRule struct {
	file   string
	line   int
	users  []sudoMember
	grants []sudoGrant
}

type sudoGrant struct {
	hosts    []sudoMember
	commands []sudoCommand
}

// sudoCommand is one command of a rule. What the ones before it in the same
// grant said of runas, tags and times, and this one did not change, is filled
// in.
type sudoCommand struct {
	member sudoMember
	runas  *sudoRunas
	// nopasswd, noexec and setenv are what the tags say.
	nopasswd, noexec, setenv sudoTag
	// notBefore and notAfter are as written, empty if not set.
	notBefore, notAfter string
}

// sudoTag is the state of a tag such as NOPASSWD: its default, on, or off by
// its opposite.
type sudoTag uint8

const (
	tagUnset sudoTag = iota
	tagOn
	tagOff
)

// sudoRunas is (users : groups). nil stands for the default, which is root
// unless Defaults say otherwise; both empty for the user that calls.
type sudoRunas struct {
	users, groups []sudoMember
}

// sudoKind is what a member of a list is.
type sudoKind uint8

const (
	// sudoWord is a name of a user, host or group.
	sudoWord sudoKind = iota
	sudoAll
	// sudoAlias is a name in capitals; without a definition it is a sudoWord.
	sudoAlias
	// sudoID is #uid, sudoGroup %group, sudoGroupID %#gid.
	sudoID
	sudoGroup
	sudoGroupID
	// sudoNetgroup is +netgroup, sudoOtherGroup the %:group of a plug-in,
	// sudoNetwork an address or network: none can be resolved here.
	sudoNetgroup
	sudoOtherGroup
	sudoNetwork
	// sudoPath is a command.
	sudoPath
)

// sudoMember is one member of a list. name has no prefix and no escapes, for
// sudoPath it is the command's path.
type sudoMember struct {
	kind    sudoKind
	negated bool
	name    string
	// args are the arguments of a sudoPath, joined by blanks: any where
	// hasArgs is false, none where they are "".
	args    string
	hasArgs bool
	// digest is that of a command, as written.
	digest string
}

// sudoScope is where a Defaults entry applies.
type sudoScope byte

const (
	scopeAll     sudoScope = ' '
	scopeHost    sudoScope = '@'
	scopeUser    sudoScope = ':'
	scopeCommand sudoScope = '!'
	scopeRunas   sudoScope = '>'
)

// sudoDefault is one setting of a Defaults entry.
type sudoDefault struct {
	file  string
	line  int
	scope sudoScope
	// members are what the scope is limited to, nil for scopeAll.
	members []sudoMember
	name    string
	// op is 0 for a flag, '=', '+' or '-' for one with a value; off is a flag
	// or value behind an odd number of exclamation marks.
	op    byte
	off   bool
	value string
}

// sudoAliasKey names an alias: the four kinds have names of their own.
type sudoAliasKey struct {
	kind sudoAliasKind
	name string
}

type sudoAliasKind uint8

const (
	userAlias sudoAliasKind = iota
	runasAlias
	hostAlias
	commandAlias
)

// global returns the last value of a setting that holds for everyone: on
// tells whether it is switched on, set whether any entry names it.
func (s *sudoers) global(name string) (value string, on, set bool) {
	for _, d := range s.defaults {
		if d.scope == scopeAll && d.name == name && d.op != '+' && d.op != '-' {
			value, on, set = d.value, !d.off, true
		}
	}
	return value, on, set
}

// flag is global for a setting that is on or off.
func (s *sudoers) flag(name string, otherwise bool) bool {
	_, on, set := s.global(name)
	if !set {
		return otherwise
	}
	return on
}

const (
	sudoersFile       = "/etc/sudoers"
	vendorSudoersFile = "/usr/etc/sudoers"

	// sudo(8) goes 128 files deep; the total keeps files that include one
	// another from being read for ever.
	maxSudoersDepth = 128
	maxSudoersFiles = 1000
	maxSudoersBytes = 4 << 20
	maxSudoersRules = 100_000
	maxSudoAliases  = 10_000
)

// sudoersWatch are the files that sudoers is made of on every distribution.
// What it includes from elsewhere is read at each interval.
var sudoersWatch = []string{sudoersFile, "/etc/sudoers.d/*", vendorSudoersFile, "/usr/etc/sudoers.d/*"}

// sudoersReader reads a file and what it includes.
type sudoersReader struct {
	ctx      context.Context
	root     *hostfs.Tree
	host     string
	out      *sudoers
	problems []error
	opened   int
	// open are the files that are being read: what includes the next one.
	open []string
}

// readSudoers reads /etc/sudoers, or /usr/etc/sudoers where that is missing,
// with the files it includes. host is the short name of the host, for %h.
// With an error, it holds the entries without fault: sudo(8) ignores the
// others as well. It is nil if the first file cannot be read.
func readSudoers(ctx context.Context, root *hostfs.Tree, host string) (*sudoers, error) {
	r := &sudoersReader{ctx: ctx, root: root, host: host, out: newSudoers()}
	err := r.read(sudoersFile)
	if errors.Is(err, hostfs.ErrNotExist) {
		// A vendor's file that cannot be read is no missing one.
		if vendor := r.read(vendorSudoersFile); !errors.Is(vendor, hostfs.ErrNotExist) {
			err = vendor
		}
	}
	if err != nil {
		return nil, err
	}
	return r.out, errors.Join(r.problems...)
}

func newSudoers() *sudoers { return &sudoers{aliases: make(map[sudoAliasKey][]sudoMember)} }

func (r *sudoersReader) read(file string) error {
	b, err := r.root.ReadLimit(r.ctx, file, maxSudoersBytes)
	if err != nil {
		return err
	}
	r.out.files = append(r.out.files, file)
	r.open = append(r.open, file)
	defer func() { r.open = r.open[:len(r.open)-1] }()
	err = parseSudoers(file, string(b), r.out, func(name string, dir bool) error {
		return r.include(path.Dir(file), name, dir)
	})
	switch {
	case err == nil || len(r.problems) > maxProblems:
	case len(r.problems) == maxProblems:
		r.problems = append(r.problems, errors.New("sudoers: further files with errors"))
	default:
		r.problems = append(r.problems, err)
	}
	return nil
}

// include reads the file or directory that an include line names. The
// problems of the files themselves are kept with their own name.
func (r *sudoersReader) include(from, name string, dir bool) error {
	name = strings.ReplaceAll(name, "%h", r.host)
	if !strings.HasPrefix(name, "/") {
		name = path.Join(from, name)
	}
	if len(r.open) > maxSudoersDepth {
		return fmt.Errorf("includes %s more than %d files deep", name, maxSudoersDepth)
	}
	files := []string{name}
	if dir {
		var err error
		if files, err = r.directory(name); err != nil {
			return err
		}
	}
	for _, f := range files {
		if slices.Contains(r.open, path.Clean(f)) {
			return fmt.Errorf("includes %s, which is being read: a loop", f)
		}
		if r.opened++; r.opened > maxSudoersFiles {
			return fmt.Errorf("more than %d files are included", maxSudoersFiles)
		}
		err := r.read(path.Clean(f))
		if dir && (errors.Is(err, hostfs.ErrNotRegular) || errors.Is(err, hostfs.ErrNotExist)) {
			continue
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// directory lists what @includedir reads: no name with a dot or with ~ at its
// end. A directory that is missing is empty.
func (r *sudoersReader) directory(dir string) ([]string, error) {
	list, err := r.root.ReadDir(r.ctx, dir)
	if errors.Is(err, hostfs.ErrNotExist) {
		return nil, nil
	}
	var files []string
	for _, e := range list {
		if !strings.Contains(e.Name, ".") && !strings.HasSuffix(e.Name, "~") {
			files = append(files, path.Join(dir, e.Name))
		}
	}
	return files, err
}
