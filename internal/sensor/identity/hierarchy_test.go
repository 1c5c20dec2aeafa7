// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"security-exporter/internal/bpf/abi"
	"security-exporter/internal/sensor/event"
	"security-exporter/internal/testkit"
)

// ids is an event with the ids of both hierarchies.
func ids(unified, legacy uint64, tgid uint32) *event.Event {
	return &event.Event{Kind: event.Kind(abi.EventExec), CgroupID: unified, LegacyCgroupID: legacy, TGID: tgid}
}

// legacyTree is a directory with cgroups, by path, that cannot be opened by
// their ids.
func legacyTree(t testing.TB, paths ...string) (root string, byPath map[string]uint64) {
	t.Helper()
	root, byPath = t.TempDir(), map[string]uint64{}
	for _, path := range paths {
		full := filepath.Join(root, path)
		if err := os.MkdirAll(full, 0o755); err != nil {
			t.Fatal(err)
		}
		byPath[path] = inode(t, full)
	}
	return root, byPath
}

// The same number is another cgroup in each hierarchy.
func TestTwoHierarchies(t *testing.T) {
	t.Parallel()
	root, _ := legacyTree(t)
	procfs := proc(t, map[int]string{1: "4:memory:/\n0::/\n", 8: "4:memory:/docker/" + idA + "\n0::/\n"})
	r := resolver(t, Options{Root: onHost(procfs, "testdata/docker"), LegacyRoot: root, LegacyController: "memory"}, "")
	for h, paths := range map[*hierarchy]map[uint64]string{
		&r.unified: {1: "/", 7: "/docker/" + idA, 8: "/system.slice/ssh.service", 9: "/"},
		&r.legacy:  {1: "/", 7: "/docker/" + idB, 8: "/system.slice/cron.service", 9: "/docker/" + idA},
	} {
		for id, path := range paths {
			r.keep(h, id, r.hold(t.Context(), h, path))
		}
	}
	for _, c := range []struct {
		name            string
		unified, legacy uint64
		label, unit     string
	}{
		{"the same container in both", 7, 9, "web", ""},
		{"version 2 comes first", 7, 7, "web", ""},
		{"the same number, in version 1 alone", 1, 7, "app", ""},
		{"the same number, in both, another meaning", 9, 9, "web", ""},
		{"no version 2", 0, 7, "app", ""},
		{"a container in a unit", 8, 7, "app", ""},
		{"units: that of version 2", 8, 8, "", "ssh.service"},
		{"a unit in version 1 alone", 1, 8, "", "cron.service"},
		{"a unit in version 2 alone", 8, 1, "", "ssh.service"},
		{"the host", 1, 1, "", ""},
		{"no id of version 1", 1, 0, "", ""},
		{"an unknown id of version 1", 1, 99, "", ""},
		{"an unknown id of version 1, a unit", 8, 99, "", "ssh.service"},
	} {
		got := r.Lookup(ids(c.unified, c.legacy, 0))
		if got.Label() != c.label || got.Unit != c.unit {
			t.Errorf("%s: label %q, unit %q, want %q and %q", c.name, got.Label(), got.Unit, c.label, c.unit)
		}
	}
	if got := r.Lookup(ids(1, 0, 8)).Label(); got != "" {
		t.Errorf("label %q: a process was asked although the events have ids", got)
	}
	if got := r.Stats(); got.Entries != 9 || got.Capacity != 2*DefaultCapacity || got.Gone != 1 || got.Evicted != 0 {
		t.Errorf("%+v, want 9 entries and 1 gone", got)
	}
}

