// SPDX-License-Identifier: Apache-2.0

package version

import (
	"cmp"
	"context"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"security-exporter/internal/hostfs"
	"security-exporter/internal/posture/pkgdb"
)

// found is what the files of a process say about it.
type found struct {
	app, version string
	source       Source
	until        time.Time
}

// fileKey is what a lookup depends on. The root is part of it: two containers
// may share a file and differ in what their package databases say.
type fileKey struct {
	root, exe, program fileID
	name               string
	replaced           bool
}

func (s *subject) key() fileKey {
	k := fileKey{s.rootID, s.exe, s.programID, s.id.Exe, s.replaced}
	k.root.modified = time.Time{}
	if s.program.kind != kindBinary {
		k.name += "\x00" + s.program.path + "\x00" + strings.Join(s.program.classPath, ":")
	}
	return k
}

// identify looks up the processes, those of one root together: one pass over
// a package database serves them all.
func (f *Finder) identify(ctx context.Context, all []*subject) {
	byRoot := make(map[fileID][]*subject)
	for _, s := range all {
		if s.proc == nil || s.link == "" {
			continue
		}
		one, cancel := context.WithTimeout(ctx, ProcessTime)
		err := s.inspect(one)
		cancel()
		if s.exe == (fileID{}) {
			continue
		}
		if err != nil {
			s.complete = ctx.Err() == nil
			s.got = found{}
			f.image(ctx, s)
			continue
		}
		k := s.key()
		if hit, ok := f.byFile[k]; ok && f.now().Before(hit.until) {
			s.got, s.complete = hit, true
			f.image(ctx, s)
			continue
		}
		byRoot[k.root] = append(byRoot[k.root], s)
	}
	for _, group := range byRoot {
		owners, ok := f.owners(ctx, group)
		done := make(map[fileKey]found)
		for _, s := range group {
			k := s.key()
			got, had := done[k]
			if !had && ctx.Err() == nil {
				got = f.lookup(ctx, s, owners)
				got.until = f.until(got.version != "")
				done[k] = got
				had = true
			}
			s.got, s.complete = got, had && ok
			if s.complete {
				f.byFile[k] = got
			}
			f.image(ctx, s)
		}
	}
}

// owners asks the package databases of a root for the executables and scripts
// of a group. A database on a file system that hangs is given up; two such
// are waited for at a time, and meanwhile no further root is asked.
func (f *Finder) owners(ctx context.Context, group []*subject) (map[string]pkgdb.Owner, bool) {
	var names []string
	for _, s := range group {
		if !s.replaced {
			names = append(names, s.id.Exe)
		}
		if s.programID != (fileID{}) {
			names = append(names, s.program.path)
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if len(names) == 0 {
		return nil, true
	}
	select {
	case f.hung <- struct{}{}:
	default:
		return nil, false
	}
	ctx, cancel := context.WithTimeout(ctx, ProcessTime)
	defer cancel()
	root, err := group[0].proc.Root(ctx)
	if err != nil {
		<-f.hung
		return nil, false
	}
	done := make(chan map[string]pkgdb.Owner, 1)
	go func() {
		defer func() { <-f.hung }()
		defer func() { _ = root.Close() }()
		// A damaged database is as good as none: other sources may know.
		owners, _ := pkgdb.Owners(ctx, root.Tree, names)
		done <- maps.Clone(owners)
	}()
	select {
	case owners := <-done:
		return owners, ctx.Err() == nil
	case <-ctx.Done():
		return nil, true
	}
}

// lookup asks the files. What it finds depends on the fileKey alone.
func (f *Finder) lookup(ctx context.Context, s *subject, owners map[string]pkgdb.Owner) found {
	ctx, cancel := context.WithTimeout(ctx, ProcessTime)
	defer cancel()
	if s.program.kind != kindBinary {
		if got := application(ctx, s, owners); got.version != "" {
			return got
		}
	}
	if o, ok := owners[s.id.Exe]; ok && !s.replaced {
		got := found{version: o.Version, source: Source(o.Type)}
		if s.program.kind != kindBinary {
			// The version is the interpreter's, so the name must be too.
			got.app = strings.ToLower(path.Base(s.id.Exe))
		}
		return got
	}
	got, err := hostfs.ViewExe(ctx, s.proc, readBinary)
	if err != nil {
		return found{}
	}
	return got
}

// application asks about what an interpreter runs.
func application(ctx context.Context, s *subject, owners map[string]pkgdb.Owner) found {
	p, root := s.program, s.root.Tree
	if o, ok := owners[p.path]; ok && s.programID != (fileID{}) {
		return found{app: strings.ToLower(strings.TrimSuffix(path.Base(p.path), path.Ext(p.path))), version: o.Version, source: Source(o.Type)}
	}
	switch p.kind {
	case kindJava:
		return readJar(ctx, root, p.path, "")
	case kindClass:
		return findClass(ctx, root, p)
	case kindPython, kindModule:
		return readPython(ctx, root, p, s.id.Exe)
	case kindNode:
		return readNode(ctx, root, p.path)
	}
	return found{}
}

// image completes what the files left open with the image of the container.
// The interpreter's own version gives way to it.
func (f *Finder) image(ctx context.Context, s *subject) {
	interpreter := s.program.kind != kindBinary && slices.Contains(pkgdb.Types(), pkgdb.Type(s.got.source)) &&
		s.got.app == strings.ToLower(path.Base(s.id.Exe))
	if s.container == "" || s.got.version != "" && !interpreter {
		return
	}
	name, tag := f.imageOf(ctx, s.container)
	if tag == "" && s.got.version != "" {
		return
	}
	if tag != "" {
		s.got.app, s.got.version, s.got.source = cmp.Or(name, s.got.app), tag, Image
	} else if name != "" {
		s.got.app = cmp.Or(s.got.app, name)
	}
}
