// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"security-exporter/internal/hostfs"
)

// unitDirs is the search path of the system manager (systemd.unit(5),
// systemd-analyze unit-paths): what comes first wins. /lib/systemd is there
// for hosts that have not merged /usr.
var unitDirs = [...]string{
	"/etc/systemd/system.control", "/run/systemd/system.control", "/run/systemd/transient",
	"/run/systemd/generator.early", unitConfigDir, "/etc/systemd/system.attached",
	"/run/systemd/system", "/run/systemd/system.attached", "/run/systemd/generator",
	"/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system",
	"/run/systemd/generator.late",
}

const (
	unitConfigDir = "/etc/systemd/system"
	maxUnitBytes  = 1 << 20
	// maxUnitLinks is how many aliases lead to each other at most.
	maxUnitLinks = 64
)

// unitTree is what the directories of the search path hold, without the
// content of the files.
type unitTree struct {
	root *hostfs.Tree
	dirs []unitDir
}

// unitDir is one directory of the search path.
type unitDir struct {
	path string
	// files are the units: the text of a link, or "" for a file.
	files map[string]string
	// links are the names in the .wants, .requires and .upholds directories,
	// by the name of the directory, with the text of the link.
	links map[string]map[string]string
	// dropins are the directories *.d with their files.
	dropins map[string][]string
}

// readUnitTree lists the search path. With an error, it is what could be
// listed. Without any directory it is empty.
func readUnitTree(ctx context.Context, root *hostfs.Tree) (*unitTree, error) {
	t := &unitTree{root: root}
	var problems []error
	seen := make(map[[2]uint64]bool)
	for _, dir := range unitDirs {
		st, err := root.Stat(ctx, dir)
		if err != nil {
			problems = append(problems, unlessMissing(err))
			continue
		}
		if id := [2]uint64{st.Dev, st.Ino}; seen[id] || !st.Mode.IsDir() {
			continue
		} else {
			seen[id] = true
		}
		d, err := readUnitDir(ctx, root, dir)
		problems = append(problems, err)
		t.dirs = append(t.dirs, d)
	}
	return t, errors.Join(problems...)
}

func readUnitDir(ctx context.Context, root *hostfs.Tree, dir string) (unitDir, error) {
	d := unitDir{
		path: dir, files: make(map[string]string),
		links: make(map[string]map[string]string), dropins: make(map[string][]string),
	}
	list, err := root.ReadLinks(ctx, dir)
	problems := []error{unlessMissing(err)}
	for _, e := range list {
		full := path.Join(dir, e.Name)
		_, unit := parseUnitName(e.Name)
		switch ext := path.Ext(e.Name); {
		case ext == ".wants" || ext == ".requires" || ext == ".upholds":
			d.links[e.Name], err = readUnitLinks(ctx, root, full)
		case ext == ".d" && e.Type != fs.ModeSymlink:
			d.dropins[e.Name], err = root.Glob(ctx, full+"/*.conf")
		case unit && e.Type == fs.ModeSymlink:
			d.files[e.Name] = e.Target
		case unit && e.Type == 0:
			d.files[e.Name] = ""
		}
		problems = append(problems, unlessMissing(err))
		err = nil
	}
	return d, errors.Join(problems...)
}

func readUnitLinks(ctx context.Context, root *hostfs.Tree, dir string) (map[string]string, error) {
	list, err := root.ReadLinks(ctx, dir)
	if err != nil {
		return nil, err
	}
	out := make(map[string]string)
	for _, e := range list {
		if e.Type == fs.ModeSymlink {
			out[e.Name] = e.Target
		}
	}
	return out, nil
}

// names lists the units of a type that have a file or link, templates
// included, sorted.
func (t *unitTree) names(kind string) []string {
	seen := make(map[string]bool)
	for _, d := range t.dirs {
		for name := range d.files {
			if strings.HasSuffix(name, "."+kind) {
				seen[name] = true
			}
		}
	}
	return sortedKeys(seen)
}

// wanted lists the instances of templates that a link in the search path
// starts, sorted: they have no file of their own.
func (t *unitTree) wanted(kind string) []string {
	seen := make(map[string]bool)
	for _, d := range t.dirs {
		for _, links := range d.links {
			for name := range links {
				if n, ok := parseUnitName(name); ok && n.kind == kind && n.instanced() {
					seen[name] = true
				}
			}
		}
	}
	return sortedKeys(seen)
}

// unit is a loaded unit.
type unit struct {
	// name is that of the file in the end, which differs from the name asked
	// for where that is an alias.
	name string
	// path of the file, and the index of its directory in the search path.
	path string
	// masked units lead to /dev/null or are empty, linked ones lie outside of
	// the search path.
	masked, linked bool
	// sameName units are links to a file of the same name further down the
	// search path.
	sameName bool
	settings []unitSetting
	// install is what of them systemctl(1) looks at. It reads the drop-ins of a
	// linked unit before the unit.
	install []unitSetting
}

