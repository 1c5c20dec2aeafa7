// SPDX-License-Identifier: Apache-2.0

// Package version finds out what application a process is, and which version
// of it, without executing anything. It asks, in this order: the package
// database of the process's own root, the build information of a Go binary,
// the package note of an ELF file, the manifest of a JAR, the metadata of a
// Python distribution, the package.json of a Node application, and the image
// of the container.
//
// For java, python and node the application is what they run, so that is
// asked about first and the interpreter's own package last.
//
// A version that is not recorded somewhere stays empty: nothing is guessed
// from strings in a binary. Everything read belongs to the process and is
// hostile: it is read through a root that no link leaves, at most MaxRead
// bytes of a file (the indexes of archives and package databases have caps
// of their own), at most ProcessTime for one process.
package version

import (
	"context"
	"errors"
	"strings"
	"time"
	"unicode"

	"security-exporter/internal/hostfs"
	"security-exporter/internal/posture/pkgdb"
)

// Bounds of the work.
const (
	// MaxRead is the most that is read of one file, in bytes.
	MaxRead = 1 << 20
	// ProcessTime is the longest lookup for one process, RunTime that of one
	// Find; what is not looked up by then is left for the next run.
	ProcessTime = 3 * time.Second
	RunTime     = 10 * time.Second
	// NotFound is how long a lookup that found nothing is not repeated, Found
	// how long one that did: a package database may lag behind its files.
	NotFound = 5 * time.Minute
	Found    = time.Hour
	// Unchecked is how long a process that the caller knows is not looked at
	// again: until then only a changed executable shows.
	Unchecked = 5 * time.Minute
	// maxCached bounds the cache.
	maxCached = 4096
)

// Source is where a version comes from.
type Source string

// The sources, in the order in which they are asked.
const (
	Go          Source = "go"
	ELFNote     Source = "elf_note"
	Jar         Source = "jar"
	DistInfo    Source = "dist_info"
	PackageJSON Source = "package_json"
	Image       Source = "image"
	None        Source = "none"
)

// Sources is every Source as a closed label set: the package managers, those
// above, and none.
func Sources() []string {
	var out []string
	for _, t := range pkgdb.Types() {
		out = append(out, string(t))
	}
	for _, s := range []Source{Go, ELFNote, Jar, DistInfo, PackageJSON, Image, None} {
		out = append(out, string(s))
	}
	return out
}

// Identity is what is known about a process. Strings are as the process chose
// them, not cleaned.
type Identity struct {
	// Name is what the process calls itself (comm), Exe the path of the executable as the process sees it,
	// empty when it may not be read.
	Name, Exe string
	// App names the application: that of the source of the version, or the
	// systemd unit, or the name of the process in lower case.
	App     string
	Version string
	Source  Source
}

// Finder identifies processes and remembers what it found. Use it from one
// goroutine.
type Finder struct {
	now func() time.Time
	// root is the caller's with hung calls counted apart, so that a dead file
	// system in a container does not stop the reading of /proc.
	from, root *hostfs.Root
	// byProcess skips all work for a process seen before, byFile for another
	// process that runs the same files.
	byProcess map[int]seen
	byFile    map[fileKey]found
	images    map[string]imageEntry
	hung      chan struct{}
}

type seen struct {
	start uint64
	exe   fileID
	link  string
	id    Identity
	until time.Time
	// checked is when the process was looked at last.
	checked time.Time
}

// NewFinder returns a Finder that takes the time from now.
func NewFinder(now func() time.Time) *Finder {
	return &Finder{
		now: now, byProcess: make(map[int]seen), byFile: make(map[fileKey]found),
		images: make(map[string]imageEntry), hung: make(chan struct{}, 2),
	}
}

// Find identifies processes by pid. One that has gone is not in the result.
// Those in same are known to be the processes of the last Find, and have the
// text of their exe link.
func (f *Finder) Find(ctx context.Context, root *hostfs.Root, pids []int, same map[int]string) map[int]Identity {
	if f.from != root {
		f.from, f.root = root, root.Isolate()
	}
	budget, cancel := context.WithTimeout(ctx, RunTime)
	defer cancel()
	out := make(map[int]Identity, len(pids))
	keep := make(map[int]seen, len(pids))
	var fresh []*subject
	now := f.now()
	for _, pid := range pids {
		if old, ok := f.unchanged(pid, same, now); ok {
			out[pid], keep[pid] = old.id, old
			continue
		}
		s, err := f.open(ctx, budget, root, pid)
		if errors.Is(err, hostfs.ErrNotExist) {
			continue
		}
		if s.old != nil {
			s.old.id.Name, s.old.checked = s.id.Name, now
			out[pid], keep[pid] = s.old.id, *s.old
			s.close()
			continue
		}
		fresh = append(fresh, s)
	}
	f.identify(budget, fresh)
	for _, s := range fresh {
		s.finish()
		out[s.pid] = s.id
		if s.complete {
			keep[s.pid] = seen{s.start, s.exe, s.link, s.id, f.until(s.id.Version != ""), now}
		}
		s.close()
	}
	f.byProcess = keep
	f.evict()
	return out
}

func (f *Finder) unchanged(pid int, same map[int]string, now time.Time) (seen, bool) {
	link, known := same[pid]
	old, ok := f.byProcess[pid]
	return old, known && ok && old.link == link && now.Before(old.until) && now.Before(old.checked.Add(Unchecked))
}

func (f *Finder) until(hit bool) time.Time {
	if hit {
		return f.now().Add(Found)
	}
	return f.now().Add(NotFound)
}

// evict drops what has expired, and everything when that is not enough: the
// cache is refilled within a run.
func (f *Finder) evict() {
	now := f.now()
	for k, v := range f.byFile {
		if now.After(v.until) {
			delete(f.byFile, k)
		}
	}
	for k, v := range f.images {
		if now.After(v.until) {
			delete(f.images, k)
		}
	}
	if len(f.byFile) > maxCached {
		clear(f.byFile)
	}
	if len(f.images) > maxCached {
		clear(f.images)
	}
}

// plausible returns a version that a file states, or nothing when it is a
// placeholder that a build did not fill in.
func plausible(v string) string {
	v = strings.TrimSpace(v)
	if len(v) > 128 || strings.ContainsAny(v, "${}@<>") || !strings.ContainsFunc(v, unicode.IsDigit) {
		return ""
	}
	if v == "0.0.0" {
		return ""
	}
	return v
}
