// SPDX-License-Identifier: Apache-2.0

package file

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"security-exporter/internal/bpf/abi"
)

var unwatched = abi.Watch{Read: severityDefault, Write: severityDefault}

// layout says which number each watched directory has, by path, and where its
// globs stand in the kernel's list of patterns. It is never changed: next
// makes another.
type layout map[string]entry

// entry is what the kernel has of one directory.
type entry struct {
	number, first uint32
	any           abi.Watch
	patterns      []abi.Pattern
}

func (e entry) written(patterns int) abi.Directory {
	return abi.Directory{Any: e.any, FirstPattern: e.first, Patterns: uint32(patterns)}
}

func (e entry) equal(o entry) bool {
	return e.number == o.number && e.first == o.first && e.any == o.any && slices.Equal(e.patterns, o.patterns)
}

// next is the layout for a plan. A directory that stays keeps its number, and
// a glob that stays its place among those of its directory, so that a program
// that is running meanwhile finds them at any moment. What this layout holds
// is not given to others yet. Directories that the plan does not name are
// kept unless drop is set. What has no room is left out and reported.
func (l layout) next(p *plan, drop bool) (layout, error) {
	out, taken := maps.Clone(l), newTaken(l)
	wanted := p.directories()
	if drop {
		maps.DeleteFunc(out, func(dir string, _ entry) bool {
			_, found := slices.BinarySearch(wanted, dir)
			return !found
		})
	}
	var errs []error
	for _, dir := range wanted {
		e, known := out[dir]
		old := e.patterns
		e.any = unwatched
		if watch, ok := p.exact[place{dir, anyEntry}]; ok {
			e.any = watch
		}
		e.patterns = align(old, p.globs[dir])
		if len(e.patterns) > int(abi.WatchDirectoryPatterns) {
			errs = append(errs, fmt.Errorf("directory %s: %d globs; at most %d", dir, len(e.patterns), int(abi.WatchDirectoryPatterns)))
			continue
		}
		if !known {
			number, ok := take(taken.numbers[:], 1)
			if !ok {
				errs = append(errs, fmt.Errorf("directory %s: %d directories are watched already", dir, len(taken.numbers)))
				continue
			}
			e.number = number
		}
		if !sameTexts(old, e.patterns) {
			first, ok := take(taken.patterns[:], len(e.patterns))
			if !ok {
				errs = append(errs, fmt.Errorf("directory %s: too many globs: no room for %d among %d", dir, len(e.patterns), len(taken.patterns)))
				continue
			}
			e.first = first
		}
		out[dir] = e
	}
	return out, errors.Join(errs...)
}

// taken are the numbers and places that have an owner.
type taken struct {
	numbers  [abi.WatchDirectories]bool
	patterns [abi.WatchPatterns]bool
}

func newTaken(l layout) *taken {
	var t taken
	for _, e := range l {
		t.numbers[e.number] = true
		for i := range e.patterns {
			t.patterns[int(e.first)+i] = true
		}
	}
	return &t
}

// take finds the first n that are free in a row.
func take(owned []bool, n int) (uint32, bool) {
	free := 0
	for i := range owned {
		free++
		if owned[i] {
			free = 0
		}
		if free < n {
			continue
		}
		start := i + 1 - n
		for j := range n {
			owned[start+j] = true
		}
		return uint32(start), true
	}
	return 0, false
}

// align puts globs in the order of the patterns that are in force: what stays
// keeps its place, what is new fills the gaps, and a gap that is left stands
// for nothing.
func align(old []abi.Pattern, globs map[string]abi.Watch) []abi.Pattern {
	var added []abi.Pattern
	out, stays := slices.Clone(old), make([]bool, len(old))
	for _, glob := range slices.Sorted(maps.Keys(globs)) {
		pattern := newPattern(glob, globs[glob])
		at := slices.IndexFunc(old, func(o abi.Pattern) bool { return sameText(o, pattern) })
		if at < 0 || stays[at] {
			added = append(added, pattern)
			continue
		}
		out[at], stays[at] = pattern, true
	}
	for i := range out {
		switch {
		case stays[i]:
		case len(added) > 0:
			out[i], added = added[0], added[1:]
		default:
			out[i].Watch = unwatched
		}
	}
	return append(out, added...)
}

func sameText(a, b abi.Pattern) bool {
	a.Watch, b.Watch = unwatched, unwatched
	return a == b
}

func sameTexts(a, b []abi.Pattern) bool { return slices.EqualFunc(a, b, sameText) }

func newPattern(glob string, watch abi.Watch) abi.Pattern {
	prefix, suffix, star := strings.Cut(glob, "*")
	out := abi.Pattern{Watch: watch, Prefix: uint8(len(prefix)), Suffix: uint8(len(suffix)), Text: text(prefix + suffix)}
	if star {
		out.Star = 1
	}
	return out
}