// load finds a unit, follows aliases and reads its file with all drop-ins.
// ErrNotExist means that there is none.
func (t *unitTree) load(ctx context.Context, name string) (*unit, error) {
	u := &unit{name: name}
	for range maxUnitLinks {
		dir, file := t.find(u.name)
		if dir == nil {
			return nil, fmt.Errorf("unit %.128q: %w", name, hostfs.ErrNotExist)
		}
		u.path = path.Join(dir.path, file)
		target := dir.files[file]
		if target == "" {
			return u, t.read(ctx, u)
		}
		next, err := t.follow(ctx, u, target)
		if err != nil || next == "" {
			return u, err
		}
		u.name = next
	}
	return nil, fmt.Errorf("unit %.128q: its aliases lead in a circle", name)
}

// follow goes one step along the link at u.path and returns the name to look
// up next, "" if the unit is complete.
func (t *unitTree) follow(ctx context.Context, u *unit, target string) (string, error) {
	if !path.IsAbs(target) {
		target = path.Join(path.Dir(u.path), target)
	}
	target = path.Clean(target)
	st, err := t.root.Stat(ctx, target)
	if target == "/dev/null" || err == nil && st.Mode.IsRegular() && st.Size == 0 {
		u.masked = true
		return "", nil
	}
	if !t.inside(ctx, path.Dir(target)) {
		u.linked = true
		return "", t.read(ctx, u)
	}
	base := path.Base(target)
	if base == path.Base(u.path) {
		u.sameName = true
		u.path = target
		return "", t.read(ctx, u)
	}
	// A template's alias keeps the instance.
	if n, ok := parseUnitName(u.name); ok && n.instanced() {
		if to, ok := parseUnitName(base); ok && to.template() {
			base = to.withInstance(n.instance)
		}
	}
	return base, nil
}

// inside is whether a directory is part of the search path, under any of its
// names.
func (t *unitTree) inside(ctx context.Context, dir string) bool {
	if slices.Contains(unitDirs[:], dir) {
		return true
	}
	st, err := t.root.Stat(ctx, dir)
	if err != nil {
		return false
	}
	return slices.ContainsFunc(t.dirs, func(d unitDir) bool {
		own, err := t.root.Stat(ctx, d.path)
		return err == nil && own.Dev == st.Dev && own.Ino == st.Ino
	})
}

// find returns the directory and the name of the file for a unit: its own or,
// for an instance, that of the template.
func (t *unitTree) find(name string) (*unitDir, string) {
	candidates := []string{name}
	if n, ok := parseUnitName(name); ok && n.instanced() {
		candidates = append(candidates, n.withInstance(""))
	}
	for _, c := range candidates {
		for i := range t.dirs {
			if _, ok := t.dirs[i].files[c]; ok {
				return &t.dirs[i], c
			}
		}
	}
	return nil, ""
}

func (t *unitTree) read(ctx context.Context, u *unit) error {
	b, err := t.root.ReadLimit(ctx, u.path, maxUnitBytes)
	if err != nil {
		return err
	}
	if len(b) == 0 && !u.linked {
		u.masked = true
		return nil
	}
	own, err := parseUnit(bytes.NewReader(b))
	dropins, errDropins := t.readDropins(ctx, u.name)
	u.settings = slices.Concat(own, dropins)
	u.install = u.settings
	if u.linked {
		u.install = slices.Concat(dropins, own)
	}
	return errors.Join(err, errDropins)
}

// readDropins returns the assignments of all drop-ins of a unit.
func (t *unitTree) readDropins(ctx context.Context, name string) ([]unitSetting, error) {
	var out []unitSetting
	var problems []error
	for _, f := range t.dropinFiles(name) {
		b, err := t.root.ReadLimit(ctx, f, maxUnitBytes)
		if errors.Is(err, hostfs.ErrNotRegular) || errors.Is(err, hostfs.ErrNotExist) {
			// A link to /dev/null masks the drop-ins of its name.
			continue
		}
		if err == nil {
			var more []unitSetting
			more, err = parseUnit(bytes.NewReader(b))
			out = append(out, more...)
		}
		problems = append(problems, err)
	}
	return out, errors.Join(problems...)
}

// dropinFiles lists the drop-ins of a unit in the order in which they apply: by
// name of the file, of each name the first in the search path. Those for all
// units of a type and for all with a common prefix are among them.
func (t *unitTree) dropinFiles(name string) []string {
	byName := make(map[string]string)
	for _, dir := range unitDropinDirs(name) {
		for _, d := range t.dirs {
			for _, f := range d.dropins[dir] {
				if base := path.Base(f); byName[base] == "" {
					byName[base] = f
				}
			}
		}
	}
	out := make([]string, 0, len(byName))
	for _, base := range sortedKeys(byName) {
		out = append(out, byName[base])
	}
	return out
}

// unitDropinDirs lists the names of the directories with drop-ins for a unit,
// the most specific first: foo-bar@i.service.d, foo-bar@.service.d,
// foo-.service.d, service.d.
func unitDropinDirs(name string) []string {
	n, ok := parseUnitName(name)
	if !ok {
		return nil
	}
	dirs := []string{name + ".d"}
	if n.instanced() {
		dirs = append(dirs, n.withInstance("")+".d")
	}
	for prefix := strings.TrimRight(n.prefix, "-"); ; {
		i := strings.LastIndexByte(prefix, '-')
		if i < 0 {
			break
		}
		if n.at {
			dirs = append(dirs, prefix[:i+1]+"@."+n.kind+".d")
		}
		dirs = append(dirs, prefix[:i+1]+"."+n.kind+".d")
		prefix = prefix[:i]
	}
	return append(dirs, n.kind+".d")
}
