// SPDX-License-Identifier: Apache-2.0

package file

import (
	"maps"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"security-exporter/internal/bpf/abi"
	"security-exporter/internal/config"
)

// Bounds on what rules may grow to on a host.
const (
	maxHomes        = 512
	maxEntries      = 1024
	maxPasswdBytes  = 16 << 20
	passwdPath      = "/etc/passwd"
	anyEntry        = ""
	severityDefault = uint8(abi.SeverityNone)
)

// plan is what the rules mean on this host now. Paths are host paths with
// every symbolic link in their directories resolved.
type plan struct {
	// exact, by directory and name; the name anyEntry stands for every entry.
	exact map[place]abi.Watch
	// globs, by directory.
	globs map[string]map[string]abi.Watch
	// learn are the files and directories whose identity the kernel must
	// tell, with what an access to them costs and how well they are known.
	learn map[string]learned
	// observed are the paths whose stamps say when the plan is out of date.
	observed map[string]stamp
}

type place struct{ directory, name string }

type learned struct {
	watch     abi.Watch
	precision int // an exact name says more than a glob or a directory
	directory bool
	follow    bool
}

const (
	byDirectory = iota
	byGlob
	byName
)

func newPlan() *plan {
	return &plan{
		exact: map[place]abi.Watch{}, globs: map[string]map[string]abi.Watch{},
		learn: map[string]learned{}, observed: map[string]stamp{},
	}
}

// resolve finds out what the rules name. What does not exist stays in the plan
// by name: it is watched from the moment it does.
func resolve(r *root, rules []config.FileRule) *plan {
	p := newPlan()
	var homes []string
	for _, rule := range rules {
		watch := abi.Watch{Read: severity(rule.Read), Write: severity(rule.Write)}
		rest, home := strings.CutPrefix(rule.Path, "~/")
		if !home {
			p.add(r, rule.Path, watch)
			continue
		}
		if homes == nil {
			homes = homeDirectories(r)
			p.observe(r, passwdPath, path.Dir(passwdPath))
		}
		for _, h := range homes {
			p.add(r, strings.TrimSuffix(h, "/")+"/"+rest, watch)
		}
	}
	return p
}

func severity(s config.Severity) uint8 {
	switch s {
	case config.SeverityCritical:
		return uint8(abi.SeverityCritical)
	case config.SeverityWarning:
		return uint8(abi.SeverityWarning)
	case config.SeverityInfo:
		return uint8(abi.SeverityInfo)
	default:
		return severityDefault
	}
}

// homeDirectories are the home directories in passwd(5), without those that
// many system accounts share and that are nobody's home.
func homeDirectories(r *root) []string {
	data, err := r.read(passwdPath, maxPasswdBytes)
	if err != nil {
		return []string{"/root"}
	}
	seen := map[string]bool{"/root": true}
	for line := range strings.Lines(string(data)) {
		fields := strings.Split(strings.TrimSuffix(line, "\n"), ":")
		if len(fields) < 7 || !strings.HasPrefix(fields[5], "/") {
			continue
		}
		home := path.Clean(fields[5])
		if home != "/" && len(seen) < maxHomes && strings.Count(home, "/") < abi.WatchDepth {
			seen[home] = true
		}
	}
	return slices.Sorted(maps.Keys(seen))
}

func (p *plan) observe(r *root, paths ...string) {
	for _, name := range paths {
		p.observed[name] = r.stamp(name)
	}
}

// add puts one absolute path into the plan.
func (p *plan) add(r *root, name string, watch abi.Watch) {
	clean := path.Clean(name)
	literal, base := path.Split(clean)
	literal = path.Clean(literal)
	p.observe(r, clean, literal)
	if strings.ContainsAny(base, "*?") {
		if strings.HasSuffix(name, "/") {
			p.addDirectories(r, literal, base, watch)
		} else {
			p.addGlob(r, literal, base, watch)
		}
		return
	}
	real, kind, err := r.real(clean)
	if strings.HasSuffix(name, "/") || (err == nil && kind == unix.S_IFDIR) {
		p.addDirectory(r, clean, watch)
		return
	}
	p.addName(r, literal, base, watch)
	if err != nil {
		return
	}
	if target := path.Join(p.directory(r, literal), base); real != target { // a symbolic link
		p.observe(r, real)
		p.addName(r, path.Dir(real), path.Base(real), watch)
	}
	if kind == unix.S_IFREG {
		p.addLearned(real, learned{watch: watch, precision: byName})
	}
}

