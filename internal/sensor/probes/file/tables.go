// SPDX-License-Identifier: Apache-2.0

package file

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"path"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"security-exporter/internal/bpf/abi"
	"security-exporter/internal/sensor/probe"
)

// tables mirrors the kernel's tables, so that an update writes what changed
// and removes what is stale only after everything new is in place.
type tables struct {
	probe  *probe.Probe
	filter [abi.WatchFilterBits / 64]uint64
	contents
}

// contents is what the kernel's tables hold, or should.
type contents struct {
	layout      layout
	objects     map[abi.Object]abi.Watch
	directories map[abi.Object]uint32
	paths       map[uint64]uint32
	names       map[abi.Name]abi.Watch
}

func newContents(l layout) *contents {
	return &contents{
		layout: l, objects: map[abi.Object]abi.Watch{}, directories: map[abi.Object]uint32{},
		paths: map[uint64]uint32{}, names: map[abi.Name]abi.Watch{},
	}
}

func (c *contents) clone() *contents {
	return &contents{
		layout: c.layout, objects: maps.Clone(c.objects), directories: maps.Clone(c.directories),
		paths: maps.Clone(c.paths), names: maps.Clone(c.names),
	}
}

func newTables(p *probe.Probe) *tables {
	return &tables{probe: p, contents: *newContents(layout{})}
}

// update brings the kernel's tables in line with the plan. What does not fit
// is left out and reported as one error; the rest is in force.
func (t *tables) update(p *plan, found []identified) error {
	want, err := t.lay(p, found, false)
	return errors.Join(err, t.write(want))
}

// replace is update for other rules: all of them, or none and an error.
func (t *tables) replace(p *plan, found []identified) error {
	want, err := t.lay(p, found, true)
	if err != nil {
		return err
	}
	before := t.clone()
	if err := t.write(want); err != nil {
		return errors.Join(err, t.write(before))
	}
	return nil
}

// lay works out what the tables are to hold, and what of it does not fit.
func (t *tables) lay(p *plan, found []identified, drop bool) (*contents, error) {
	next, err := t.layout.next(p, drop)
	errs := []error{err}
	c := newContents(next)
	for _, f := range found {
		e, known := next[f.path]
		switch {
		case f.directory && known:
			c.directories[f.object] = e.number
		case !f.directory:
			c.objects[f.object] = join(c.objects, f.object, f.watch)
		}
	}
	for at, watch := range p.exact {
		if e, ok := next[at.directory]; ok && at.name != anyEntry {
			c.names[abi.Name{Directory: e.number, Text: text(at.name)}] = watch
		}
	}
	for dir, e := range next {
		c.paths[hashPath(dir)] = e.number
	}
	for _, table := range []struct {
		what      string
		have, max int
	}{{"files", len(c.objects), int(abi.WatchObjects)}, {"names", len(c.names), int(abi.WatchNames)}} {
		if table.have > table.max {
			errs = append(errs, fmt.Errorf("%d %s are to be watched; at most %d", table.have, table.what, table.max))
		}
	}
	return c, errors.Join(errs...)
}

// write makes the kernel's tables equal to want, less what the kernel refused.
// Programs run all the while, so what is watched before and after is watched
// at each step: first comes all that is new, then what changes, one field at a
// time, and at last what is stale goes.
func (t *tables) write(want *contents) error {
	for dir, e := range want.layout {
		t.setFilter(startOfName(path.Base(dir)))
		if old, known := t.layout[dir]; known && e.first == old.first {
			continue // written below, once the names are there
		}
		if err := t.writePatterns(e, nil); err != nil {
			return err
		}
		if _, known := t.layout[dir]; known {
			continue
		}
		if err := t.writeDirectory(dir, e, len(e.patterns)); err != nil {
			return err
		}
	}
	for object := range want.objects {
		t.setFilter(object.Inode)
	}
	for object := range want.directories {
		t.setFilter(object.Inode)
	}
	if err := t.probe.Variable("filter").Set(t.filter); err != nil {
		return fmt.Errorf("write the filter: %w", err)
	}
	full := t.add(want)
	if err := t.change(want.layout); err != nil {
		t.layout = want.layout // so that all of it is written on the way back
		return err
	}
	dropped := t.layout.lacks(want.layout)
	t.layout = want.layout
	err := t.remove(want)
	if full != nil {
		full = t.add(want) // there is room now
	}
	if dropped {
		settle() // what is free may be given to others
	}
	return errors.Join(err, full)
}

