// SPDX-License-Identifier: Apache-2.0

package file

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/cilium/ebpf"

	"security-exporter/internal/bpf/abi"
	"security-exporter/internal/sensor/probe"
)

// tables mirrors the kernel's tables, so that an update writes what changed
// and removes what is stale only after everything new is in place.
type tables struct {
	probe *probe.Probe

	numbers     map[string]uint32 // directory path to its number, never reused
	patterns    uint32            // next free
	filter      [abi.WatchFilterBits / 64]uint64
	objects     map[abi.Object]abi.Watch
	directories map[abi.Object]uint32
	paths       map[uint64]uint32
	names       map[abi.Name]abi.Watch
}

func newTables(p *probe.Probe) *tables {
	return &tables{
		probe: p, numbers: map[string]uint32{}, objects: map[abi.Object]abi.Watch{},
		directories: map[abi.Object]uint32{}, paths: map[uint64]uint32{}, names: map[abi.Name]abi.Watch{},
	}
}

// update brings the kernel's tables in line with the plan. What does not fit
// is left out and reported as one error; the rest is in force.
func (t *tables) update(p *plan, found []identified) error {
	var errs []error
	for _, dir := range p.directories() {
		errs = append(errs, t.addDirectory(dir, p))
	}
	objects := map[abi.Object]abi.Watch{}
	directories := map[abi.Object]uint32{}
	paths := map[uint64]uint32{}
	names := map[abi.Name]abi.Watch{}
	for _, f := range found {
		number, known := t.numbers[f.path]
		switch {
		case f.directory && known:
			directories[f.object] = number
		case !f.directory:
			objects[f.object] = join(objects, f.object, f.watch)
		}
		t.setFilter(f.object.Inode)
	}
	for at, watch := range p.exact {
		if number, ok := t.numbers[at.directory]; ok && at.name != anyEntry {
			names[abi.Name{Directory: number, Text: text(at.name)}] = watch
		}
	}
	for dir, number := range t.numbers {
		paths[hashPath(dir)] = number
		t.setFilter(startOfName(path.Base(dir)))
	}
	if err := t.probe.Variable("filter").Set(t.filter); err != nil {
		return fmt.Errorf("write the filter: %w", err)
	}
	errs = append(errs,
		apply(t.probe.Map("watched_names"), t.names, names),
		apply(t.probe.Map("watched_paths"), t.paths, paths),
		apply(t.probe.Map("watched_directories"), t.directories, directories),
		apply(t.probe.Map("watched_objects"), t.objects, objects))
	return errors.Join(errs...)
}

// directories are all directories that the plan has something to say about.
func (p *plan) directories() []string {
	all := map[string]bool{}
	for at := range p.exact {
		all[at.directory] = true
	}
	for dir := range p.globs {
		all[dir] = true
	}
	return slices.Sorted(maps.Keys(all))
}

// addDirectory gives a directory its number, and writes what applies to all
// of its entries. The rules do not change, so it is written once.
func (t *tables) addDirectory(dir string, p *plan) error {
	if _, known := t.numbers[dir]; known {
		return nil
	}
	number := uint32(len(t.numbers))
	if int(number) >= abi.WatchDirectories {
		return fmt.Errorf("directory %s: %d directories are watched already", dir, number)
	}
	entry := abi.Directory{Any: abi.Watch{Read: severityDefault, Write: severityDefault}, FirstPattern: t.patterns}
	if watch, ok := p.exact[place{dir, anyEntry}]; ok {
		entry.Any = watch
	}
	for _, glob := range slices.Sorted(maps.Keys(p.globs[dir])) {
		if entry.Patterns == uint32(abi.WatchDirectoryPatterns) || t.patterns == uint32(abi.WatchPatterns) {
			return fmt.Errorf("directory %s: too many globs", dir)
		}
		pattern := newPattern(glob, p.globs[dir][glob])
		if err := t.probe.Map("patterns").Put(t.patterns, pattern); err != nil {
			return fmt.Errorf("write glob %s/%s: %w", dir, glob, err)
		}
		t.patterns++
		entry.Patterns++
	}
	if err := t.probe.Map("directories").Put(number, entry); err != nil {
		return fmt.Errorf("write directory %s: %w", dir, err)
	}
	t.numbers[dir] = number
	return nil
}

// apply writes what is new or different, then deletes what is stale, and
// leaves have equal to want, less what the kernel refused.
func apply[K, V comparable](m *ebpf.Map, have, want map[K]V) error {
	var refused error
	for key, value := range want {
		if old, ok := have[key]; ok && old == value {
			continue
		}
		if err := m.Put(key, value); err != nil {
			refused = fmt.Errorf("table %s: %w", m, err)
			continue
		}
		have[key] = value
	}
	for key := range have {
		if _, ok := want[key]; ok {
			continue
		}
		if err := m.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			refused = fmt.Errorf("table %s: %w", m, err)
		}
		delete(have, key)
	}
	return refused
}

func (t *tables) setFilter(word uint64) {
	bit := fold(word) % uint64(abi.WatchFilterBits)
	t.filter[bit/64] |= 1 << (bit % 64)
}

func newPattern(glob string, watch abi.Watch) abi.Pattern {
	prefix, suffix, star := strings.Cut(glob, "*")
	out := abi.Pattern{Watch: watch, Prefix: uint8(len(prefix)), Suffix: uint8(len(suffix)), Text: text(prefix + suffix)}
	if star {
		out.Star = 1
	}
	return out
}

// text is a name as the kernel's programs compare it: padded with zeros.
func text(s string) (out [abi.NameLen]uint8) {
	copy(out[:], s)
	return out
}

// The constants of FNV-1a, here over words instead of bytes, as in watch.h.
const (
	hashBasis = 0xcbf29ce484222325
	hashPrime = 0x100000001b3
)

// hashPath is path_of() of watch.h.
func hashPath(dir string) uint64 {
	hash := uint64(hashBasis)
	for _, component := range slices.Backward(strings.Split(strings.Trim(dir, "/"), "/")) {
		if component == "" {
			continue
		}
		padded := text(component)
		for words := padded[:]; len(words) > 0; words = words[8:] {
			hash = (hash ^ binary.NativeEndian.Uint64(words)) * hashPrime
		}
	}
	return hash
}

// startOfName is start_of_name() of watch.h: seven bytes and a NUL.
func startOfName(name string) uint64 {
	var word [8]byte
	copy(word[:7], name)
	return binary.NativeEndian.Uint64(word[:])
}

// fold is fold() of watch.h.
func fold(word uint64) uint64 {
	return word * 0x9e3779b97f4a7c15 >> 48
}