// directory is the real path of a directory, which is learned by the way; the
// path itself if there is none yet.
func (p *plan) directory(r *root, literal string) string {
	real, kind, err := r.real(literal)
	if err != nil || kind != unix.S_IFDIR {
		return literal
	}
	p.observe(r, real)
	p.learn[real] = learned{directory: true, follow: true}
	return real
}

func (p *plan) addName(r *root, literal, base string, watch abi.Watch) {
	at := place{p.directory(r, literal), base}
	p.exact[at] = join(p.exact, at, watch)
}

func (p *plan) addGlob(r *root, literal, glob string, watch abi.Watch) {
	dir := p.directory(r, literal)
	if p.globs[dir] == nil {
		p.globs[dir] = map[string]abi.Watch{}
	}
	p.globs[dir][glob] = join(p.globs[dir], glob, watch)
	p.learnEntries(r, dir, func(name string) bool { return matchGlob(glob, name) }, learned{watch: watch, precision: byGlob})
}

func (p *plan) addDirectory(r *root, literal string, watch abi.Watch) {
	dir := p.directory(r, literal)
	at := place{dir, anyEntry}
	p.exact[at] = join(p.exact, at, watch)
	p.learnEntries(r, dir, func(string) bool { return true }, learned{watch: watch, precision: byDirectory})
}

// addDirectories is addDirectory for each directory that a glob names now.
func (p *plan) addDirectories(r *root, literal, glob string, watch abi.Watch) {
	dir := p.directory(r, literal)
	names, err := r.entries(dir, maxEntries)
	if err != nil {
		return
	}
	for _, name := range names {
		full := path.Join(dir, name)
		if !matchGlob(glob, name) {
			continue
		}
		if _, kind, err := r.real(full); err == nil && kind == unix.S_IFDIR {
			p.addDirectory(r, full, watch)
		}
	}
}

// learnEntries learns the entries of a directory that match. Links among them
// are not followed: a masked unit is a link to /dev/null.
func (p *plan) learnEntries(r *root, dir string, match func(string) bool, as learned) {
	names, err := r.entries(dir, maxEntries)
	if err != nil {
		return
	}
	for _, name := range names {
		if match(name) {
			p.addLearned(path.Join(dir, name), as)
		}
	}
}

func (p *plan) addLearned(name string, as learned) {
	known, ok := p.learn[name]
	switch {
	case known.directory:
	case !ok || as.precision > known.precision:
		p.learn[name] = as
	case as.precision == known.precision:
		known.watch = severer(known.watch, as.watch)
		p.learn[name] = known
	}
}

func join[K comparable](in map[K]abi.Watch, key K, watch abi.Watch) abi.Watch {
	if known, ok := in[key]; ok {
		return severer(known, watch)
	}
	return watch
}

// severer takes the severer of each: the lower number.
func severer(a, b abi.Watch) abi.Watch {
	return abi.Watch{Read: min(a.Read, b.Read), Write: min(a.Write, b.Write)}
}

// matchGlob matches a name as the programs in the kernel do: ? is any byte,
// and the one * anything.
func matchGlob(glob, name string) bool {
	prefix, suffix, star := strings.Cut(glob, "*")
	if len(name) < len(prefix)+len(suffix) || (!star && len(name) != len(prefix)) {
		return false
	}
	return matchBytes(prefix, name) && matchBytes(suffix, name[len(name)-len(suffix):])
}

func matchBytes(pattern, text string) bool {
	for i := range len(pattern) {
		if pattern[i] != '?' && pattern[i] != text[i] {
			return false
		}
	}
	return true
}

// current says whether the plan still describes the host.
func (p *plan) current(r *root) bool {
	for name, before := range p.observed {
		if r.stamp(name) != before {
			return false
		}
	}
	return true
}