// change rewrites the directories that stay. A program reads a directory's
// fields one after the other: so the place of its globs changes first, with as
// many as are in both places, and their number when no program that began
// before runs any longer.
func (t *tables) change(next layout) error {
	var longer []string
	moved := false
	for dir, e := range next {
		old, known := t.layout[dir]
		if !known || e.equal(old) {
			continue
		}
		both := len(e.patterns)
		if e.first == old.first {
			if err := t.writePatterns(e, old.patterns); err != nil {
				return err
			}
		} else {
			moved = true
			both = min(both, len(old.patterns))
		}
		if err := t.writeDirectory(dir, e, both); err != nil {
			return err
		}
		if both != len(e.patterns) {
			longer = append(longer, dir)
		}
	}
	if moved {
		settle()
	}
	for _, dir := range longer {
		if err := t.writeDirectory(dir, next[dir], len(next[dir].patterns)); err != nil {
			return err
		}
	}
	return nil
}

// lacks says whether other has not every directory of l.
func (l layout) lacks(other layout) bool {
	for dir := range l {
		if _, ok := other[dir]; !ok {
			return true
		}
	}
	return false
}

func (t *tables) writeDirectory(dir string, e entry, patterns int) error {
	if err := t.probe.Map("directories").Put(e.number, e.written(patterns)); err != nil {
		return fmt.Errorf("write directory %s: %w", dir, err)
	}
	return nil
}

// writePatterns writes those that differ from old, in the same place.
func (t *tables) writePatterns(e entry, old []abi.Pattern) error {
	for i, pattern := range e.patterns {
		if i < len(old) && old[i] == pattern {
			continue
		}
		if err := t.probe.Map("patterns").Put(e.first+uint32(i), pattern); err != nil {
			return fmt.Errorf("write glob %d: %w", int(e.first)+i, err)
		}
	}
	return nil
}

func (t *tables) add(want *contents) error {
	return errors.Join(
		add(t.probe.Map("watched_names"), t.names, want.names),
		add(t.probe.Map("watched_paths"), t.paths, want.paths),
		add(t.probe.Map("watched_directories"), t.directories, want.directories),
		add(t.probe.Map("watched_objects"), t.objects, want.objects))
}

func (t *tables) remove(want *contents) error {
	return errors.Join(
		remove(t.probe.Map("watched_names"), t.names, want.names),
		remove(t.probe.Map("watched_paths"), t.paths, want.paths),
		remove(t.probe.Map("watched_directories"), t.directories, want.directories),
		remove(t.probe.Map("watched_objects"), t.objects, want.objects))
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

// add writes what is new or different. The kernel changes an entry at once.
func add[K, V comparable](m *ebpf.Map, have, want map[K]V) error {
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
	return refused
}

// remove deletes what is stale.
func remove[K, V comparable](m *ebpf.Map, have, want map[K]V) error {
	var refused error
	for key := range have {
		if _, ok := want[key]; ok {
			continue
		}
		if err := m.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			refused = fmt.Errorf("table %s: %w", m, err)
			continue
		}
		delete(have, key)
	}
	return refused
}

// settleFallback is far longer than any program runs.
const settleFallback = 50 * time.Millisecond

// settle returns when no program that runs now runs any longer: programs are
// read-side sections of RCU, and membarrier(2) waits for a grace period. It
// does not with one CPU, and is refused with nohz_full.
func settle() {
	const cmdGlobal = 1
	_, _, errno := unix.Syscall(unix.SYS_MEMBARRIER, cmdGlobal, 0, 0)
	if errno != 0 || runtime.NumCPU() == 1 {
		time.Sleep(settleFallback)
	}
}

func (t *tables) setFilter(word uint64) {
	bit := fold(word) % uint64(abi.WatchFilterBits)
	t.filter[bit/64] |= 1 << (bit % 64)
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
