// SPDX-License-Identifier: Apache-2.0

package file

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"security-exporter/internal/bpf/abi"
	"security-exporter/internal/config"
	"security-exporter/internal/sensor/probe"
	"security-exporter/internal/testkit"
)

// staying are the rules that every list of the test has: one of each way in
// which a file can be known.
func staying(dir string) []config.FileRule {
	return []config.FileRule{
		{Path: dir + "/secret", Read: config.SeverityCritical, Write: config.SeverityCritical},
		{Path: dir + "/replaced", Write: config.SeverityCritical},
		{Path: dir + "/key-*.pem", Read: config.SeverityCritical},
		{Path: dir + "/folder/", Read: config.SeverityWarning, Write: config.SeverityWarning},
	}
}

// changing are rules in the same directories and elsewhere: other globs, in
// number, place and severity, other names, and a directory that comes and goes.
func changing(dir string, round int) []config.FileRule {
	var out []config.FileRule
	for i := range round % 5 {
		out = append(out,
			config.FileRule{Path: fmt.Sprintf("%s/glob-%d-%d*", dir, round%3, i), Read: config.SeverityInfo},
			config.FileRule{Path: fmt.Sprintf("%s/name-%d-%d", dir, round%3, i), Read: config.SeverityInfo},
			config.FileRule{Path: fmt.Sprintf("%s/folder/glob-%d-%d*", dir, round%2, i), Read: config.SeverityInfo},
			config.FileRule{Path: fmt.Sprintf("%s/other-%d-%d/x*", dir, round, i), Read: config.SeverityInfo})
	}
	if round%2 == 1 {
		out = append(out, config.FileRule{Path: dir + "/plain", Read: config.SeverityInfo})
	}
	return out
}

// setupRules starts a probe with the rules that stay.
func setupRules(t *testing.T) (string, *Rules, *testkit.Cgroup, *probe.Probe) {
	t.Helper()
	dir := t.TempDir()
	host := testkit.Inspect(t)
	cgroup := testkit.NewCgroup(t, host)
	mkdir(t, filepath.Join(dir, "folder"))
	for _, name := range []string{"secret", "plain", "key-1.pem", "folder/entry"} {
		write(t, filepath.Join(dir, name))
	}
	rules := NewRules(staying(dir))
	return dir, rules, cgroup, testkit.StartProbe(t, host, New(rules), cgroup.Only())
}