// Where cgroups cannot be opened by id, the process tells the path, which
// counts if the id is right, and is asked no more then.
func TestLegacyByProcess(t *testing.T) {
	t.Parallel()
	root, byPath := legacyTree(t, "docker/"+idA, "docker/"+idB)
	procfs := proc(t, map[int]string{
		1: "4:memory:/\n0::/\n", 8: "5:pids:/else\n4:cpu,memory:/docker/" + idA + "\n0::/\n", 9: "5:pids:/docker/" + idB + "\n0::/\n",
	})
	clock := &at{time.Unix(1000, 0)}
	r := resolver(t, Options{Root: onHost(procfs, "testdata/docker"), LegacyRoot: root, LegacyController: "memory", Now: clock.time}, "")
	if r.legacy.mount != nil {
		t.Fatal("opened by id")
	}
	web, other := byPath["docker/"+idA], byPath["docker/"+idB]
	for _, c := range []struct {
		name  string
		do    func()
		e     *event.Event
		label string
		gone  uint64
	}{
		{"another cgroup than the process is in", nil, ids(0, other, 8), "", 1},
		{"not asked again at once", nil, ids(0, other, 8), "", 1},
		{"another controller", func() { clock.now = clock.now.Add(retry + 1) }, ids(0, other, 9), "", 2},
		{"its own", nil, ids(0, web, 8), "web", 2},
		{"remembered", func() { _ = os.RemoveAll(filepath.Join(procfs, "8")) }, ids(0, web, 8), "web", 2},
		{"nobody to ask", func() { r.sweep(t.Context()) }, ids(0, web, 0), "web", 2},
		{"gone", func() { _ = os.Remove(filepath.Join(root, "docker", idA)); r.sweep(t.Context()) }, ids(0, web, 8), "", 3},
	} {
		if c.do != nil {
			c.do()
		}
		if got := r.Lookup(c.e).Label(); got != c.label {
			t.Errorf("%s: label %q, want %q", c.name, got, c.label)
		}
		if got := r.Stats().Gone; got != c.gone {
			t.Errorf("%s: %d gone, want %d", c.name, got, c.gone)
		}
	}
}

// Each hierarchy has room for as many.
func TestEvictionByHierarchy(t *testing.T) {
	t.Parallel()
	root, _ := legacyTree(t)
	r := resolver(t, Options{Root: onHost(proc(t, nil), "testdata/docker"), LegacyRoot: root, LegacyController: "memory", Capacity: 4}, "")
	for id := range uint64(30) {
		path := "/jobs/" + strconv.FormatUint(id, 10)
		r.keep(&r.legacy, 1+id, r.hold(t.Context(), &r.legacy, path))
		if got := r.Lookup(ids(1000, 1+id, 0)).Path; got != path {
			t.Errorf("path %q, want %q", got, path)
		}
	}
	if got := r.Stats(); got.Entries != 5 || got.Capacity != 8 || got.Evicted != 26 {
		t.Errorf("%+v, want 5 entries, 4 of version 1, and 26 evicted", got)
	}
}

// A cgroup of version 1 is found by its id, learned when it is made, known
// until the next sweep when it has gone, and then forgotten.
func TestLegacyCgroups(t *testing.T) {
	t.Parallel()
	testkit.RequireBPF(t)
	place := testkit.NewLegacyCgroup(t, host(), "security-exporter-identity/docker/"+idA)
	legacy := host().Legacy
	r := resolver(t, Options{CgroupRoot: host().CgroupRoot, LegacyRoot: legacy.Root, LegacyController: legacy.Controller}, "testdata/docker")
	if r.legacy.mount == nil {
		t.Fatal("cannot open cgroups by their id")
	}
	if got := r.Lookup(ids(1, place.ID, 0)).Label(); got != "web" {
		t.Errorf("label %q by its id", got)
	}
	done := make(chan error, 1)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	go func() { done <- r.watch(ctx, &r.legacy) }()
	eventually(t, "the parent to be watched", func() bool { return r.knows(&r.legacy, inode(t, filepath.Dir(place.Path))) })
	again := testkit.NewLegacyCgroup(t, host(), "security-exporter-identity/docker/"+idB)
	eventually(t, "a new one", func() bool { return r.knows(&r.legacy, again.ID) })
	if r.knows(&r.unified, again.ID) && r.unified.byID[again.ID].identity.ContainerID == idB {
		t.Error("it is known in the other hierarchy")
	}
	if err := os.Remove(again.Path); err != nil {
		t.Fatal(err)
	}
	if got := r.Lookup(ids(1, again.ID, 0)).ContainerID; got != idB {
		t.Errorf("container %q before the sweep", got)
	}
	r.sweep(t.Context())
	if r.knows(&r.legacy, again.ID) || !r.knows(&r.legacy, place.ID) {
		t.Error("the sweep forgets another than the one that has gone")
	}
	if got := r.Lookup(ids(1, again.ID, 0)).ContainerID; got != "" {
		t.Errorf("container %q after the sweep", got)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestKnownLegacyLookupAllocatesNothing(t *testing.T) {
	root, _ := legacyTree(t)
	r := resolver(t, Options{Root: onHost(proc(t, nil), "testdata/docker"), LegacyRoot: root, LegacyController: "memory"}, "")
	r.keep(&r.unified, 1, r.hold(t.Context(), &r.unified, "/"))
	r.keep(&r.legacy, 7, r.hold(t.Context(), &r.legacy, "/docker/"+idA))
	e := ids(1, 7, 8)
	if n := testing.AllocsPerRun(1000, func() { r.Lookup(e) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func inode(t testing.TB, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}