// Rules that stay count exactly while others come and go.
func TestRulesChangeUnderLoad(t *testing.T) {
	dir, rules, cgroup, p := setupRules(t)
	if p.Runs("on_kretprobe_vfs_unlink") && !p.Host().HasGuard() {
		t.Skip("needs Linux 6.1: before, a kretprobe knows as many calls at a time as there are CPUs, as docs/hooks.md says")
	}
	counters := testkit.NewWatch(t, p, "file_access_total")

	// Files made anew each time are known by name only, and one that is
	// replaced has a watched name before and after.
	const changes, batch = max(5, rounds/10), 50
	var over atomic.Bool
	var loads sync.WaitGroup
	load := func(operation string, args ...string) *int64 {
		w, n := cgroup.Start(t, "file"), new(int64)
		loads.Go(func() {
			for !over.Load() {
				if _, err := w.Try("repeat", append([]string{strconv.Itoa(batch), operation}, args...)...); err != nil {
					t.Error(err)
					return
				}
				*n += batch
			}
		})
		return n
	}
	secret := load("open", dir+"/secret")
	key := load("open-new", dir+"/key-new.pem")
	replaced := load("replace", dir+"/replaced", dir+"/unwatched")
	entry := load("open-new", dir+"/folder/new")

	for round := range changes {
		if err := rules.Set(slices.Concat(changing(dir, round), staying(dir))); err != nil {
			t.Error(err)
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	over.Store(true)
	loads.Wait()
	t.Logf("%d opens, %d of new files, %d replacements, %d entries", *secret, *key, *replaced, *entry)
	counters.Expect(t, map[string]map[int]int64{"file_access_total": {
		criticalRead: *secret + *key, criticalWrite: *replaced,
		// made, opened, removed
		warningRead: *entry, warningWrite: 2 * *entry,
	}})

	// What went is not counted any more, and what came is.
	if err := rules.Set([]config.FileRule{{Path: dir + "/plain", Read: config.SeverityInfo}}); err != nil {
		t.Fatal(err)
	}
	w := cgroup.Start(t, "file")
	counters = testkit.NewWatch(t, p, "file_access_total")
	for _, name := range []string{"secret", "key-1.pem", "folder/entry", "plain"} {
		w.Do("repeat", "7", "open", filepath.Join(dir, name))
	}
	counters.Expect(t, map[string]map[int]int64{"file_access_total": {infoRead: 7}})
	for _, table := range rules.usage() {
		if want := map[string]int{"watched_objects": 1, "watched_names": 1, "watched_directories": 1}[table.Name]; table.Entries != want {
			t.Errorf("%s has %d entries, want %d", table.Name, table.Entries, want)
		}
	}
}

// Rules that do not fit change nothing.
func TestRulesRefused(t *testing.T) {
	dir, rules, cgroup, p := setupRules(t)
	before := rules.usage()
	many := []config.FileRule{{Path: dir + "/other", Read: config.SeverityInfo}}
	for i := range int(abi.WatchDirectoryPatterns) + 1 {
		many = append(many, config.FileRule{Path: fmt.Sprintf("%s/glob-%d*", dir, i), Read: config.SeverityInfo})
	}
	err := rules.Set(many)
	if want := "watched files: directory " + dir + ": 17 globs; at most 16"; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
	if after := rules.usage(); !slices.Equal(after, before) {
		t.Errorf("tables %v, before %v", after, before)
	}
	w := cgroup.Start(t, "file")
	expect := func() {
		t.Helper()
		counters := testkit.NewWatch(t, p, "file_access_total")
		for _, name := range []string{"secret", "key-1.pem", "folder/entry", "plain"} {
			w.Do("repeat", "7", "open", filepath.Join(dir, name))
		}
		w.Do("repeat", "7", "open-new", dir+"/key-new.pem")
		counters.Expect(t, map[string]map[int]int64{"file_access_total": {criticalRead: 21, warningRead: 7}})
	}
	expect()

	// The kernel refuses one table, after others were written: all go back.
	if err := p.Map("watched_names").Freeze(); err != nil {
		t.Fatal(err)
	}
	err = rules.Set([]config.FileRule{
		{Path: dir + "/plain", Read: config.SeverityInfo},
		{Path: dir + "/key-*.pem", Read: config.SeverityInfo},
		{Path: dir + "/k*", Read: config.SeverityInfo},
		{Path: dir + "/new/", Read: config.SeverityInfo},
	})
	if err == nil || !strings.Contains(err.Error(), "watched_names") {
		t.Errorf("error %v", err)
	}
	if after := rules.usage(); !slices.Equal(after, before) {
		t.Errorf("tables %v, before %v", after, before)
	}
	expect()
}

func planOf(globs map[string][]string) *plan {
	p := newPlan()
	for dir, list := range globs {
		p.globs[dir] = map[string]abi.Watch{}
		for _, glob := range list {
			p.globs[dir][glob] = abi.Watch{Read: 0, Write: severityDefault}
		}
	}
	return p
}

// shown writes a layout as "number@first:glob,glob", - for a gap.
func shown(l layout) map[string]string {
	out := map[string]string{}
	for dir, e := range l {
		var globs []string
		for _, p := range e.patterns {
			glob := strings.TrimRight(string(p.Text[:]), "\x00")
			if p.Watch == unwatched {
				glob = "-"
			}
			globs = append(globs, glob)
		}
		out[dir] = fmt.Sprintf("%d@%d:%s", e.number, e.first, strings.Join(globs, ","))
	}
	return out
}

// What stays keeps its number and its place in every step.
func TestLayout(t *testing.T) {
	t.Parallel()
	l := layout{}
	for i, c := range []struct {
		globs map[string][]string
		drop  bool
		want  map[string]string
	}{
		{map[string][]string{"/a": {"x*", "y*"}, "/b": {"x*"}}, true, map[string]string{"/a": "0@0:x,y", "/b": "1@2:x"}},
		{map[string][]string{"/a": {"y*"}, "/b": {"x*", "z*"}}, true, map[string]string{"/a": "0@0:-,y", "/b": "1@3:x,z"}},
		{map[string][]string{"/a": {"n*", "y*"}, "/b": {"x*", "z*"}}, true, map[string]string{"/a": "0@5:n,y", "/b": "1@3:x,z"}},
		{map[string][]string{"/b": {"z*"}, "/c": {"q*", "r*", "s*"}}, true, map[string]string{"/b": "1@3:-,z", "/c": "2@0:q,r,s"}},
		{map[string][]string{"/d": {"m*"}}, false, map[string]string{"/b": "1@3:-,z", "/c": "2@0:q,r,s", "/d": "0@5:m"}},
	} {
		next, err := l.next(planOf(c.globs), c.drop)
		if err != nil {
			t.Fatal(err)
		}
		if got := shown(next); !maps.Equal(got, c.want) {
			t.Errorf("step %d: %v, want %v", i, got, c.want)
		}
		l = next
	}
}

func TestLayoutIsFull(t *testing.T) {
	t.Parallel()
	p := newPlan()
	for i := range int(abi.WatchDirectories) + 1 {
		p.exact[place{fmt.Sprintf("/d%04d", i), "x"}] = unwatched
	}
	l, err := layout{}.next(p, true)
	if want := "directory /d1024: 1024 directories are watched already"; err == nil || err.Error() != want || len(l) != int(abi.WatchDirectories) {
		t.Errorf("%d directories, %v", len(l), err)
	}
	p = newPlan()
	for i := range 33 {
		dir := fmt.Sprintf("/d%02d", i)
		p.globs[dir] = map[string]abi.Watch{}
		for j := range 16 {
			p.globs[dir][fmt.Sprintf("%d*", j)] = unwatched
		}
	}
	l, err = layout{}.next(p, true)
	if want := "directory /d32: too many globs: no room for 16 among 512"; err == nil || err.Error() != want || len(l) != 32 {
		t.Errorf("%d directories, %v", len(l), err)
	}
}

// openNew makes a file, opens it for reading and removes it.
func openNew(a ...string) error {
	if err := os.WriteFile(a[0], nil, 0o600); err != nil {
		return err
	}
	if err := openClose(a[0], 0); err != nil {
		return err
	}
	return os.Remove(a[0])
}

// replace puts a new file in the place of a watched one.
func replace(a ...string) error {
	if err := os.WriteFile(a[1], nil, 0o600); err != nil {
		return err
	}
	return os.Rename(a[1], a[0])
}
